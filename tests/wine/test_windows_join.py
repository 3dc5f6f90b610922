"""A Windows machine joins a Linux head: Windows Python and Windows Ray, under Wine."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from tests.wine.machine import KEEP_UP, WindowsPython, windows_path
from tests.wine.prefix import why_unavailable, windows_python

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "orchestrator"))
from clusters import Machine, all_gone, until

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(why_unavailable()), reason=str(why_unavailable())),
]

WHERE_TASKS_RUN = """
import json, os, sys
from orchestrator.membership import nodes
cluster = nodes.current_cluster()
os.environ |= cluster.ray_environment()
import ray
ray.init(address=cluster.ray_address, log_to_driver=False, logging_level="ERROR")

@ray.remote(num_cpus=1)
def where():
    import sys
    return sys.platform, json.loads(open(os.environ["HEAPGATE_NODE"]).read())["node_id"]

try:
    print(json.dumps(ray.get(where.options(label_selector={"os": "windows"}).remote(), timeout=90)))
finally:
    ray.shutdown()
"""


@dataclass
class Cluster:
    """A Linux head and the Windows machine that shall join it."""

    head: Machine
    windows: WindowsPython
    folder: Path

    def bench(self, *arguments: str | Path, timeout_s: float = 150.0) -> str:
        """What a command prints on the Windows machine; it must succeed.

        Not by pipes: what the command leaves running would hold them open.
        """
        log = self.folder / "command.log"
        log.unlink(missing_ok=True)
        process = self.windows.popen(
            ["-m", "orchestrator.cli", "node", *arguments],
            environment={"HEAPGATE_STATE": windows_path(self.folder / "windows")},
            log=log,
        )
        code = process.wait(timeout_s)
        until(lambda: log.exists() and bool(log.read_text()), timeout_s=10.0)
        assert code == 0, log.read_text() + self.daemon_log()
        return log.read_text()

    def daemon_log(self) -> str:
        path = self.folder / "windows" / "cluster" / "node" / "daemon.log"
        return path.read_text() if path.exists() else ""

    def processes(self) -> list[psutil.Process]:
        """Python and Ray in this prefix, as this machine sees them."""
        found = []
        for process in psutil.process_iter():
            try:
                mine = process.environ().get("WINEPREFIX") == str(self.windows.prefix)
                line = " ".join(process.cmdline())
            except psutil.Error:
                continue
            if (
                mine
                and KEEP_UP not in line
                and ("python.exe" in line or "raylet" in line or "gcs_server" in line)
            ):
                found.append(process)
        return found

    def daemon(self) -> psutil.Process:
        (found,) = [p for p in self.processes() if "orchestrator.membership.join" in p.cmdline()]
        return found

    def join(self) -> None:
        self.bench(
            "join", self.head.head_address, "--secret", self.head.secret,
            "--name", "windows-1", "--label", "rack=w",
        )  # fmt: skip
        until(lambda: self.node()["state"] == "ready")

    def node(self) -> dict[str, object]:
        return self.head.nodes()["windows-1"]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    folder = tmp_path_factory.mktemp("windows-join")
    head = Machine(folder / "head")
    head.bench("node", "head", "--port", "0")
    try:
        with windows_python() as windows:
            yield Cluster(head, windows, folder)
    finally:
        head.end()


def test_a_windows_machine_joins_works_and_leaves(cluster: Cluster) -> None:
    cluster.join()
    until(lambda: cluster.node()["clock_offset_ns"] is not None)
    node = cluster.node()
    assert node["os"] == "windows"
    assert node["labels"] == {"rack": "w"}
    facts = node["facts"]
    assert isinstance(facts, dict)
    assert facts["commit_limit_bytes"] > 2**30
    assert facts["limits_mechanism"] == "job object"
    offset_ns, error_ns = node["clock_offset_ns"], node["clock_error_ns"]
    assert isinstance(offset_ns, int)
    assert isinstance(error_ns, int)
    assert abs(offset_ns) <= error_ns  # Wine shows this machine's clock
    assert "job object" in cluster.head.bench("node", "ls")
    assert json.loads(cluster.head.python(WHERE_TASKS_RUN)) == ["win32", node["node_id"]]
    assert cluster.processes()
    assert "windows-1 left" in cluster.bench("leave")
    until(lambda: not cluster.processes())
    assert cluster.head.nodes() == {}


def test_nothing_outlives_a_windows_node_that_is_killed(cluster: Cluster) -> None:
    cluster.join()
    family = cluster.processes()
    assert len(family) >= 4
    cluster.daemon().kill()
    until(lambda: all_gone(family))
    until(lambda: cluster.node()["state"] == "lost")
    cluster.join()
    keeper = next(p for p in cluster.processes() if "orchestrator.membership.keeper" in p.cmdline())
    rest = [p for p in cluster.processes() if p != cluster.daemon()]
    keeper.kill()
    until(lambda: all_gone(rest))
    until(lambda: any("orchestrator.membership.keeper" in p.cmdline() for p in cluster.processes()))
    until(lambda: cluster.node()["state"] == "ready", timeout_s=90.0)
    assert "windows-1 left" in cluster.bench("leave")
    until(lambda: not cluster.processes())

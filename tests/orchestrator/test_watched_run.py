"""One real run that a real Prometheus watches and whose end is told: every panel of the dashboard
has an answer, the message arrives, and the addresses that it went to are nowhere to be found.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from bench_command import BENCH, Workplace, wait_until
from matrices import SMALL, write
from postbox import Box, mail_server, unused_port, webhook

from orchestrator.watching.setup import write_setup
from results.archive.archive import Archive
from results.record import TrialRecord

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not shutil.which("prometheus"), reason="no Prometheus: apt install prometheus"
    ),
]

SECRET = "hunter2secret"
ON_THE_COMMAND_LINE = "hunter3secret"
MATRIX = SMALL.replace("measure: 1s", "measure: 4s").replace("trials: 2", "trials: 1")
NEEDS_LIMIT = {"heapgate_trial_memory_limit_bytes"}
NEEDS_GROUP = {"heapgate_trial_cgroup_usage_bytes", "heapgate_trial_cgroup_anon_bytes"}
ON_WINDOWS = {"heapgate_trial_commit_bytes"}


@dataclass
class Watched:
    """What came of it."""

    place: Workplace
    setup: Path
    prometheus: str
    code: int
    out: str
    err: str
    began_s: float
    hook: Box
    mail: Box
    exposed: set[str] = field(default_factory=set)
    """Processes, other than the command itself, that had an address in sight meanwhile."""

    @property
    def records(self) -> list[TrialRecord]:
        (run_id,) = self.place.run_ids()
        found = Archive(self.place.archive).records(run_id)
        assert len(found) >= 2
        return found

    def ask(self, path: str, **parameters: Any) -> Any:
        url = f"{self.prometheus}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        with urllib.request.urlopen(url, timeout=30) as answer:
            plain = json.load(answer)
        assert plain["status"] == "success"
        return plain["data"]


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    root = tmp_path_factory.mktemp("watched")
    place, metrics = Workplace(root), f"127.0.0.1:{unused_port()}"
    began_s = time.time()
    matrix = write(root, MATRIX + "limits: {memory_max: 1GiB}\n")
    with _prometheus(root, metrics) as address, webhook() as hook, mail_server() as mail:
        file = root / "targets"
        mailto = f"mailto://127.0.0.1:{mail.port}?from={SECRET}@example.org&to=you@example.org"
        file.write_text(f"{mailto}&mode=insecure\n")
        file.chmod(0o600)
        urls = [f"json://u:{SECRET}@127.0.0.1:{port}/" for port in (hook.port, unused_port())]
        run = subprocess.Popen(
            [
                *(str(BENCH), "run", str(matrix)),
                *("--metrics", metrics, "--notify-file", str(file)),
                *("--notify", f"json://{ON_THE_COMMAND_LINE}@127.0.0.1:{unused_port()}"),
            ],
            cwd=root,
            env=place.environment | {"HEAPGATE_NOTIFY": " ".join(urls)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        exposed: set[str] = set()
        over = threading.Event()
        looking = threading.Thread(target=_look, args=(run.pid, exposed, over))
        looking.start()
        try:
            out, err = run.communicate(timeout=240)
        finally:
            over.set()
            looking.join()
            run.kill()
        yield Watched(
            place, root / "setup", address, run.returncode, out, err, began_s, hook, mail, exposed
        )


@contextlib.contextmanager
def _prometheus(root: Path, metrics: str) -> Iterator[str]:
    """A server by the shipped configuration, which looks more often than that says."""
    write_setup(root / "setup", metrics)
    config = root / "setup" / "prometheus.yml"
    config.write_text(config.read_text().replace("interval: 5s", "interval: 1s"))
    port = unused_port()
    with (root / "prometheus.log").open("w") as log:
        process = subprocess.Popen(
            [
                "prometheus",
                f"--config.file={config}",
                f"--storage.tsdb.path={root / 'prometheus'}",
                f"--web.listen-address=127.0.0.1:{port}",
            ],
            stdout=log,
            stderr=log,
        )
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(30)


def _look(command: int, exposed: set[str], over: threading.Event) -> None:
    """Look at the arguments of all processes, and at the environment of the command's own."""
    while not over.wait(0.1):
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                name = (folder / "comm").read_text().strip()
                arguments = (folder / "cmdline").read_bytes()
                if SECRET.encode() in arguments:
                    exposed.add(f"arguments of {name}")
                if ON_THE_COMMAND_LINE.encode() in arguments and int(folder.name) != command:
                    exposed.add(f"those of the command in {name}")
                if int(folder.name) not in (command, os.getpid()) and (
                    SECRET.encode() in (folder / "environ").read_bytes()
                ):
                    exposed.add(f"environment of {name}")


def test_every_panel_of_the_dashboard_has_an_answer(watched: Watched) -> None:
    assert watched.code in (0, 3), watched.out + watched.err
    span = {"start": watched.began_s, "end": time.time(), "step": 1}
    assert _greatest(watched.ask("query_range", query='up{job="heapgate"}', **span)) == 1
    limited = {limit.name: limit.enforced for record in watched.records for limit in record.limits}
    absent = set(ON_WINDOWS)
    absent |= set() if limited.get("memory_max_bytes") else NEEDS_LIMIT | NEEDS_GROUP
    document = json.loads((watched.setup / "heapgate-dashboard.json").read_text())
    targets = [target for panel in document["panels"] for target in panel["targets"]]
    assert len(targets) > 25
    for target in targets:
        query = target["expr"].replace("$instance", ".*").replace("$__rate_interval", "5s")
        answer = watched.ask("query_range", query=query, **span)["result"]
        assert answer or any(name in query for name in absent), query


def _greatest(answer: Any) -> float:
    return max(float(value) for series in answer["result"] for _, value in series["values"])


def test_what_prometheus_saw_is_what_was_measured(watched: Watched) -> None:
    span = {"start": watched.began_s, "end": time.time(), "step": 1}
    peaks: dict[str, int] = {}
    for record in watched.records:
        peak = max((p.rss_bytes or 0 for p in record.peaks), default=0)
        peaks[record.configuration] = max(peak, peaks.get(record.configuration, 0))
    for series in watched.ask(
        "query_range", query="max by (configuration) (heapgate_trial_resident_bytes)", **span
    )["result"]:
        seen = max(float(value) for _, value in series["values"])
        # The kernel counts its peak and what is resident by counters of some pages' difference.
        assert 0 < seen <= peaks[series["metric"]["configuration"]] * 1.05
    sent = sum(record.load.sent for record in watched.records if record.load)
    rows = _greatest(
        watched.ask("query_range", query='heapgate_archive_rows_total{table="requests"}', **span)
    )
    assert 0 < rows <= sent
    assert _greatest(watched.ask("query_range", query="heapgate_run_planned_trials", **span)) == 2


def test_every_alert_can_be_evaluated(watched: Watched) -> None:
    groups = watched.ask("rules")["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    assert len(rules) >= 8
    assert {(rule["health"], rule.get("lastError", "")) for rule in rules} == {("ok", "")}


def test_the_end_is_told_to_all_that_can_be_reached(watched: Watched) -> None:
    (posted,), (mailed,) = watched.hook.arrived, watched.mail.arrived
    (run_id,) = watched.place.run_ids()
    for message in (posted, mailed):
        assert message["title"].startswith(f"bench run {watched.place.root}/matrix.yaml: ")
        text = " ".join(message["message"].split())
        assert f"ended with exit code {watched.code} after" in text
        assert f"Run {run_id} of sessioncache" in text
        assert "of 2 trials" in text
        assert f"bench report {run_id} --archive {watched.place.archive}" in text
    # With one block no test decides: the verdict's own words.
    assert "trial" in posted["message"]
    (warning,) = [line for line in watched.err.splitlines() if "not notified" in line]
    assert warning == (
        "warning: not notified: --notify 1 (JSON): it was not reached, or refused it; "
        "$HEAPGATE_NOTIFY 2 (JSON): it was not reached, or refused it"
    )


def test_no_address_is_left_anywhere(watched: Watched) -> None:
    assert watched.exposed == set()
    assert not _secrets_in((watched.out + watched.err).encode())
    archive, state = watched.place.archive, watched.place.root / "state"
    files = [path for root in (archive, state) for path in root.rglob("*") if path.is_file()]
    assert any("ray" in path.parts for path in files), "Ray's logs are among them"
    assert [path for path in files if _secrets_in(path.read_bytes())] == []


def _secrets_in(data: bytes) -> bool:
    return any(secret.encode() in data for secret in (SECRET, ON_THE_COMMAND_LINE))


def test_ray_is_not_told_the_command_line() -> None:
    """Else its head keeps that, with the jobs of all runs."""
    code = "from orchestrator.cluster import _quiet_ray as q; u = q()._private.utils; print({})"
    known = "u.get_entrypoint_name()"
    done = subprocess.run(
        [sys.executable, "-c", code.format(known), SECRET],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).resolve().parents[2],
    )
    assert done.stdout.strip() == "bench"


def test_nothing_is_left_behind(watched: Watched) -> None:
    assert wait_until(lambda: watched.place.strays() == [], timeout_s=30)

"""A `bench run` on a cluster of namespaces: started, watched, and held against the truth."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from results.archive.archive import Archive
from results.judging.validity import spoiled_by_node
from results.record import TrialRecord, planned_id
from tests.cluster.lan import Lan
from tests.orchestrator.clusters import until
from tests.orchestrator.matrices import ROOT

IN_FLIGHT = 4
ACCOUNT = re.compile(
    r"at least ([\d,]+) requests were sent, ([\d,]+) are in the archive, ([\d,]+) are counted as"
)

IMPATIENT = """
import sys
import orchestrator.measure as measure
measure.RETURN_S = {seconds}
from orchestrator.cli import main
main()
"""

MATRIX = """\
service:
  name: known
  go: {{source: {service}}}
  arguments: [-addr, "{{host}}:{{port}}", -ledger, "{ledger}"]
  ready: {{http: /healthz, timeout: 20s}}
  stop_timeout: 1s
configurations:
  default: {{baseline: true, go: "1.23"}}
  other: {{go: "1.23", env: {{GOGC: 50}}}}
workloads:
  steady:
    {{scenario: {scenario}, {load}, idle: 100ms, warmup: 200ms, measure: {measure}, cooldown: 0s}}
nodes: {{linux: {nodes}}}
trials: {trials}
seed: 7
gc_trace: false
"""


@contextmanager
def open_folder(prefix: str = "hgcluster-") -> Iterator[Path]:
    """A folder that the unprivileged service may enter too: pytest's own are for one user."""
    with tempfile.TemporaryDirectory(prefix=prefix) as name:
        Path(name).chmod(0o755)
        yield Path(name)


def matrix(
    folder: Path,
    *,
    nodes: str,
    trials: int,
    load: str = "users: 4",
    measure: str = "1500ms",
) -> Path:
    """A matrix for the service that keeps a ledger on disk, in a folder of its own."""
    ledger = folder / "ledger"
    ledger.mkdir(parents=True)
    ledger.chmod(0o777)
    folder.chmod(0o755)
    text = MATRIX.format(
        service=ROOT / "tests" / "services" / "known",
        scenario=ROOT / "tests" / "scenarios" / "ledger.py",
        ledger=ledger,
        load=load,
        measure=measure,
        nodes=nodes,
        trials=trials,
    )
    path = folder / "matrix.yaml"
    path.write_text(text, encoding="utf-8")
    return path


@dataclass
class Bench:
    """`bench` on the head, as its user would start it, with all that it says."""

    process: subprocess.Popen[str]
    lines: list[str] = field(default_factory=list)

    @classmethod
    def start(
        cls,
        whole: Lan,
        folder: Path,
        *arguments: str,
        archive: Path | None = None,
        patience_s: float | None = None,
    ) -> Bench:
        """`patience_s`: how long it waits for a node to come back, where a test can't wait."""
        command = [sys.executable, "-m", "orchestrator.cli", *arguments]
        if patience_s is not None:
            command[1:3] = ["-c", IMPATIENT.format(seconds=patience_s)]
        process = subprocess.Popen(
            [*command, "--archive", str(archive or folder / "archive")],
            env=whole.head.environment | {"PYTHONPATH": str(ROOT)},
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        started = cls(process)
        started._reader = threading.Thread(target=started._read, daemon=True)
        started._reader.start()
        return started

    def __post_init__(self) -> None:
        self._reader = threading.Thread()

    def _read(self) -> None:
        self.lines += self.process.stdout or ()  # grows line by line

    @property
    def said(self) -> str:
        return "".join(self.lines)

    @property
    def running(self) -> bool:
        return self.process.poll() is None

    def until_says(self, text: str, timeout_s: float = 90.0) -> None:
        """Wait for a word of it; its end is the end of waiting."""
        until(lambda: text in self.said or not self.running, timeout_s)
        assert text in self.said, self.said

    def ended(self, timeout_s: float = 120.0) -> int:
        """The exit code, when all that it said is here."""
        code = self.process.wait(timeout_s)
        self._reader.join(10)
        return code

    def interrupt(self) -> int:
        """What Ctrl-C does."""
        self.process.send_signal(signal.SIGINT)
        return self.ended()

    def close(self) -> None:
        """The test is over, whatever became of it."""
        if self.running:
            self.process.kill()
            self.process.wait()


def run_folder(folder: Path, archive: Path | None = None) -> Path:
    """The folder of the only run."""
    (run,) = Archive(archive or folder / "archive").runs()
    return run.path


def records(folder: Path, archive: Path | None = None) -> list[dict[str, Any]]:
    """All sealed trials of the only run."""
    paths = run_folder(folder, archive).glob("trials/*/trial.json")
    return sorted(
        (json.loads(path.read_text()) for path in paths), key=lambda record: record["started_ns"]
    )


def archived(record: dict[str, Any]) -> int:
    """Rows of requests in the archive, of all parts."""
    return sum(n for name, n in record["rows"].items() if name.startswith("requests"))


def accounts(record: dict[str, Any]) -> list[tuple[int, int, int]]:
    """Each `sent at least, archived, lost` that a trial's findings tell."""
    found = [match for f in record["findings"] if (match := ACCOUNT.search(f["text"]))]
    return [tuple(int(n.replace(",", "")) for n in match.groups()) for match in found]  # type: ignore[misc]


def check_accounts(folder: Path, archive: Path | None = None) -> None:
    """`sent = archived + counted as lost` in each trial, and none of it is invented."""
    ledgers = sorted((int(p.name), p.stat().st_size) for p in (folder / "ledger").iterdir())
    for record in records(folder, archive):
        kept = archived(record)
        mine = [n for began, n in ledgers if record["started_ns"] <= began <= record["finished_ns"]]
        name = f"{record['trial_id']}: {kept} rows, ledger {mine}, {record['findings']}"
        assert len(mine) <= 1, name
        # What the generator wrote reached the service, but for what was on its way.
        assert kept <= sum(mine) + IN_FLIGHT, name
        if record["load"]:
            assert record["load"]["sent"] == kept + record["load"]["unrecorded"], name
        if record["valid"]:
            assert sum(mine) == kept, name
        for sent, told, lost in accounts(record):
            assert sent == told + lost, name
            assert sent <= sum(mine) + IN_FLIGHT, name
            parts = [n for stream, n in record["rows"].items() if stream.startswith("requests")]
            assert told in (kept, 0, *parts), name


def check_all_measured(folder: Path, planned: int, archive: Path | None = None) -> None:
    """Each planned trial is valid, or invalid because a machine busy with others spoiled it.

    Two cores carry all nodes of the LAN: a trial whose generator came late is invalid, and right.
    """
    found = Archive(archive or folder / "archive")
    (run,) = found.runs()
    trials = found.records(run.run_id)
    wrong = [r for r in trials if not (r.valid or spoiled_by_node(r) or interrupted(r))]
    assert not wrong, [record.findings for record in wrong]
    assert len({planned_id(record.trial_id) for record in trials}) == planned
    assert any(record.valid for record in trials)


def interrupted(record: TrialRecord) -> bool:
    """Whether its run was stopped in the middle of it."""
    return "interrupted" in {f.code for f in record.findings}


def strays(run_ids: list[str], states: list[Path]) -> list[str]:
    """What of the runs is still there on any machine of the LAN."""
    found = [
        f"temp {path}" for run in run_ids for path in Path("/tmp").glob(f"heapgate-{run[-4:]}-*")
    ]
    for run in run_ids:
        found += [f"lease {p}" for state in states for p in state.glob(f"leases/{run}*.json")]
        found += [f"group {p}" for p in Path("/sys/fs/cgroup").glob(f"**/*{run}*")]
    for process in psutil.process_iter():
        try:
            marker = process.environ().get("HEAPGATE_RUN", "")
            if marker.partition("~")[0] in run_ids and process.status() != psutil.STATUS_ZOMBIE:
                found.append(f"process {process.pid} {' '.join(process.cmdline())[:100]}")
        except (psutil.Error, OSError):
            continue
    return found

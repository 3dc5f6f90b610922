"""Live metrics: what a scraper reads of a run, and that it can't get in the run's way."""

from __future__ import annotations

import contextlib
import http.client
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from archives import RUN_ID, write_archive
from bench_command import Workplace, wait_until
from matrices import SMALL, write
from prometheus_client.parser import text_string_to_metric_families

from orchestrator.watching.board import Board
from orchestrator.watching.endpoint import CLIENTS_MAX, LOWEST, parsed, serve_metrics
from orchestrator.watching.metrics import METRICS, TRIAL_LABELS
from results.archive.archive import Archive
from results.errors import EnvironmentLacks, UserError
from results.record import Finding

LABELS = dict(zip(TRIAL_LABELS, ("optimised", "steady", "node-1"), strict=True))
SNAPSHOT: dict[str, Any] = {
    "phase": "measure",
    "phase_left_ns": 2_500_000_000,
    "memory": {
        "resident_bytes": 200,
        "commit_bytes": 220,
        "cgroup_usage_bytes": 190,
        "cgroup_anon_bytes": 180,
        "cpu_user_ns": 1_000_000_000,
        "cpu_system_ns": 500_000_000,
    },
    "memory_limit_bytes": 1000,
    "samples": 40,
    "samples_missed": 2,
    "spool_batches": 3,
    "load": {
        "sent": 90,
        "failed": 1,
        "due": 100,
        "waiting": 10,
        "lag_max_ns": 7_000_000,
        "cpu_share": 0.25,
    },
}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def told(folder: Path, trial_id: str) -> Any:
    """A run as the board wants it: its plan has one trial."""
    trial = SimpleNamespace(
        trial_id=trial_id, configuration="optimised", workload="steady", block=2
    )
    service = SimpleNamespace(name="shop")
    return SimpleNamespace(
        run_id=RUN_ID,
        folder=folder,
        matrix=SimpleNamespace(service=service),
        plan=SimpleNamespace(trials=[trial]),
    )


@contextlib.contextmanager
def served() -> Iterator[tuple[Board, int]]:
    port = free_port()
    with serve_metrics(f"127.0.0.1:{port}") as board:
        assert board is not None
        yield board, port


def ask(port: int, path: str = "/metrics", host: str | None = None) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request("GET", path, headers={"Host": host} if host else {})
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def samples(text: str) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_a_running_trial_is_told_with_its_labels_and_in_base_units(tmp_path: Path) -> None:
    archive = write_archive(tmp_path / "archive")
    run = Archive(archive).run(RUN_ID)
    records = Archive(archive).records(RUN_ID)
    trial_id = records[0].trial_id
    with served() as (board, port):
        before = samples(ask(port)[1])
        assert ("heapgate_run_measuring", frozenset()) in before, "it answers before the run"
        board.follow(told(run.path, trial_id))
        board.trials(6, 2, 60_000_000_000)
        board.trial_started(trial_id, "node-1")
        board.snapshot(trial_id, SNAPSHOT)
        found = samples(ask(port)[1])

    def value(name: str, **labels: str) -> float:
        return found[f"heapgate_{name}", frozenset(labels.items())]

    assert value("run_info", run_id=RUN_ID, service="shop", version=_version()) == 1
    assert value("run_planned_trials") == 6
    assert value("run_done_trials") == 2
    assert 0 < value("run_left_seconds") <= 60
    assert value("run_sealed_trials_total", outcome="invalid") == 0
    assert value("trial_info", **LABELS, phase="measure") == 1
    assert value("trial_block", **LABELS) == 2
    assert value("trial_phase_left_seconds", **LABELS) == 2.5
    assert value("trial_resident_bytes", **LABELS) == 200
    assert value("trial_cpu_seconds_total", **LABELS) == 1.5
    assert value("trial_memory_limit_bytes", **LABELS) == 1000
    assert value("trial_requests_due_total", **LABELS) == 100
    assert value("trial_requests_total", **LABELS) == 90
    assert value("trial_requests_waiting", **LABELS) == 10
    assert value("trial_generator_lag_seconds", **LABELS) == 0.007
    assert value("trial_missed_samples_total", **LABELS) == 2
    assert value("trial_spool_batches", **LABELS) == 3
    rows = {table: sum(r.rows.get(table, 0) for r in records) for table in ("memory", "requests")}
    assert value("archive_rows_total", table="requests") == rows["requests"] > 0
    assert value("archive_rows_total", table="memory") == rows["memory"]
    sizes = sum(p.stat().st_size for p in (run.path / "trials").glob("*/*"))
    assert value("archive_size_bytes") == sizes


def _version() -> str:
    from importlib.metadata import version

    return version("heapgate")


def test_a_trial_that_ended_leaves_counts_and_no_series_of_its_own(tmp_path: Path) -> None:
    record = Archive(write_archive(tmp_path / "archive")).records(RUN_ID)[0]
    record.findings = [Finding("samples_missing", "invalid", "10 of 100 memory samples")]
    again = record.trial_id + "~2"
    with served() as (board, port):
        board.follow(told(tmp_path, record.trial_id))
        board.trials(6, 2, 0)
        board.trial_started(record.trial_id, "node-1")
        board.snapshot(record.trial_id, SNAPSHOT)
        board.trial_finished(record)
        board.trial_started(again, "node-1")
        record.trial_id, record.findings = again, []
        board.trial_finished(record)
        found = samples(ask(port)[1])
    assert not [name for name, _ in found if name.startswith("heapgate_trial_")]

    def value(name: str, **labels: str) -> float:
        return found[f"heapgate_{name}", frozenset(labels.items())]

    assert value("run_sealed_trials_total", outcome="invalid") == 1
    assert value("run_sealed_trials_total", outcome="valid") == 1
    assert value("run_repeated_trials_total") == 1
    assert value("run_done_trials") == 3, "a repeated trial counts once"
    assert value("run_findings_total", level="invalid", code="samples_missing") == 1


def test_only_what_moves_is_a_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr("orchestrator.watching.board.time.time", lambda: now[0])
    board = Board()
    board.follow(told(tmp_path, "b1"))
    board.trial_started("b1", "node-1")
    for at_s, samples_taken, want in ((1010, 1, 1010), (1020, 1, 1010), (1030, 2, 1030)):
        now[0] = float(at_s)
        board.snapshot("b1", SNAPSHOT | {"samples": samples_taken})
        assert board.facts().changed_s == want
    board.snapshot("b1", {})
    assert board.facts().running["b1"].snapshot["samples"] == 2, "nothing told is nothing lost"


@pytest.mark.skipif(not shutil.which("promtool"), reason="no promtool: apt install prometheus")
def test_promtool_finds_nothing_to_say_against_the_metrics(tmp_path: Path) -> None:
    with served() as (board, port):
        board.follow(told(tmp_path, "b1"))
        board.trial_started("b1", "node-1")
        board.snapshot("b1", SNAPSHOT)
        text = ask(port)[1]
    assert all(metric.name in text for metric in METRICS)
    done = subprocess.run(
        ["promtool", "check", "metrics"], input=text, text=True, capture_output=True, check=False
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_scrapers_that_hang_keep_nobody_waiting() -> None:
    with served() as (_, port), contextlib.ExitStack() as stack:
        for _ in range(CLIENTS_MAX - 1):
            hung = stack.enter_context(socket.create_connection(("127.0.0.1", port)))
            hung.sendall(b"GET /metrics HTT")
        assert ask(port)[0] == 200

        def is_full() -> bool:
            """One more takes the last place, once the one that was answered has left it."""
            with contextlib.suppress(OSError):
                last = stack.enter_context(socket.create_connection(("127.0.0.1", port)))
                last.sendall(b"GET /me")
            return _is_turned_away(port)

        # Who comes then is turned away instead of waiting.
        wait_until(is_full, timeout_s=20)
        # Those that say nothing are given up, and there is room again.
        wait_until(lambda: not _is_turned_away(port), timeout_s=60)


def _is_turned_away(port: int) -> bool:
    try:
        return ask(port)[0] != 200
    except (http.client.HTTPException, OSError):
        return True


def test_one_path_by_a_name_of_this_machine() -> None:
    with served() as (_, port):
        assert ask(port)[0] == 200
        assert ask(port, host=f"localhost:{port}")[0] == 200
        assert ask(port, host=f"[::1]:{port}")[0] == 200
        assert ask(port, path="/")[0] == 404
        assert ask(port, host="evil.example")[0] == 403


def test_a_port_in_use_is_told_before_anything_is_measured(tmp_path: Path) -> None:
    place = Workplace(tmp_path)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = place.bench("run", str(write(tmp_path, SMALL)), "--metrics", f"127.0.0.1:{port}")
    assert (done.code, done.out) == (4, "")
    assert done.err == (
        f"port {port} for metrics is in use; name another with --metrics 127.0.0.1:PORT\n"
    )
    assert place.run_ids() == []


def test_an_address_is_checked() -> None:
    assert parsed("127.0.0.1:9464") == ("127.0.0.1", 9464)
    assert parsed("[::1]:1") == ("::1", 1)
    for wrong in ("9464", ":9464", "127.0.0.1", "127.0.0.1:0", "127.0.0.1:65536", "here:1", "::1"):
        with pytest.raises(UserError, match="no address to serve metrics at"):
            parsed(wrong)
    # An address that is not this machine's.
    with (
        pytest.raises(EnvironmentLacks, match="metrics can't be served at"),
        serve_metrics("192.0.2.1:9464"),
    ):
        pass


def test_without_an_address_nothing_is_served(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HEAPGATE_METRICS", raising=False)
    with serve_metrics(None) as board:
        assert board is None


@pytest.mark.skipif(sys.platform != "linux", reason="threads have priorities of their own there")
def test_scrapes_are_answered_at_the_lowest_priority() -> None:
    with served() as (_, port), socket.create_connection(("127.0.0.1", port)) as waiting:
        waiting.sendall(b"GET /metrics")
        lowest = wait_until(lambda: [n for n in _niceness() if n == LOWEST][1:])
        assert lowest, "the thread that listens, and the one that answers"
        assert os.getpriority(os.PRIO_PROCESS, 0) < LOWEST, "the run's own keep theirs"


def _niceness() -> list[int]:
    stats = [path.read_text() for path in Path("/proc/self/task").glob("*/stat")]
    return [int(stat.rsplit(")", 1)[1].split()[16]) for stat in stats]

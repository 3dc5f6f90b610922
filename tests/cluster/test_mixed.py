"""One matrix on a Linux node and a Windows node: a table each, from one archive."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from results.archive.archive import Archive
from results.errors import RunIncomplete
from results.judging.validity import spoiled_by_node
from results.record import planned_id
from tests.cluster.lan import Lan, lan, needs_namespaces
from tests.orchestrator.clusters import until
from tests.orchestrator.matrices import ROOT, write
from tests.wine.machine import WindowsPython, windows_path
from tests.wine.prefix import need_wine, windows_python
from workloads.shipped import matrix_path


@dataclass
class Mixed:
    """A finished run on both systems."""

    lan: Lan
    windows: WindowsPython
    folder: Path
    output: str
    code: int

    @property
    def records(self) -> list[dict[str, Any]]:
        (run,) = Archive(self.folder / "archive").runs()
        return [json.loads(p.read_text()) for p in sorted(run.path.glob("trials/*/trial.json"))]

    def of(self, system: str) -> list[dict[str, Any]]:
        return [record for record in self.records if record["node"]["os"] == system]


def join_windows(whole: Lan, windows: WindowsPython, state: Path) -> None:
    """What the Windows machine's user types, and the wait until it is there."""
    process = windows.popen(
        ["-m", "orchestrator.cli", "node", "join", whole.head.head_address,
         "--secret", whole.head.secret, "--name", "windows-1"],
        environment={"HEAPGATE_STATE": windows_path(state)},
        log=state.with_suffix(".log"),
    )  # fmt: skip
    assert process.wait(150) == 0, state.with_suffix(".log").read_text()
    until(lambda: whole.state_of_name("windows-1") == "ready", 60)


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mixed]:
    need_wine()
    needs_namespaces()
    folder = tmp_path_factory.mktemp("mixed")
    # A closed loop has nothing to be late for: valid on the busiest machine.
    text = matrix_path("mixed").read_text().replace("arrivals: {poisson: 60/s}", "users: 2")
    text = text.replace("../services", str(ROOT / "workloads" / "services"))
    matrix = write(folder, text)
    with (
        lan(folder, {"linux-1": ()}, bare=("windows",)) as whole,
        windows_python(network_namespace=whole.bare["windows"]) as windows,
    ):
        join_windows(whole, windows, folder / "windows")
        done = subprocess.run(
            [sys.executable, "-m", "orchestrator.cli", "run", str(matrix),
             "--trials", "2", "--archive", str(folder / "archive")],
            env=whole.head.environment | {"PYTHONPATH": str(ROOT), "COLUMNS": "120"},
            cwd=folder, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            timeout=280,
        )  # fmt: skip
        yield Mixed(whole, windows, folder, done.stdout, done.returncode)


@pytest.mark.timeout(600)
def test_every_trial_is_valid_unless_this_machine_is_too_busy(mixed: Mixed) -> None:
    print(mixed.output)
    assert mixed.code in (0, RunIncomplete.exit_code), mixed.output
    archive = Archive(mixed.folder / "archive")
    (run,) = archive.runs()
    for system in ("linux", "windows"):
        records = [r for r in archive.records(run.run_id) if r.node["os"] == system]
        assert len({planned_id(r.trial_id) for r in records}) == 4
        assert all(r.valid or spoiled_by_node(r) for r in records)
        assert {r.configuration for r in records if r.valid} == {"default", "optimised"}


def test_there_is_a_table_for_each_system_and_only_ratios_across(mixed: Mixed) -> None:
    linux = mixed.output.index("linux ·")
    windows = mixed.output.index("windows (Wine")
    assert "peak RSS" in mixed.output
    assert "peak working set" in mixed.output
    assert "peak commit" in mixed.output
    assert linux != windows
    assert "only ratios" in mixed.output.lower()


def test_the_windows_program_is_a_pe_file_with_the_recorded_hash(mixed: Mixed) -> None:
    for record in mixed.of("windows"):
        binary = record["spec"]["service"]["binary"]
        parcel = mixed.folder / "windows" / "parcels" / binary["sha256"]
        (program,) = [path for path in parcel.iterdir() if path.is_file()]
        data = program.read_bytes()
        assert data[:2] == b"MZ"
        assert hashlib.sha256(data).hexdigest() == binary["sha256"]
        assert "GOOS=windows" in binary["build_info"]


def test_samples_have_the_columns_of_their_system_and_null_for_the_others(mixed: Mixed) -> None:
    query = (
        "select t.os, count(m.rss_bytes), count(m.working_set_bytes), count(m.commit_bytes), "
        "count(*) from memory m join trials t using (run_id, trial_id) group by 1 order by 1"
    )
    answer = mixed.lan.head.bench(
        "sql", query, "--format", "json", "--archive", str(mixed.folder / "archive")
    )
    rows = [list(row.values()) for row in json.loads(answer)]
    (_, rss, working_set, commit, samples), windows = rows
    assert rss == samples > 0
    assert working_set == commit == 0
    assert windows[1] == 0
    assert windows[2] == windows[3] == windows[4] > 0


def test_every_request_is_archived_and_clocks_are_compared(mixed: Mixed) -> None:
    for record in mixed.records:
        assert record["rows"]["requests"] == record["load"]["sent"] > 0
        clock = record["clock_offset"]
        # All nodes show this machine's clock.
        assert abs(clock["offset_ns"]) <= clock["error_ns"] + 1_000_000


def test_limits_and_settings_are_as_planned(mixed: Mixed) -> None:
    environments = {
        (r["node"]["os"], r["configuration"]): dict(r["spec"]["service"]["environment"])
        for r in mixed.records
    }
    for system in ("linux", "windows"):
        assert environments[system, "optimised"]["GOGC"] == "30"
        assert "GOGC" not in environments[system, "default"]

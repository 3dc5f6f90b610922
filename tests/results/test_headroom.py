"""Headroom: the share of the hard memory limit that was left, told only where there is one."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from archives import LINUX, MIB, WINDOWS, Place, reseal, write_archive
from rich.console import Console

from results.comparing.tables import markdown_comparison, print_comparison
from results.record import TrialRecord
from results.signoff.language import parse_objective
from results.signoff.objectives import CANT_TELL, FAIL, PASS, Decision, Evidence, decide
from results.sql.database import open_database

LIMIT = {"memory_max_bytes": 420 * MIB, "requests": 40}


def written(folder: Path, *, place: Place = LINUX, **more: Any) -> Path:
    """Peaks of 210 MiB of cgroup usage, of 250 MiB of a job's commit."""
    configurations = {"default": LIMIT | more, "tuned": LIMIT | {"peak_cgroup_bytes": 105 * MIB}}
    return write_archive(folder, configurations=configurations, groups={place.os: place})


def values(archive: Path) -> dict[str, set[float | None]]:
    sql = "select configuration, value from trial_metrics where metric = 'headroom'"
    with open_database(archive) as database:
        rows = database.query(sql).to_pylist()
    return {
        name: {r["value"] for r in rows if r["configuration"] == name}
        for name in {r["configuration"] for r in rows}
    }


def decided(archive: Path, text: str, **more: Any) -> Decision:
    with open_database(archive) as database:
        measured = [m for run in database.runs for m in database.measurements(run.run_id)]
        evidence = Evidence.of(database.comparison(), database.records, measured)
    (decision,) = decide([parse_objective(text, **more)], evidence)
    return decision


def test_it_is_what_the_limit_has_left_at_the_kernels_peak(tmp_path: Path) -> None:
    archive = written(tmp_path)
    assert values(archive) == {"default": {0.5}, "tuned": {0.75}}
    assert decided(archive, "headroom >= 70%").word == PASS
    assert decided(archive, "headroom >= 80%").word == FAIL
    assert decided(archive, "headroom better by >= 40%").word == PASS
    with open_database(archive) as database:
        (table,) = database.comparison().tables
    row = table.row("headroom")
    assert row is not None
    assert (row.baseline, row.candidate, row.verdict) == (0.5, 0.75, "better")


def test_without_a_limit_no_table_speaks_of_it(tmp_path: Path) -> None:
    write_archive(tmp_path, configurations={"default": {}, "tuned": LIMIT})
    with open_database(tmp_path) as database:
        comparison = database.comparison()
    screen = io.StringIO()
    print_comparison(comparison, Console(file=screen, width=120))
    assert "headroom" not in screen.getvalue() + markdown_comparison(comparison)
    # What only one side has can't be compared; it can be held to a limit.
    assert values(tmp_path) == {"tuned": {0.5}}
    assert decided(tmp_path, "headroom >= 40%").word == PASS
    unlimited = decided(tmp_path, "headroom >= 40%", configurations=("default",))
    assert unlimited.word == CANT_TELL


def test_a_limit_that_is_not_in_force_leaves_nothing_unused(tmp_path: Path) -> None:
    archive = written(tmp_path, limit_enforced=False)
    assert values(archive)["default"] == {None}
    found = decided(archive, "headroom >= 20%", configurations=("default",))
    assert found.word == CANT_TELL
    assert "not in force" in found.reason


def rewrite_peaks(archive: Path, **peaks: int | None) -> None:
    for folder in archive.glob("*/trials/*"):
        record = TrialRecord.read(folder / "trial.json")
        record.peaks = [replace(peak, **peaks) for peak in record.peaks]
        (folder / "trial.json").write_text(record.to_json())
        reseal(folder)


@pytest.mark.parametrize(
    ("rose", "peaks", "expected"),
    [
        # The job's own mark in measure; then, where it did not rise there, that since the start.
        (True, {}, 1 - 250 / 420),
        (False, {}, 1 - 250 / 420),
        (True, {"job_bytes": 105 * MIB}, 0.75),
    ],
)
def test_on_windows_it_is_of_the_jobs_commit(
    tmp_path: Path, rose: bool, peaks: Mapping[str, int | None], expected: float
) -> None:
    archive = written(tmp_path, place=WINDOWS, marks_rose=rose)
    rewrite_peaks(archive, **peaks)
    (found,) = values(archive)["default"]
    assert found == pytest.approx(expected)


def test_samples_are_no_peak(tmp_path: Path) -> None:
    """Between two samples there may be more: a headroom from them could be told too great."""
    archive = written(tmp_path, peak_cgroup_bytes=None)
    assert values(archive)["default"] == {None}

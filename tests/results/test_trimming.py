"""A working set that fell without its commit is trimmed, and never counts as better."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from archives import MIB, WINDOWS, write_archive

from results.comparing.compare import Comparison
from results.comparing.tables import markdown_comparison
from results.comparing.trimming import TRIMMED
from results.report import verdict
from results.report.forest import mark_of
from results.sql.database import open_database

BASE = {
    "peak_working_set_bytes": 180 * MIB,
    "initial_working_set_bytes": 90 * MIB,
    "peak_commit_bytes": 240 * MIB,
    "initial_commit_bytes": 110 * MIB,
}
DRIFT = (1.0, 1.02, 0.99, 1.01, 0.98, 1.03)
LESS = {"peak_working_set_bytes": 60 * MIB, "initial_working_set_bytes": 30 * MIB}


def compared(tmp_path: Path, candidate: dict[str, Any], blocks: int = 6) -> Comparison:
    configurations = {
        "default": BASE | {"factors": DRIFT},
        "other": BASE | {"factors": DRIFT[::-1]} | candidate,
    }
    archive = write_archive(
        tmp_path, configurations=configurations, blocks=blocks, groups={"windows": WINDOWS}
    )
    with open_database(archive) as database:
        return database.comparison()


def verdict_of(comparison: Comparison, metric: str) -> str:
    (table,) = comparison.tables
    row = table.row(metric)
    assert row
    return row.verdict


def trimmed_texts(comparison: Comparison) -> list[str]:
    return [text for text in comparison.warnings if text.endswith(TRIMMED)]


def test_a_working_set_that_fell_alone_is_trimmed_not_saved(tmp_path: Path) -> None:
    comparison = compared(tmp_path, LESS)
    assert verdict_of(comparison, "peak_working_set") == TRIMMED
    assert verdict_of(comparison, "initial_working_set") == TRIMMED
    assert verdict_of(comparison, "peak_commit") == "no difference shown"
    assert len(trimmed_texts(comparison)) == 2
    assert "peak working set -6" in trimmed_texts(comparison)[1]
    assert "peak commit" in trimmed_texts(comparison)[1]


def test_commit_stands_beside_it(tmp_path: Path) -> None:
    lines = markdown_comparison(compared(tmp_path, LESS)).splitlines()
    place = next(i for i, line in enumerate(lines) if "peak working set" in line)
    assert TRIMMED in lines[place]
    assert lines[place + 1].startswith("| peak commit |")


def test_what_saves_commit_too_is_better(tmp_path: Path) -> None:
    saved = LESS | {"peak_commit_bytes": 120 * MIB, "initial_commit_bytes": 55 * MIB}
    comparison = compared(tmp_path, saved)
    assert verdict_of(comparison, "peak_working_set") == "better"
    assert trimmed_texts(comparison) == []


@pytest.mark.parametrize(("commit_mib", "word"), [(230, TRIMMED), (226, "better")])
def test_commit_must_have_fallen_by_a_tenth_of_the_bytes(
    tmp_path: Path, commit_mib: int, word: str
) -> None:
    # The working set fell by 120 MiB: 10 MiB of commit are no share of that, 14 MiB are.
    slight = LESS | {"peak_commit_bytes": commit_mib * MIB, "factors": DRIFT}
    comparison = compared(tmp_path, slight)
    assert verdict_of(comparison, "peak_commit") == "better"
    assert verdict_of(comparison, "peak_working_set") == word


def test_a_limit_that_was_asked_for_is_told_and_needs_commit_to_fall(tmp_path: Path) -> None:
    asked = {"working_set_max_bytes": 64 * MIB}
    comparison = compared(tmp_path, LESS | asked, blocks=3)
    assert verdict_of(comparison, "peak_working_set") == f"needs 6 blocks; {TRIMMED}"
    assert verdict_of(comparison, "peak_commit") == "needs 6 blocks"
    assert comparison.warnings[0].startswith(
        "other asks Windows for a working set of at most 64.0 "
    )
    without = compared(tmp_path / "without", LESS, blocks=3)
    assert verdict_of(without, "peak_working_set") == "needs 6 blocks"


def test_a_limit_with_a_commit_that_fell_is_told_and_the_saving_counts(tmp_path: Path) -> None:
    both = LESS | {"peak_commit_bytes": 120 * MIB, "working_set_max_bytes": 64 * MIB}
    comparison = compared(tmp_path, both)
    assert verdict_of(comparison, "peak_working_set") == "better"
    assert comparison.warnings[0].startswith("other asks Windows")


def test_a_working_set_that_grew_is_not_trimmed(tmp_path: Path) -> None:
    comparison = compared(tmp_path, {"peak_working_set_bytes": 300 * MIB})
    assert verdict_of(comparison, "peak_working_set") == "worse"
    assert trimmed_texts(comparison) == []


def test_the_report_does_not_sell_it_as_a_saving(tmp_path: Path) -> None:
    text = verdict.lead(compared(tmp_path, LESS))
    assert "but its commit did not fall with it: trimmed, not saved" in text
    assert mark_of(TRIMMED) != "better"

"""A run that is decided ends, whole blocks and all, and its sign-off is that of the whole run."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import matrices
import pytest
from bench_command import Workplace

from orchestrator.earlystop import sentence, why
from results.signoff.curtail import LOST, MET, Outcome
from results.signoff.objectives import Cell

BROKEN = "objectives: [peak_rss <= 1MiB, {require: errors <= 50%, severity: warn}]\n"
"""The second is open nearly to the end, and only warns."""

SIX = matrices.CLOSED.replace("trials: 2", "trials: 6")
ALONE = SIX.partition("  optimised:")[0] + "workloads:" + SIX.partition("workloads:")[2]


def document(place: Workplace) -> dict[str, Any]:
    (path,) = place.archive.glob("*/run.json")
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def valid(place: Workplace) -> list[tuple[int, str]]:
    records = [json.loads(path.read_text()) for path in place.archive.glob("*/trials/*/trial.json")]
    return sorted((r["block"], r["configuration"]) for r in records if r["valid"])


@pytest.mark.timeout(300)
def test_it_ends_after_the_block_that_decided(tmp_path: Path) -> None:
    place = Workplace(tmp_path)
    matrices.write(tmp_path, SIX + BROKEN)
    done = place.bench("run", "matrix.yaml", "--stop-early")
    if not any(name == "optimised" for _, name in valid(place)):
        pytest.skip("a busy machine spoiled every trial that could decide")
    assert done.code == 0, done.text
    early = document(place)["stopped_early"]
    # With six blocks one trial beyond the limit is enough: no other can make it good.
    blocks = early["blocks"]
    assert valid(place).index((blocks, "optimised")) == len(valid(place)) - 1, "the first decided"
    assert f"decided after {blocks} of 6 blocks, " in done.out
    assert "peak_rss <= 1MiB can't be met any more" in done.out
    assert "that it ended there was not chance" in done.out
    # A block is measured whole, though the candidate's trial alone would have decided.
    tried = {
        path.parent.name.partition("~")[0] for path in place.archive.glob("*/trials/*/trial.json")
    }
    assert (len(tried), early["trials_saved"]) == (2 * blocks, 12 - 2 * blocks)
    assert place.bench("runs", "--json").json()[0]["status"] == "decided"
    refused = place.bench("signoff", "latest")
    assert refused.code == 1
    record = json.loads(next(place.archive.glob("*/signoff-optimised.json")).read_text())
    assert "can't be met any more, whatever" in record["objectives"][0]["reason"]
    assert record["doubts"] == [], "it is whole: nothing is missing from it"
    assert record["evidence"][0]["stopped_early"] == early
    assert place.strays() == []


@pytest.mark.timeout(300)
def test_what_was_saved_can_still_be_measured(tmp_path: Path) -> None:
    place = Workplace(tmp_path)
    matrices.write(tmp_path, ALONE + "stop_early: true\n" + BROKEN)
    done, measured = place.bench("run", "matrix.yaml"), valid(place)
    if not measured:
        pytest.skip("a busy machine spoiled every trial that could decide")
    assert done.code == 0, done.text
    assert len(measured) < 6
    again = place.bench("resume")
    assert again.code == 0, again.text
    assert "is decided after" in again.out
    assert "--all" in again.out
    assert valid(place) == measured
    rest = place.bench("resume", "--all")
    told = document(place)
    assert told["stopped_early"] is None
    # What a busy machine spoiled is missing, and no reason to be decided again.
    assert (rest.code, told["status"]) in ((0, "complete"), (3, "incomplete"))
    assert len(valid(place)) > len(measured)


@pytest.mark.parametrize(
    ("more", "arguments", "code", "said"),
    [
        ("stop_early: true\n", (), 2, r"matrix.yaml:\d+:\d+: there is no objective that blocks"),
        ("", ("--stop-early",), 2, "--stop-early: there is no objective that blocks"),
        (
            "objectives: [capacity >= 1/s, {require: p99 <= 1s, severity: warn}]\n",
            ("--stop-early",),
            2,
            "--stop-early: no objective blocks but a capacity",
        ),
        (BROKEN, ("--stop-early", "--trials", "5"), 2, "with 5 blocks nothing is ever decided"),
    ],
)
def test_what_can_never_be_decided_early_is_told_before_the_run(
    tmp_path: Path, more: str, arguments: tuple[str, ...], code: int, said: str
) -> None:
    place = Workplace(tmp_path)
    open_loop = "capacity" in more
    written = matrices.SMALL.replace("trials: 2", "trials: 6") if open_loop else SIX
    matrices.write(tmp_path, written + more)
    done = place.bench("run", "matrix.yaml", *arguments)
    assert done.code == code, done.text
    assert re.search(said, done.err), done.err
    assert not place.run_ids()


def test_the_reason_names_what_was_lost_first() -> None:
    cell = Cell("linux", "linux", "steady", "new")
    outcomes = [
        Outcome("p99 <= 40ms", cell, MET),
        Outcome("errors <= 1%", cell, LOST),
        Outcome("cpu <= 1", cell, MET),
    ]
    told = why(outcomes)
    assert told == "errors <= 1% can't be met any more; p99 <= 40ms, cpu <= 1 are surely met"
    assert why(outcomes[:1]) == "p99 <= 40ms is surely met"
    plain = {"blocks": 3, "blocks_planned": 12, "trials_saved": 18, "why": "x is surely met"}
    assert sentence(plain) == "decided after 3 of 12 blocks, 18 trials saved: x is surely met"

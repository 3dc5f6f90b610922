"""The history of a service: what it tells of archives whose levels are known."""

from __future__ import annotations

import json
import math
import random
import re
import shutil
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import ruptures
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from orchestrator.cli import app
from results.archive.archive import Archive
from results.archive.verify import verify_run
from results.comparing.history import Wanted, plain_history, read_history
from results.errors import UserError
from results.statistics.changepoints import SETTLE_RUNS, best_split, find_changes, student_p
from tests.benchmarks.bench_history import found_in, simulated
from tests.results.histories import KEPT, clone, write_record

PEAK = Wanted(metrics=("peak_rss",), configurations=("default",))
WOBBLE = (0.0, 0.4, -0.3, 0.2, -0.5, 0.1, 0.3, -0.2, 0.5, -0.1, 0.0, 0.2)


def bench(*arguments: str) -> str:
    done = CliRunner().invoke(app, ["history", *arguments], env={"COLUMNS": "120"})
    assert done.exit_code == 0, done.output
    return done.stdout


@pytest.fixture(scope="module")
def grown(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six runs near 60 MiB, then six near 75: another commit, built by another Go."""
    archive = tmp_path_factory.mktemp("grown")
    for number, wobble in enumerate(WOBBLE, 1):
        level = 60 + wobble if number <= 6 else 75 + wobble
        new = {"commit": "b" * 40, "go_version": "go1.24.1"} if number > 6 else {}
        clone(archive, number, (level - 0.1, level + 0.1), **new)
    return archive


def test_the_clones_are_archives_as_good_as_any(grown: Path) -> None:
    assert [damage for run in Archive(grown).runs() for damage in verify_run(run)] == []


def test_a_shift_is_told_with_its_size_its_place_and_what_differs_there(grown: Path) -> None:
    history = read_history(grown, "sessioncache", PEAK)
    (cell,) = history.cells
    (peak,) = cell.metrics
    assert [point.trials for point in peak.points] == [2] * 12
    (change,) = peak.changes
    assert (change.run_before[:8], change.run_after[:8]) == ("20261206", "20261207")
    assert change.verdict == "worse"
    assert change.settled
    assert change.size == pytest.approx(0.25, abs=0.01)
    assert change.bounds is not None
    assert change.bounds[0] < 0.25 < change.bounds[1]
    told = {d.what: (d.before[:1], d.after) for d in change.differences}
    assert told == {"commit": ("a", "b" * 40), "Go": ("g", "go1.24.1")}


def test_the_cell_that_did_not_shift_has_no_change(grown: Path) -> None:
    history = read_history(grown, None, Wanted(configurations=("optimised",)))
    assert {own.metric.name for cell in history.cells for own in cell.metrics} >= {"throughput"}
    assert not [change for cell in history.cells for own in cell.metrics for change in own.changes]


def test_two_node_classes_are_never_pooled(tmp_path: Path) -> None:
    for number, wobble in enumerate(WOBBLE[:10], 1):
        level = (60 if number % 2 else 75) + wobble
        run_id = clone(tmp_path, number, (level, level + 0.2))
        for path in (tmp_path / run_id).glob("trials/*/trial.json"):
            plain = json.loads(path.read_text())
            plain["node_class"] = "fast" if number % 2 else "slow"
            write_record(path, plain)
    history = read_history(tmp_path, None, PEAK)
    assert [(c.node_class, len(c.metrics[0].points)) for c in history.cells] == [
        ("fast", 5),
        ("slow", 5),
    ]
    assert not any(c.metrics[0].changes for c in history.cells)


def test_invalid_trials_and_runs_of_a_bisection_are_no_points(tmp_path: Path) -> None:
    first, second = (clone(tmp_path, number, (60, 61)) for number in (1, 2))
    clone(tmp_path, 3, (90, 90), bisect={"commit": "c" * 40})
    for path in (tmp_path / second).glob("trials/*-default-*/trial.json"):
        plain = json.loads(path.read_text())
        plain["findings"].append(
            {"code": "oom", "level": "invalid", "text": "killed", "remedy": ""}
        )
        write_record(path, plain)
    (cell,) = read_history(tmp_path, None, PEAK).cells
    assert [point.run_id for point in cell.metrics[0].points] == [first]


def test_a_real_archive_has_its_one_run(tmp_path: Path) -> None:
    archive = shutil.copytree(KEPT, tmp_path / "archive")
    history = read_history(archive, None)
    assert {(c.configuration, len(m.points)) for c in history.cells for m in c.metrics} == {
        ("default", 1),
        ("optimised", 1),
    }
    json.dumps(plain_history(history))


def test_what_is_not_there_is_told_with_what_is(grown: Path) -> None:
    with pytest.raises(UserError, match="sessioncache"):
        read_history(grown, "other")
    with pytest.raises(UserError, match="default × steady"):
        read_history(grown, None, Wanted(configurations=("none",)))
    done = CliRunner().invoke(app, ["history", "--metric", "peak_rs", "--archive", str(grown)])
    assert isinstance(done.exception, UserError)
    assert "peak_rss" in str(done.exception)


def test_a_pipe_gets_plain_text_with_the_shift_in_the_line(grown: Path) -> None:
    out = bench("--archive", str(grown), "--metric", "peak_rss", "--configuration", "default")
    assert "\x1b" not in out
    assert re.search(r"peak RSS +[▁▂▃]{6}\|[▆▇█]{6} ", out)
    assert re.search(r"worse peak RSS 60\.\d MiB → 75\.\d MiB, \+2[45]\.\d %", out)
    assert "between 20261206-000000-0006 and 20261207-000000-0007" in out
    assert "Go go1.23.4 → go1.24.1" in out


def test_since_shows_less_and_changes_nothing(grown: Path) -> None:
    arguments = ("--archive", str(grown), "--configuration", "default", "--json")
    whole = json.loads(bench(*arguments, "--metric", "peak_rss"))
    late = json.loads(bench(*arguments, "--metric", "peak_rss", "--since", "2026-11-30"))
    (old,), (new,) = (found["cells"][0]["metrics"] for found in (whole, late))
    assert new["points"] == old["points"][4:]
    assert [c | {"index": 6} for c in new["changes"]] == old["changes"]
    nothing_older = json.loads(
        bench(*arguments, "--metric", "peak_rss", "--since", "20261209-000000-0009")
    )
    assert nothing_older["cells"][0]["metrics"][0]["changes"] == []


# The search itself


def settled(history: list[float]) -> list[int]:
    return [s.index for s in find_changes(history, [0.0] * len(history)) if s.settled]


LEVELS = st.lists(
    st.tuples(st.integers(1, 12), st.sampled_from([0.0, 100.0, 103.0, 120.0, 1e6])),
    min_size=1,
    max_size=6,
)


@settings(max_examples=150, deadline=None)
@given(LEVELS, st.integers(0, 2**32))
def test_what_is_settled_stays_when_runs_are_added(
    levels: list[tuple[int, float]], seed: int
) -> None:
    """Of every beginning of a history the settled changes are the first ones of the whole's."""
    source = random.Random(seed)
    history = [
        level * math.exp(source.gauss(0, 0.01)) for count, level in levels for _ in range(count)
    ]
    found = [settled(history[:end]) for end in range(len(history) + 1)]
    for earlier, later in pairwise(found):
        assert later[: len(earlier)] == earlier
    assert all(end - index >= SETTLE_RUNS for end, own in enumerate(found) for index in own)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32), st.floats(1e-6, 1e6))
def test_the_unit_of_a_metric_does_not_matter(seed: int, factor: float) -> None:
    source = random.Random(seed)
    history = [100 * (1 + 0.1 * (i >= 12)) * math.exp(source.gauss(0, 0.02)) for i in range(24)]
    assert settled(history) == settled([factor * value for value in history])


@pytest.mark.parametrize("seed", range(8))
def test_the_best_split_is_that_of_ruptures(seed: int) -> None:
    source = np.random.default_rng(seed)
    values = source.normal(0, 1, 30) + (np.arange(30) >= 11 + seed) * 3.0
    (want, _) = ruptures.Dynp(model="l2", min_size=3, jump=1).fit(values).predict(n_bkps=1)
    index, distance = best_split(values)
    assert index == want
    assert distance == pytest.approx(
        abs(scipy.stats.ttest_ind(values[:want], values[want:]).statistic)
    )


@pytest.mark.parametrize("freedom", [1, 2, 3, 4, 7, 10, 28])
@pytest.mark.parametrize("t", [0.0, 0.7, 2.5, 9.0])
def test_students_p_is_that_of_scipy(t: float, freedom: int) -> None:
    want = 2 * scipy.stats.t.sf(t, freedom)
    assert student_p(t, freedom) == pytest.approx(want, rel=1e-6, abs=1e-14)


def test_few_runs_tell_a_large_shift_and_not_a_small_one() -> None:
    before = [100.0, 100.6, 99.5, 100.2, 99.8]
    large = find_changes([*before, 120.0, 120.5, 119.8], [0.3] * 8)
    assert [(s.index, s.settled) for s in large] == [(5, False)]
    assert find_changes([*before, 101.0, 101.5, 100.8], [0.3] * 8) == []
    assert find_changes([*before, 120.0, 120.5], [0.3] * 7) == []


def test_one_odd_run_is_no_change() -> None:
    history = [100.0 + wobble for wobble in WOBBLE]
    for place in range(len(history)):
        odd = [value * (1 + 0.5 * (i == place)) for i, value in enumerate(history)]
        assert find_changes(odd, [0.3] * len(odd)) == []


def test_runs_that_agree_by_chance_are_believed_no_more_than_their_trials() -> None:
    history = [100.0] * 6 + [104.0] * 6
    assert [s.index for s in find_changes(history, [0.0] * 12)] == [6]
    assert find_changes(history, [4.0] * 12) == []


def test_a_regression_that_was_repaired_is_two_changes() -> None:
    history = [v * (1.2 if 8 <= i < 16 else 1) for i, v in enumerate(100 + w for w in WOBBLE * 2)]
    assert settled(history) == [8, 16]


def test_a_share_below_one_percent_is_no_change_of_a_positive_metric() -> None:
    assert find_changes([100.0] * 8 + [100.5] * 8, [0.0] * 16) == []


def test_errors_that_appear_are_a_change() -> None:
    assert settled([0.0] * 6 + [0.02, 0.021, 0.019, 0.02, 0.02]) == [6]


def test_equal_histories_have_few_changes_and_unequal_ones_have_theirs() -> None:
    source = random.Random(1)
    alarms = sum(bool(found_in(simulated(source, 30, 0.3, 0.02))) for _ in range(150))
    # At most 5 %: of 150 that is 7.5, and two spreads (sqrt(150 × 0.05 × 0.95) = 2.7) more are 13.
    assert alarms <= 13
    seen = sum(20 in found_in(simulated(source, 30, 0.3, 0.01, 0.1)) for _ in range(30))
    assert seen >= 24

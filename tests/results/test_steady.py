"""A trial without a steady state says so, and one with a steady state is left in peace."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from results.judging.series import Series, _measured_batches, _sliced, read_series
from results.judging.steady import (
    DRIFTS,
    STEADY,
    STEPS,
    TOO_SHORT,
    examined,
    findings,
    judged,
    settle,
)
from results.record import PhaseSpan, SeriesTrend, TrialRecord
from tests.benchmarks.bench_steady import SimulatedTrial, drift, not_steady, step
from tests.results.archives import MIB, MIXED, SECOND_NS, write_archive, write_table

KEPT = sorted((Path(__file__).resolve().parents[1] / "archives").glob("v*"))


def records(archive: Path) -> list[tuple[Path, TrialRecord]]:
    paths = sorted(archive.glob("*/trials/*/trial.json"))
    return [(path.parent, TrialRecord.read(path)) for path in paths]


def sealed(
    tmp_path: Path, *, rss: list[float] | None = None, slow_from: int | None = None
) -> tuple[Path, TrialRecord]:
    """A trial with other rows: RSS over measure's 100 samples, requests ten times slower from i."""
    write_archive(tmp_path, blocks=1)
    ((folder, record),) = records(tmp_path)
    begin_ns = next(span.start_ns for span in record.phases if span.name == "measure")
    if rss is not None:
        write_table(
            folder / "memory.arrow",
            [
                {
                    "time_ns": begin_ns + i * SECOND_NS // 10,
                    "phase": "measure",
                    "rss_bytes": round(value),
                }
                for i, value in enumerate(rss)
            ],
        )
    assert record.load is not None
    count = 15_000
    requests = [
        {
            "start_ns": begin_ns + i * 10 * SECOND_NS // count + 1_000,
            "lag_ns": 1_000,
            "phase": "measure",
            "service_ns": 1_000_000 * (1 + i % 7) * (10 if slow_from and i >= slow_from else 1),
            "method": "GET",
            "name": "/",
            "status": 200,
            "response_bytes": 1,
            "error": None,
        }
        for i in range(count)
    ]
    write_table(folder / "requests.arrow", requests)
    record.load = type(record.load)(**json.loads(record.to_json())["load"] | {"measured": count})
    return folder, record


def test_memory_that_grows_all_the_time_is_told_with_its_pace(tmp_path: Path) -> None:
    noise = np.random.default_rng(1).standard_normal(100)
    rss = [(200 + 0.4 * i + noise[i]) * MIB for i in range(100)]
    folder, record = sealed(tmp_path, rss=rss)
    settle(record, folder)
    (found,) = [f for f in record.findings if f.code == "not_steady"]
    assert found.level == "warning"
    assert found.remedy == "a longer warmup"
    # 0.4 MiB every tenth of a second are 240 MiB a minute.
    told = next(t for t in record.steady or () if t.series == "rss")
    assert told.verdict == DRIFTS
    assert told.slope_per_s == pytest.approx(4 * MIB, rel=0.1)
    assert found.text.startswith("no steady state in measure: RSS rose by ")
    assert "MiB a minute, over measure by " in found.text


def test_memory_that_changes_its_level_is_told_with_the_moment(tmp_path: Path) -> None:
    noise = np.random.default_rng(2).standard_normal(100)
    rss = [((200 if i < 40 else 300) + noise[i]) * MIB for i in range(100)]
    folder, record = sealed(tmp_path, rss=rss)
    settle(record, folder)
    (found,) = [f for f in record.findings if f.code == "not_steady"]
    assert "RSS rose by 99.9 MiB after 4 s, by 33 % of its median" in found.text


def test_latency_that_changes_its_level_is_seen_by_the_second(tmp_path: Path) -> None:
    folder, record = sealed(tmp_path)
    seconds = [s for s in read_series(folder, record) if s.name == "latency_p99"]
    assert [len(s.values) for s in seconds] == [10]
    assert np.allclose(seconds[0].values, 7_001_000, rtol=0.016)


def test_p99_counts_from_the_intended_start_and_to_within_a_64th(tmp_path: Path) -> None:
    folder, record = sealed(tmp_path, slow_from=7_500)
    (series,) = [s for s in read_series(folder, record) if s.name == "latency_p99"]
    assert np.allclose(series.values[:5], 7_001_000, rtol=0.016)
    assert np.allclose(series.values[5:], 70_001_000, rtol=0.016)


def test_a_steady_trial_gets_no_finding_but_its_figures(tmp_path: Path) -> None:
    noise = np.random.default_rng(3).standard_normal(100)
    folder, record = sealed(tmp_path, rss=[(200 + n) * MIB for n in noise])
    before = list(record.findings)
    settle(record, folder)
    assert record.findings == before
    assert {t.series: t.verdict for t in record.steady or ()}["rss"] == STEADY
    assert TrialRecord.from_json(record.to_json()).steady == record.steady


def test_load_that_changes_by_itself_is_no_lack_of_a_steady_state(tmp_path: Path) -> None:
    folder, record = sealed(tmp_path, rss=[(200 + 4 * i) * MIB for i in range(100)])
    record.spec["load"]["arrivals"]["rates"] = [{"for_ns": 1, "from_rps": 1, "to_rps": 9}]
    settle(record, folder)
    assert not [f for f in record.findings if f.code == "not_steady"]
    assert {t.verdict for t in record.steady or ()} <= {"the load changes", TOO_SHORT}


def test_an_invalid_trial_is_not_asked(tmp_path: Path) -> None:
    write_archive(tmp_path, blocks=1, invalid=["b01-1-default-steady"])
    ((folder, record),) = records(tmp_path)
    settle(record, folder)
    assert record.steady is None


def test_a_file_that_cant_be_read_is_a_note_and_no_reason_to_lose_the_trial(
    tmp_path: Path,
) -> None:
    folder, record = sealed(tmp_path)
    (folder / "memory.arrow").write_bytes(b"ARROW1\0\0 not a table")
    settle(record, folder)
    assert [(f.code, f.level) for f in record.findings][-1] == ("steady_untested", "note")
    assert record.valid


def test_on_windows_it_is_the_working_set_and_commit(tmp_path: Path) -> None:
    write_archive(tmp_path, blocks=1, groups={"windows": MIXED["windows"]})
    ((folder, record),) = records(tmp_path)
    names = {trend.series for trend in examined(record, folder)}
    assert {"working_set", "commit"} <= names
    assert "rss" not in names


@pytest.mark.parametrize("archive", KEPT, ids=lambda path: path.name)
def test_archives_of_every_format_can_be_asked(archive: Path) -> None:
    for folder, record in records(archive):
        found = examined(record, folder)
        assert "rss" in {trend.series for trend in found} or record.os == "windows"
        assert examined(record, folder) == found


def test_load_nodes_that_keep_other_time_fall_into_the_same_seconds(tmp_path: Path) -> None:
    numbers = {"requests": 6_000, "latency_step_ns": 0}
    write_archive(tmp_path / "one", configurations={"default": numbers}, blocks=1)
    more = {**numbers, "load_nodes": 2, "load_clock_ahead_ns": 5 * SECOND_NS}
    write_archive(tmp_path / "more", configurations={"default": more}, blocks=1)
    found = []
    for root in ("one", "more"):
        ((folder, record),) = records(tmp_path / root)
        (series,) = [s for s in read_series(folder, record) if s.name == "latency_p99"]
        found.append((series.seconds.tolist(), series.values.tolist()))
    assert found[0] == found[1]
    assert len(found[0][0]) >= 9


def test_slices_without_values_are_left_out() -> None:
    span = PhaseSpan("measure", 0, 60 * SECOND_NS)
    times = np.concatenate([np.arange(0, 20), np.arange(40, 60)]) * 1e9
    series = _sliced("heap_goal", times, np.full(40, 5.0), span, 1)
    assert series.seconds.max() > 58
    assert not [s for s in series.seconds if 21 < s < 39]


def test_few_values_say_nothing() -> None:
    series = Series("rss", np.arange(5.0), np.array([1.0, 2, 3, 4, 5]))
    assert judged(series, 5, "few").verdict == TOO_SHORT


def test_steady_trials_are_rarely_called_unsteady() -> None:
    # The benchmark has 2,000 of them; at a rate of 5 % more than 6 of 40 happen once in 300.
    assert sum(map(not_steady, range(40))) <= 6


def test_changes_that_matter_are_seen() -> None:
    trials = [SimulatedTrial.of(number, 300) for number in range(10)]
    drifting = [t.judge(t.rss(drift(0.2))).verdict for t in trials]
    stepping = [t.judge(t.rss(step(0.2))).verdict for t in trials]
    assert sum(v in (DRIFTS, STEPS) for v in drifting) >= 9
    assert sum(v in (DRIFTS, STEPS) for v in stepping) >= 9


def test_a_cache_that_still_fills_when_measure_begins_is_seen() -> None:
    share = np.linspace(0, 1, 60)
    noise = np.random.default_rng(8).standard_normal(60)
    values = (100 * (1 - 0.5 * np.exp(-share * 4)) + noise) * MIB
    found = judged(Series("rss", share * 60, values), 60, "cache")
    assert found.verdict in (DRIFTS, STEPS)
    assert list(findings_of(found))


def findings_of(found: SeriesTrend) -> list[str]:
    record = TrialRecord.from_json(next(KEPT[0].glob("*/trials/*/trial.json")).read_text())
    record.steady = [found]
    return [f.text for f in findings(record)]


def test_a_trials_files_are_read_and_not_mapped(tmp_path: Path) -> None:
    """The collector reads them: of a long trial, mapped pages would all be resident in it."""
    folder, _ = sealed(tmp_path)
    for batch, _measured in _measured_batches(folder / "requests.arrow", "start_ns"):
        assert batch.num_rows
        assert str(folder) not in Path("/proc/self/maps").read_text(encoding="utf-8")

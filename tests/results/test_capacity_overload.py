"""What an overload did: its figures by hand, and those of rows in an archive."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from archives import RUN_ID, write_archive

from results.capacity.overload import (
    Overload,
    Rows,
    Second,
    Shape,
    overload_of,
    read_overload,
    shape_of,
)
from results.record import Finding, TrialRecord
from results.signoff.language import parse_objective

LIMITS = [parse_objective("p99 <= 40ms"), parse_objective("errors <= 1%")]
SHAPE = Shape(base_rps=100, peak_rps=130, before_s=4, over_s=4, after_s=8)
MS = 1e6


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> TrialRecord:
    root = write_archive(tmp_path_factory.mktemp("overload") / "archive", blocks=1)
    (path,) = (root / RUN_ID / "trials").glob("*/trial.json")
    return shaped(TrialRecord.read(path))


def shaped(record: TrialRecord, parts_s: tuple[float, float, float] = (4, 4, 8)) -> TrialRecord:
    """The same trial, as if its arrivals had been those of an overload."""
    rates = [
        {"for_ns": int(part_s * 1e9), "from_rps": rate, "to_rps": rate}
        for part_s, rate in zip(parts_s, (100.0, 130.0, 100.0), strict=True)
    ]
    load = record.spec["load"] | {"arrivals": {"kind": "steps", "rates": rates}}
    return replace(record, spec=record.spec | {"load": load})


def seconds(p99s_ms: list[float], failed: dict[int, int] | None = None) -> list[Second]:
    return [
        Second(n, 100, (failed or {}).get(n, 0), 1 * MS, p99 * MS, 2 * p99 * MS)
        for n, p99 in enumerate(p99s_ms)
    ]


def rows(p99s_ms: list[float], **more: object) -> Rows:
    own = Rows(seconds(p99s_ms), (10 * MS, 90 * MS, 12 * MS), 520, [])
    return replace(own, **more)


def told(record: TrialRecord, own: Rows) -> Overload:
    return overload_of(record, SHAPE, own, LIMITS)


CALM = [10.0] * 4


def test_latency_comes_back_with_the_second_from_which_on_the_limits_are_kept(
    record: TrialRecord,
) -> None:
    found = told(record, rows([*CALM, 50, 90, 120, 140, 130, 80, 39, 10, 10, 50, 10, 10]))
    assert found.back_after_s == 2, "seconds 8 and 9 were above 40 ms, second 10 was not"
    assert found.within_before == 1
    assert found.within_after == pytest.approx(5 / 6), "one of the six since then was not"
    assert told(record, rows([*CALM, 50, 50, 50, 50, *[10] * 8])).back_after_s == 0


def test_one_good_second_is_no_recovery(record: TrialRecord) -> None:
    lucky = told(record, rows([*CALM, *[90] * 4, 10, 10, 10, 90, 90, 90, 90, 90]))
    assert lucky.back_after_s is None
    late = told(record, rows([*CALM, *[90] * 4, 10, 90, 90, 90, 10, 10, 10, 10]))
    assert late.back_after_s == 4
    last = told(record, rows([*CALM, *[90] * 4, *[90] * 6, 10, 10]))
    assert last.back_after_s is None, "two seconds are too few to tell"


def test_latency_that_does_not_come_back_is_told(record: TrialRecord) -> None:
    found = told(record, rows([*CALM, *[100] * 12]))
    assert found.limited
    assert found.back_after_s is None
    assert found.within_after is None


def test_a_second_that_fails_fast_is_not_back(record: TrialRecord) -> None:
    own = rows([10.0] * 16)
    refusing = replace(own, seconds=seconds([10.0] * 16, failed={5: 30, 6: 50, 8: 20}))
    found = told(record, refusing)
    assert found.failed_share == pytest.approx(80 / 400), "of those meant to start in it"
    assert found.back_after_s == 1


def test_without_a_limit_of_latency_there_is_no_coming_back(record: TrialRecord) -> None:
    only = [parse_objective("peak_rss <= 1GiB"), parse_objective("errors <= 1%")]
    found = overload_of(record, SHAPE, rows([10.0] * 16), only)
    assert (found.limited, found.back_after_s) == (False, None)
    slow = overload_of(record, SHAPE, rows([10.0] * 16), [parse_objective("p999 <= 15ms")])
    assert slow.limited and slow.back_after_s is None, "its slowest took 20 ms in every second"


def test_memory_before_at_most_and_after(record: TrialRecord) -> None:
    by_time = [(0.5, 50.0), (2.5, 100.0), (3.5, 100.0), (6.0, 180.0), (9.0, 200.0), (13.0, 125.0)]
    found = told(record, rows([10.0] * 16, memory=by_time))
    assert found.memory_bytes == (100, 200, 125)
    assert found.memory_kept == pytest.approx(0.25)
    assert told(record, rows([10.0] * 16)).memory_kept is None


def test_a_service_that_dies_in_it_is_told_and_so_is_what_is_no_answer(record: TrialRecord) -> None:
    def with_(code: str) -> TrialRecord:
        return replace(record, findings=[Finding(code, "invalid", f"it was {code}")])

    dead = told(with_("oom_killed"), rows([*CALM, 50, 90]))
    assert (dead.died, dead.spoiled) == ("it was oom_killed", "")
    assert dead.back_after_s is None
    assert told(with_("samples_missing"), rows([10.0] * 16)).spoiled == "it was samples_missing"
    assert told(with_("service_saturated"), rows([10.0] * 16)).spoiled == ""
    late = told(with_("generator_late"), rows([10.0] * 16, sent_in_overload=440))
    assert (late.generator_at_its_end, late.spoiled) == (True, "")
    assert late.factor == pytest.approx(1.1), "it is at least that: 440 in 4 s of 100/s"
    assert told(with_("never_ready"), Rows([], (None, None, None), 0, [])).spoiled


def test_it_is_read_from_the_rows_of_an_archive(tmp_path: Path) -> None:
    from results.sql.database import open_database

    root = write_archive(tmp_path / "archive", blocks=1)
    with open_database(root, [RUN_ID]) as database:
        (record,) = database.records
        assert shape_of(record) is None, "its rate stays what it is"
        assert read_overload(database, record, LIMITS) is None
        found = read_overload(database, shaped(record, (0.25, 0.25, 0.5)), LIMITS)
        assert found
        counts = database.query(
            "select count(*) as n from requests where phase = 'measure' "
            "and (start_ns - measure_start_ns) between 250000000 and 499999999"
        ).to_pylist()
    assert found.sent_rps * 0.25 == counts[0]["n"] > 0
    assert found.latency_p99_ns[0] and found.latency_p99_ns[2]
    assert found.memory_bytes[1]
    assert found.spoiled == ""

"""What trials' series did over measure, as the tables that SQL finds."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

import pyarrow as pa

from results.judging.leaks import leak_row, leaks_of
from results.record import TrialRecord

_TEXT: Final = pa.string()
_REAL: Final = pa.float64()

_TRENDS: Final = pa.schema(
    {
        **dict.fromkeys(("run_id", "trial_id", "configuration", "workload"), _TEXT),
        "block": pa.int64(),
        **dict.fromkeys(("series", "unit", "verdict"), _TEXT),
        "measure_s": _REAL,
        "points": pa.int64(),
        **dict.fromkeys(
            (
                "independent", "level", "slope_per_minute", "slope_low", "slope_high",
                "late_slope_per_minute", "step", "step_at_s", "step_p",
            ),
            _REAL,
        ),
    }
)  # fmt: skip
_LEAKS: Final = pa.schema(
    {
        **dict.fromkeys(("run_id", "node_class", "os", "workload", "configuration"), _TEXT),
        "baseline": pa.bool_(),
        **dict.fromkeys(("verdict", "series"), _TEXT),
        "trials": pa.int64(),
        **dict.fromkeys(
            (
                "measure_s", "level", "growth_per_hour", "growth_low", "growth_high",
                "more_than_baseline_per_hour", "more_than_baseline_low", "more_than_baseline_high",
                "needed_s",
            ),
            _REAL,
        ),
    }
)  # fmt: skip


def trend_tables(records: Sequence[TrialRecord]) -> dict[str, pa.Table]:
    """The tables behind the views `trends` and `leaks`."""
    return {"raw_trends": trends_table(records), "raw_leaks": leaks_table(records)}


def trends_table(records: Sequence[TrialRecord]) -> pa.Table:
    """Each series of each trial."""
    return pa.Table.from_pylist(list(_trend_rows(records)), _TRENDS)


def leaks_table(records: Sequence[TrialRecord]) -> pa.Table:
    """Each cell of each run."""
    runs = dict.fromkeys(record.run_id for record in records)
    rows = [
        {"run_id": run_id, **leak_row(leak)}
        for run_id in runs
        for leak in leaks_of(record for record in records if record.run_id == run_id)
    ]
    return pa.Table.from_pylist(rows, _LEAKS)


def _trend_rows(records: Iterable[TrialRecord]) -> Iterator[dict[str, Any]]:
    for record in records:
        for trend in record.steady or ():
            yield {
                **{name: getattr(record, name) for name in _TRENDS.names[:5]},
                **{name: getattr(trend, name, None) for name in _TRENDS.names[5:]},
                "measure_s": trend.seconds,
                "slope_per_minute": _by_minute(trend.slope_per_s),
                "slope_low": _by_minute(trend.slope_low_per_s),
                "slope_high": _by_minute(trend.slope_high_per_s),
                "late_slope_per_minute": _by_minute(trend.late_slope_per_s),
            }


def _by_minute(per_second: float | None) -> float | None:
    return None if per_second is None else per_second * 60

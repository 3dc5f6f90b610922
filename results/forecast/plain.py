"""Forecasts as plain values: JSON, CSV, Markdown."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any, Final

from results.forecast.forecast import Forecast
from results.forecast.overtime import Continued, Meeting, NotContinued, Step
from results.markdown import markdown_table, markdown_text
from results.metrics import format_value

NO_MEASUREMENT: Final = (
    "A forecast is a figure to plan with, no measurement: no sign-off rests on one."
)


def plain_forecast(own: Forecast) -> dict[str, Any]:
    """As JSON; the figure in the metric's own unit."""
    base, test = own.subject.base, own.backtest
    return {
        "configuration": base.configuration,
        "node_class": base.node_class,
        "scenario": base.facts["scenario"],
        "arrivals": base.facts["arrivals"],
        "metric": own.metric.name,
        "unit": own.metric.unit,
        "rate_rps": own.place.rate_rps,
        "live_bytes": own.place.live_bytes,
        "gogc": _finite(own.place.gogc),
        "memlimit_bytes": _finite(own.place.memlimit_bytes),
        "value": own.found.estimate,
        "low": own.found.low,
        "high": own.found.high,
        "confidence": own.confidence,
        "beyond": own.beyond,
        "trials": len(own.rows),
        "trusted": not own.why_not,
        "verdict": own.verdict,
        "backtest_error": test.error,
        "backtest_held": test.held,
        "backtest_trials": test.trials,
        "backtest": [asdict(level) for level in test.levels],
        "notes": list(own.notes),
    }


def _finite(value: float) -> float | None:
    """JSON has no infinity: null is `off`."""
    return value if math.isfinite(value) else None


def plain_continued(own: Continued | NotContinued) -> dict[str, Any]:
    """As JSON; figures in the metric's own unit."""
    named = {
        "configuration": own.cell.configuration,
        "workload": own.cell.workload,
        "node_class": own.cell.node_class,
        "metric": own.metric.name,
        "unit": own.metric.unit,
    }
    if isinstance(own, NotContinued):
        return named | {"why_not": own.why}
    return named | {
        "method": own.method,
        "verdict": own.verdict,
        "confidence": own.confidence,
        "runs": [point.run_id for point in own.runs],
        "damped": asdict(own.damped),
        "naive": asdict(own.naive),
        "steps": [_plain_step(step) for step in own.steps],
        "meetings": [_plain_meeting(meeting) for meeting in own.meetings],
    }


def _plain_step(step: Step) -> dict[str, Any]:
    return {"ahead": step.ahead, "when_ns": step.when_ns, **_bounds(step)}


def _bounds(step: Step) -> dict[str, float]:
    return {"value": step.value.estimate, "low": step.value.low, "high": step.value.high}


def _plain_meeting(meeting: Meeting) -> dict[str, Any]:
    def of(step: Step | None) -> int | None:
        return step.when_ns if step else None

    return {
        "text": meeting.text,
        "bound": meeting.bound,
        "already": meeting.already,
        "about_ns": of(meeting.about),
        "earliest_ns": of(meeting.earliest),
        "latest_ns": of(meeting.latest),
    }


def csv_forecasts(found: Sequence[Forecast]) -> str:
    """One line each, without the levels of the back-test."""
    rows = [plain_forecast(own) | {"notes": "; ".join(own.notes)} for own in found]
    return _csv([{k: v for k, v in row.items() if k != "backtest"} for row in rows])


def csv_continued(found: Sequence[Continued]) -> str:
    """One line for each run to come."""
    named = ("configuration", "workload", "node_class", "metric", "unit", "method", "confidence")
    rows = []
    for own in found:
        plain = plain_continued(own)
        rows += [{n: plain[n] for n in named} | _plain_step(step) for step in own.steps]
    return _csv(rows)


def _csv(rows: Sequence[dict[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]) if rows else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


HEADS: Final = ("forecast", "at", "value", "interval", "back-test", "verdict")


def cells_of(own: Forecast) -> tuple[str, ...]:
    """A forecast in the columns of HEADS."""
    metric, test = own.metric, own.backtest
    low, high = (format_value(metric, v) for v in (own.found.low, own.found.high))
    return (
        f"{metric.label} of {own.subject.base.configuration}",
        ", ".join(f"{d.name} {d.show(d.asked)}" for d in own.dimensions),
        format_value(metric, own.found.estimate),
        f"{low} … {high}",
        f"off by {test.error * 100:.1f} %, {test.held} of {test.trials} held",
        own.verdict,
    )


HISTORY_HEADS: Final = ("forecast", "latest", "then", "interval", "method", "back-test")


def history_cells_of(own: Continued) -> tuple[str, ...]:
    """The last step of a history that is carried on, in the columns of HISTORY_HEADS."""
    metric, step, test = own.metric, own.steps[-1], own.rolled
    low, high = (format_value(metric, v) for v in (step.value.low, step.value.high))
    return (
        metric.label,
        format_value(metric, own.runs[-1].value),
        format_value(metric, step.value.estimate),
        f"{low} … {high}",
        own.method,
        f"off by {format_value(metric, test.error)}, {test.held} of {test.points} held"
        + (f", widened ×{test.widen:.1f}" if test.widen > 1 else ""),
    )


def markdown_forecasts(found: Sequence[Forecast]) -> str:
    """A table, and what must be read with it."""
    rows = [tuple(map(markdown_text, cells_of(own))) for own in found]
    return _markdown(HEADS, rows)


def markdown_continued(found: Sequence[Continued]) -> str:
    """A table, and what must be read with it."""
    rows = []
    for own in found:
        first, *rest = history_cells_of(own)
        name = f"{first} of {own.cell.configuration} × {own.cell.workload}"
        rows.append(tuple(map(markdown_text, (name, *rest))))
    lines = [markdown_text(text) for own in found for text in met(own)]
    return _markdown(HISTORY_HEADS, rows) + "".join(f"\n{line}\n" for line in lines)


def _markdown(heads: Sequence[str], rows: Sequence[tuple[str, ...]]) -> str:
    return "\n".join([*markdown_table(heads, rows), "", NO_MEASUREMENT, ""])


def met(own: Continued) -> list[str]:
    """When each bound will be met, in words."""
    return [_met(own, meeting) for meeting in own.meetings]


def _met(own: Continued, meeting: Meeting) -> str:
    what = f"{own.metric.label} of {own.cell.configuration} × {own.cell.workload}"
    bound = format_value(own.metric, meeting.bound)
    verb = "reaches" if meeting.at_most else "falls to"
    if meeting.already:
        return f"{what} is past {meeting.text} ({bound}) already"
    until = day(own.steps[-1].when_ns)
    if meeting.about is None:
        early = f"; at the earliest {day(meeting.earliest.when_ns)}" if meeting.earliest else ""
        return f"{what} {verb} {meeting.text} ({bound}) not within the horizon, {until}{early}"
    latest = day(meeting.latest.when_ns) if meeting.latest else f"after {until}"
    earliest = day(meeting.earliest.when_ns) if meeting.earliest else day(meeting.about.when_ns)
    return (
        f"{what} {verb} {meeting.text} ({bound}) about {day(meeting.about.when_ns)} "
        f"({earliest} … {latest})"
    )


def day(time_ns: int) -> str:
    """A date."""
    return f"{datetime.fromtimestamp(time_ns / 1e9, UTC):%Y-%m-%d}"

"""What `bench capacity` prints."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape

from orchestrator.answers.common import plain_table, print_json
from orchestrator.capacity.capacity import find_capacity
from orchestrator.capacity.trialmatrix import Asked
from orchestrator.capacity.words import back_text, bracket_text, kept_text, told
from orchestrator.matrix import values
from orchestrator.progress import format_bytes
from results.capacity.course import Course, Tried
from results.capacity.overload import Overload
from results.errors import RunIncomplete, UserError
from results.metrics import METRICS, format_time, format_value


def print_capacity(
    matrix: Path,
    archive: Path,
    progress: Console,
    console: Console,
    *,
    workload: str | None,
    lowest: str | None,
    highest: str | None,
    trials: int | None,
    budget: str | None,
    within: str,
    overload: bool,
    as_json: bool,
) -> None:
    """Search, and tell each configuration's capacity. Raises RunIncomplete when one has none."""
    try:
        asked = Asked(
            workload,
            values.rate_rps(lowest) if lowest else None,
            values.rate_rps(highest) if highest else None,
            trials,
            values.duration_ns(budget) if budget else None,
            values.share(within),
            overload,
        )
    except ValueError as error:
        raise UserError(str(error)) from error
    courses = find_capacity(matrix, asked, archive, progress)
    if as_json:
        print_json([plain_course(course) for course in courses])
    else:
        print_courses(courses, console)
    lost = [own.configuration for own in courses if own.stuck or not own.search.answers]
    if lost:
        raise RunIncomplete(f"no capacity was found of {', '.join(lost)}")


def print_courses(courses: Sequence[Course], console: Console) -> None:
    """The table of capacities, that of overloads, and what to know of either."""
    table = plain_table(
        "configuration", "capacity", f"{_confidence(courses)} interval", "confirmed",
        "one step above", "peak memory", "/s per GiB", "/s per core", "trials",
    )  # fmt: skip
    for course in courses:
        table.add_row(*_row(course))
    console.print(table)
    _print_overloads(courses, console)
    for course in courses:
        for text in told(course):
            console.print(
                f"[yellow]![/] {escape(course.configuration)}: {escape(text)}", highlight=False
            )


def _confidence(courses: Sequence[Course]) -> str:
    return f"{courses[0].bounds.confidence * 100:g} %"


def _row(course: Course) -> list[str]:
    interval, memory = course.interval, _memory(course)
    found = _is_found(course)
    per_gib = interval.estimate / (memory[1] / 2**30) if memory and found else None
    cores = course.at_capacity("cpu_cores")
    per_core = interval.estimate / cores if cores and found else None
    return [
        escape(course.configuration),
        f"{interval.estimate:,.0f}/s" if found else "–",
        bracket_text(course) if course.end != "generator" else f"≥ {course.generator_rps:,.0f}/s",
        _held_text(course.confirmation or course.refuted),
        _held_text(course.step_above),
        format_value(METRICS[memory[0]], memory[1]) if memory else "–",
        f"{per_gib:,.0f}" if per_gib else "–",
        f"{per_core:,.0f}" if per_core else "–",
        str(course.trials),
    ]


def _is_found(course: Course) -> bool:
    """Whether there is an interval: before that what it says is only what was thought at first."""
    return course.end in ("found", "searching") and course.bracketed


def _held_text(tried: Tried | None) -> str:
    """As in `1,850/s held`; a rate and its answer never part at the end of a line."""
    if tried is None:
        return "–"
    word = "held" if tried.held.holds else "did not hold"
    return f"{tried.rate_rps:,.0f}/s {word}".replace(" ", "\N{NO-BREAK SPACE}")


def _print_overloads(courses: Sequence[Course], console: Console) -> None:
    found = [(course, course.overload) for course in courses if course.overload]
    if not found:
        return
    table = plain_table(
        "overload", "rates", "p99 before", "in it", "after", "failed", "within limits again",
        "peak memory", "stays above", "service",
    )  # fmt: skip
    for course, overload in found:
        assert overload
        table.add_row(escape(course.configuration), *_overload_row(overload))
    console.print(table)


def _overload_row(overload: Overload) -> list[str]:
    at_least = "≥ " if overload.generator_at_its_end else ""
    peak_rps = overload.sent_rps if at_least else overload.peak_rps
    return [
        f"{overload.base_rps:,.0f} → {at_least}{peak_rps:,.0f}/s",
        *("–" if p99 is None else format_time(p99) for p99 in overload.latency_p99_ns),
        "–" if overload.failed_share is None else f"{overload.failed_share:.1%}",
        back_text(overload),
        format_bytes(overload.memory_bytes[1]),
        kept_text(overload),
        "died" if overload.died else "survived",
    ]


def _memory(course: Course) -> tuple[str, float] | None:
    """The peak of resident memory of the trial that held at the highest rate."""
    for name in ("peak_rss", "peak_working_set"):
        value = course.at_capacity(name)
        if value is not None:
            return name, value
    return None


def plain_course(course: Course) -> dict[str, Any]:
    """As JSON; rates in requests per second, times as their names say.

    `confirmed_rps` is what one would sign: a fresh process held at it after the search. Without an
    interval `low_rps` is the highest rate that held and `high_rps` the lowest that did not.
    """
    interval, memory = course.interval, _memory(course)
    rates = {answer.rate_rps: answer.holds for answer in course.search.answers}
    held = [rate_rps for rate_rps, holds in rates.items() if holds]
    failed = [rate_rps for rate_rps, holds in rates.items() if not holds]
    found = _is_found(course)
    confirmed = course.confirmation
    return {
        "configuration": course.configuration,
        "state": "spent" if course.end == "searching" else course.end,
        "capacity_rps": interval.estimate if found else None,
        "low_rps": interval.low if found else max(held, default=None),
        "high_rps": interval.high if found else min(failed, default=None),
        "at_least_rps": course.generator_rps,
        "confirmed_rps": confirmed.rate_rps if confirmed else None,
        "confirmation": _plain_tried(confirmed or course.refuted),
        "step_above": _plain_tried(course.step_above),
        "overload": _plain_overload(course.overload),
        "memory_bytes": memory[1] if memory else None,
        "notes": list(told(course)),
        "trials_made": course.trials,
        "trials": [_plain_tried(tried) for tried in course.tried],
    }


def _plain_tried(tried: Tried | None) -> dict[str, Any] | None:
    if tried is None:
        return None
    return {
        "run_id": tried.run_id,
        "purpose": tried.purpose.value,
        "rate_rps": tried.rate_rps,
        "holds": tried.held.holds,
        "reason": tried.held.reason,
    }


def _plain_overload(overload: Overload | None) -> dict[str, Any] | None:
    if overload is None:
        return None
    plain = dataclasses.asdict(overload)
    for name in ("latency_p99_ns", "memory_bytes"):
        plain[name] = dict(zip(_PARTS[name], plain[name], strict=True))
    plain.pop("took_ns")
    return plain | {"memory_kept": overload.memory_kept, "factor": overload.factor}


_PARTS = {
    "latency_p99_ns": ("before", "overload", "after"),
    "memory_bytes": ("before", "peak", "after"),
}

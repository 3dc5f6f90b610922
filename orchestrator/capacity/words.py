"""What a search found, in sentences."""

from __future__ import annotations

from collections.abc import Iterator

from orchestrator.progress import format_bytes
from results.capacity.course import Course, Purpose, Tried
from results.capacity.overload import Overload
from results.metrics import counted, format_time

FOR = {
    Purpose.search: "",
    Purpose.confirm: "to confirm, ",
    Purpose.above: "one step above, ",
    Purpose.overload: "overload, ",
}
"""What a trial is made for, before its rate."""


def said_of(course: Course, tried: Tried) -> str:
    """What a trial said, and what is known now."""
    rate = f"{FOR[tried.purpose]}{tried.rate_rps:,.0f}/s"
    if tried.held.holds is None:
        return f"{rate} says nothing: {tried.held.reason}"
    word = "holds" if tried.held.holds else "does not hold"
    return (
        f"{rate} {word}: {tried.held.reason}; capacity {bracket_text(course)} after "
        f"{counted(course.trials, 'trial')}"
    )


def bracket_text(course: Course) -> str:
    """Where the capacity lies, as far as that is known."""
    interval = course.interval
    if course.bracketed:
        return f"{interval.low:,.0f} … {interval.high:,.0f}/s"
    rates = {answer.rate_rps: answer.holds for answer in course.search.answers}
    if not rates:
        return ""
    return f"above {max(rates):,.0f}/s" if any(rates.values()) else f"below {min(rates):,.0f}/s"


def said_of_overload(overload: Overload) -> str:
    """What an overload did, in one line."""
    rates = f"overload of {overload.peak_rps:,.0f}/s for {overload.over_s:.0f} s"
    if overload.spoiled:
        return f"{rates} says nothing: {overload.spoiled}"
    if overload.died:
        return f"{rates}: the service did not survive it: {overload.died}"
    parts = [
        f"p99 {format_time(overload.latency_p99_ns[1] or 0)}",
        f"{overload.failed_share or 0:.1%} failed",
        f"within the limits again {back_text(overload)}",
        f"memory {format_bytes(overload.memory_bytes[1])} at most, {kept_text(overload)} after it",
    ]
    return f"{rates}: {', '.join(parts)}"


def back_text(overload: Overload) -> str:
    """When latency was within its limit again, counted from the overload's end."""
    if not overload.limited:
        return "–"
    if overload.back_after_s is None:
        return "never" if overload.died else f"not within {overload.after_s:.0f} s"
    return f"after {overload.back_after_s:.0f} s" if overload.back_after_s else "at once"


def kept_text(overload: Overload) -> str:
    """By how much memory is above what it was."""
    kept = overload.memory_kept
    if kept is None:
        return "–"
    return f"{'+' if kept >= 0 else '−'}{abs(kept) * 100:.0f} %"


def told(course: Course) -> Iterator[str]:
    """What to know of a configuration's result."""
    if course.end == "generator":
        yield f"at least {course.generator_rps:,.0f}/s: the load generator could send no more"
    elif course.end == "stuck":
        yield f"given up: {course.stuck}"
    elif course.end == "below":
        yield "it does not hold at the lowest rate either"
    elif course.end == "above":
        yield "it holds at the highest rate too"
    elif course.end == "searching":
        yield "the trials were spent before the interval was as narrow as asked for"
    if course.search.contradicts_itself:
        yield "it held at higher rates and not at lower ones: its behaviour is not monotone"
    if why := course.unconfirmed:
        yield f"not confirmed: {why}"
    step = course.step_above
    if course.confirmation and step and step.held.holds:
        yield (
            f"it held at {step.rate_rps:,.0f}/s too, one step above: the capacity may be higher "
            "than the interval says"
        )
    if disturbed := sum(tried.disturbed for tried in course.tried):
        yield (
            f"in {disturbed} of {counted(len(course.tried), 'trial')} others used the service's "
            "cores: on a quiet machine it may carry more"
        )
    yield from _told_of_overload(course)


def _told_of_overload(course: Course) -> Iterator[str]:
    overload = course.overload
    if overload is None:
        if course.overloads:
            yield f"the overload says nothing: {course.overloads[-1].spoiled}"
        return
    if overload.generator_at_its_end:
        yield (
            f"the overload was at least {overload.factor:.2f} times the rate before: the load "
            f"generator could send no more than {overload.sent_rps:,.0f}/s"
        )
    if overload.died:
        yield f"the service did not survive the overload: {overload.died}"
    if overload.not_sent:
        yield f"{overload.not_sent:,} arrivals of the overload were never sent: too many waited"

"""What `bench tune` prints: the front, one setting to run with, and how to write it down."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.markup import escape

from orchestrator.answers.common import plain_table, print_json
from orchestrator.matrix import values
from orchestrator.tune.trialmatrix import Question, Wanted, unasked_text
from orchestrator.tune.tune import tune
from results.errors import EnvironmentLacks, ObjectiveFailed, UserError
from results.metrics import METRICS, counted, format_bytes, format_value
from results.signoff.objectives import CANT_TELL
from results.statistics.interval import Interval
from results.tuning.front import front
from results.tuning.outcomes import Confirmed
from results.tuning.recommendation import (
    RULE,
    Recommendation,
    elsewhere,
    recommend,
    snippets,
    why_nothing,
)
from results.tuning.search import COLLECTIONS, Tuned
from results.tuning.spiral import Spiral

FORMS: Final = ("svg", "png", "html")
TITLES: Final = {
    "environment": "Environment",
    "kubernetes": "Kubernetes, into the container",
    "compose": "Compose",
}
LANGUAGES: Final = {"environment": "sh", "kubernetes": "yaml", "compose": "yaml"}


@dataclass(frozen=True, slots=True)
class _Told:
    """All that is told of a tuning."""

    question: Question
    tuned: Tuned
    run_ids: Sequence[str]
    best: Recommendation | None

    @property
    def service(self) -> str:
        return self.question.matrix.service.name

    @property
    def snippets(self) -> dict[str, str]:
        return snippets(self.best, self.service) if self.best else {}


def print_tuning(
    matrix: Path,
    archive: Path,
    progress: Console,
    console: Console,
    *,
    workload: str | None,
    configuration: str | None,
    require: Sequence[str],
    trials: int,
    finalists: int,
    budget: str,
    spiral: bool,
    output: Path | None,
    form: str,
) -> None:
    """Tune, and tell. Raises ObjectiveFailed when nothing is recommended, EnvironmentLacks when the
    picture can't be written, and as `tune` does.
    """
    try:
        budget_ns = values.duration_ns(budget)
    except ValueError as error:
        raise UserError(f"--budget: {error}") from error
    picture = _picture_form(output)
    wanted = Wanted(
        workload=workload,
        configuration=configuration,
        require=tuple(require),
        trials=trials,
        finalists=finalists,
        budget_ns=budget_ns,
        with_spiral=spiral,
    )
    question = Question(matrix, wanted)
    tuned, run_ids = tune(question, archive, progress)
    best = recommend(tuned.confirmed, tuned.spiral, question.hard_limit_bytes)
    told = _Told(question, tuned, run_ids, best)
    if form == "json":
        print_json(plain_tuning(told))
    elif form == "md":
        sys.stdout.write("\n".join(_markdown(told)) + "\n")
    else:
        _print(told, console)
    if output is not None:
        _write_picture(told, output, picture)
    if question.asked.blocking and best is None:
        unsure = any(own.word == CANT_TELL for own in tuned.confirmed)
        more = "; where it can't be told, more blocks may (`trials:`)" if unsure else ""
        raise ObjectiveFailed(why_nothing(tuned.confirmed) + more)


def _write_picture(told: _Told, output: Path, form: str) -> None:
    from results.report.tune_chart import render_tuning

    try:
        output.write_bytes(render_tuning(told.tuned, told.best, told.service, form))
    except OSError as error:
        again = "what was measured is kept, the same command draws it at once"
        raise EnvironmentLacks(f"{output}: {error.strerror or error}; {again}") from error


def _picture_form(output: Path | None) -> str:
    """What is drawn. Raises UserError where that can't be written, before anything is measured."""
    form = output.suffix.lower().lstrip(".") if output else "svg"
    if form not in FORMS:
        raise UserError(f"{output}: a picture is a .svg, .png or .html file")
    if output and not output.parent.is_dir():
        raise UserError(f"{output}: there is no folder {output.parent}")
    if output and output.is_dir():
        raise UserError(f"{output} is a folder")
    return form


# The table


def _columns(told: _Told) -> list[tuple[str, str]]:
    """Heading and metric."""
    memory = told.tuned.asked.memory_metric
    return [
        (METRICS[memory].label, memory),
        ("p99", "latency_p99"),
        ("GC CPU", "gc_cpu_share"),
        ("throughput", "throughput"),
    ]


def _rows(told: _Told) -> Iterator[tuple[Confirmed, list[str]]]:
    """The front in the order of memory, and the configuration as it is written."""
    kept = {id(c) for c in front(told.tuned.confirmed, lambda c: c.point)}
    shown = [c for c in told.tuned.confirmed if c.written or id(c) in kept]
    for own in sorted(shown, key=lambda c: c.point or (0.0,)):
        cells = [_interval(own.intervals.get(name), name) for _, name in _columns(told)]
        yield own, [*cells, own.word or "–"]


def _interval(interval: Interval | None, name: str) -> str:
    if interval is None:
        return "–"
    texts = [
        format_value(METRICS[name], value)
        for value in (interval.estimate, interval.low, interval.high)
    ]
    if not (math.isfinite(interval.low) and math.isfinite(interval.high)):
        return texts[0]
    units = {text.lstrip("0123456789.,") for text in texts}
    low, high = (text.removesuffix(*units) if len(units) == 1 else text for text in texts[1:])
    return f"{texts[0]} ({low} … {high})"


def _name(told: _Told, own: Confirmed) -> str:
    best = "★ " if told.best and told.best.confirmed is own else ""
    return f"{best}{own.setting.text}{' (as written)' if own.written else ''}"


def _print(told: _Told, console: Console) -> None:
    table = plain_table("setting", *(head for head, _ in _columns(told)), "objectives")
    for own, cells in _rows(told):
        table.add_row(escape(_name(told, own)), *cells)
    console.print(table)
    for text in _sentences(told):
        console.print(escape(text), highlight=False, soft_wrap=True)
    for name, text in told.snippets.items():
        console.print(f"\n[bold]{TITLES[name]}[/]")
        console.print(escape(text.rstrip()), highlight=False, soft_wrap=True)


def _markdown(told: _Told) -> Iterator[str]:
    heads = ["setting", *(head for head, _ in _columns(told)), "objectives"]
    yield f"| {' | '.join(heads)} |"
    yield f"|{'---|' * len(heads)}"
    for own, cells in _rows(told):
        yield f"| {' | '.join([_name(told, own), *cells])} |"
    yield ""
    for text in _sentences(told):
        yield f"- {text}"
    for name, text in told.snippets.items():
        yield f"\n{TITLES[name]}:\n\n```{LANGUAGES[name]}\n{text.rstrip()}\n```"


# The sentences


def _sentences(told: _Told) -> Iterator[str]:
    tuned = told.tuned
    yield from _of_the_best(told)
    yield from _objectives(told)
    for own in tuned.confirmed:
        cycles = own.intervals.get("gc_cycles")
        if cycles and cycles.estimate < COLLECTIONS:
            few = counted(round(cycles.estimate), "collection")
            yield (
                f"{_name(told, own)}: {few} in measure: its peak may not have been reached; "
                "measure longer"
            )
        if why := _danger(told, own):
            yield f"{_name(told, own)}: {why}: it is not recommended"
    if tuned.spiral:
        yield _of_the_spiral(tuned.spiral)
    for objective in told.question.unasked:
        yield unasked_text(objective)
    yield from _of_the_rest(told)


def _danger(told: _Told, own: Confirmed) -> str:
    """Why a setting is not recommended, whatever it keeps; empty when it may be."""
    spiral = told.tuned.spiral
    if own.in_spiral:
        return own.spiral or "the collector has taken over"
    if spiral and not spiral.leaves(own.setting):
        return (
            f"no margin to the death spiral, which may begin at {format_bytes(spiral.high_bytes)}"
        )
    return ""


def _of_the_best(told: _Told) -> Iterator[str]:
    best = told.best
    if best is None:
        if not told.question.asked.blocking:
            warns = " that block" if told.question.objectives else ""
            yield (
                f"nothing is recommended without objectives{warns}: write some into the matrix, or "
                f"add for example --require '{_example(told)}'"
            )
        return
    own = best.confirmed
    yield f"recommended: {own.setting.text}: {RULE}"
    greatest = format_bytes(own.greatest_bytes or 0)
    limit, margin = format_bytes(best.limit_bytes), f"{best.limit_margin * 100:.0f} %"
    if best.limit_given:
        yield f"of the hard limit of {limit} the greatest peak of {greatest} leaves {margin} free"
    else:
        yield (
            f"there is no hard limit: of one of {limit} the greatest peak of {greatest} would "
            f"leave {margin} free"
        )
    if best.spiral_margin is not None:
        yield (
            f"margin to the death spiral: {best.spiral_margin * 100:.0f} % of GOMEMLIMIT, from the "
            "upper end of where it begins"
        )
    elif own.setting.environment["GOMEMLIMIT"] == "off":
        yield "without GOMEMLIMIT there is no death spiral; a live heap that grows is not held back"
    for name, value in elsewhere(own.setting).items():
        yield f"this setting needs {name} = {value} in the build"


def _example(told: _Told) -> str:
    """An objective that what is written keeps with some room."""
    written = told.tuned.confirmed[0].intervals.get("latency_p99")
    return f"p99 <= {round(written.high * 1.2 / 1e6) or 1}ms" if written else "p99 <= 40ms"


def _objectives(told: _Told) -> Iterator[str]:
    """What confirmed settings miss, or may miss."""
    for own in told.tuned.confirmed:
        for decision in own.decisions:
            if decision.word != "PASS":
                name, asked = _name(told, own), decision.objective
                warns = " (only warns)" if asked.severity == "warn" else ""
                yield f"{name}: {asked.text}: {decision.word}{warns}: {decision.reason}"


def _of_the_spiral(spiral: Spiral) -> str:
    low, high = format_bytes(spiral.low_bytes), format_bytes(spiral.high_bytes)
    trials = counted(spiral.trials, "trial")
    if spiral.state == "below":
        return f"death spiral: none down to GOMEMLIMIT={low} ({trials})"
    if spiral.state == "above":
        return f"death spiral: at every limit that was tried, up to {high} ({trials})"
    why = f": {'; '.join(spiral.reasons)}" if spiral.reasons else ""
    spent = f"still wide after {trials}" if spiral.state == "wide" else trials
    return f"death spiral: with GOMEMLIMIT below {low} … {high} (95 %, {spent}){why}"


def _of_the_rest(told: _Told) -> Iterator[str]:
    tuned = told.tuned
    kept = {id(c) for c in front(tuned.confirmed, lambda c: c.point)}
    dominated = [c.setting.text for c in tuned.confirmed if not c.written and id(c) not in kept]
    if dominated:
        yield f"confirmed, and beaten in everything by another one: {', '.join(dominated)}"
    yield (
        f"{counted(len(tuned.outcomes), 'short trial')} in all, "
        f"{counted(tuned.confirmed[0].trials, 'trial')} of each setting above"
    )
    if tuned.skipped:
        total = sum(tuned.skipped.values())
        reasons = ", ".join(f"{n} {reason}" for reason, n in tuned.skipped.items())
        yield f"{counted(total, 'setting')} not measured, by the model: {reasons}"


# JSON


def plain_tuning(told: _Told) -> dict[str, Any]:
    """As JSON; bytes, nanoseconds, fractions, requests per second."""
    tuned, best = told.tuned, told.best
    kept = {id(c) for c in front(tuned.confirmed, lambda c: c.point)}
    return {
        "configuration": told.question.configuration,
        "workload": told.question.workload,
        "memory_metric": tuned.asked.memory_metric,
        "objectives": [objective.text for objective in told.question.objectives],
        "not_asked": [objective.text for objective in told.question.unasked],
        "confirmed": [_plain_confirmed(told, own, id(own) in kept) for own in tuned.confirmed],
        "recommended": best and {
            "setting": best.confirmed.setting.to_plain(),
            "rule": RULE,
            "limit_bytes": best.limit_bytes,
            "limit_given": best.limit_given,
            "limit_margin": best.limit_margin,
            "spiral_margin": best.spiral_margin,
            "snippets": told.snippets,
        },
        "spiral": tuned.spiral and {
            "state": tuned.spiral.state,
            "low_bytes": tuned.spiral.low_bytes,
            "high_bytes": tuned.spiral.high_bytes,
            "trials": tuned.spiral.trials,
            "reasons": list(tuned.spiral.reasons),
        },
        "searched": [
            {
                "setting": o.setting.to_plain(),
                "memory_bytes": o.memory_bytes,
                "p99_ns": o.p99_ns,
                "gc_cpu_share": o.gc_share,
                "throughput_rps": o.throughput_rps,
                "spiral": o.spiral,
                "unusable": o.unusable,
            }
            for o in tuned.outcomes
        ],
        "skipped": tuned.skipped,
        "runs": list(told.run_ids),
    }  # fmt: skip


def _plain_confirmed(told: _Told, own: Confirmed, on_front: bool) -> dict[str, Any]:
    return {
        "setting": own.setting.to_plain(),
        "as_written": own.written,
        "front": on_front,
        "trials": own.trials,
        "objectives": own.word,
        "greatest_bytes": own.greatest_bytes,
        "danger": _danger(told, own),
        "figures": {
            name: {
                "estimate": interval.estimate,
                "low": _finite(interval.low),
                "high": _finite(interval.high),
            }
            for name, interval in own.intervals.items()
        },
        "decisions": [
            {
                "objective": d.objective.text,
                "severity": d.objective.severity,
                "decision": d.word,
                "reason": d.reason,
            }
            for d in own.decisions
        ],
    }


def _finite(value: float) -> float | None:
    return value if abs(value) != float("inf") else None

"""One run against another: each configuration with the same configuration of an earlier run.

Two runs share no blocks, so nothing is paired: a trial is one observation, and the trials of one
run are held against those of the other (`results/statistics/twosample.py`). What changed on a
machine between the runs is in the change too, so what the runs differ in is told. Only the same
workload on the same node class is compared, never two classes together.

Verdict words are those of `compare.py`; where no test could decide: `needs N trials`.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Any, Final

from results.comparing.compare import Measurement, Row, Settings
from results.comparing.comparison import (
    RESIDUE,
    Place,
    planned_places,
    set_up_of,
    without_trial,
)
from results.errors import UserError
from results.judging.traffic import differences, other_traffic, traffic_of_run
from results.metrics import Metric, counted, metrics_on
from results.record import TrialRecord
from results.statistics.interval import Interval
from results.statistics.paired import holm
from results.statistics.twosample import Shift, shift_between, smallest_p, within

NOT_PAIRED: Final = (
    "The runs share no blocks, so trials are not paired: what else changed between the runs is in "
    "the change too, and a machine that drifts can give verdicts that are not the service's."
)
TRIALS_MAX: Final = 200


@dataclass(frozen=True, slots=True)
class MeasuredRun:
    """One run: its document, its trials, and what the counted ones of them measured."""

    document: dict[str, Any]
    records: tuple[TrialRecord, ...]
    measurements: tuple[Measurement, ...]
    damage: tuple[str, ...] = ()

    @property
    def run_id(self) -> str:
        """Its name."""
        return str(self.document["run_id"])


@dataclass(frozen=True, slots=True)
class AcrossTable:
    """One configuration then and now; in its rows `baseline` is then, `candidate` is now.

    `then` and `now` are the trials that were counted; `changed` is what the configuration was
    built and run with, where that is not the same any more.
    """

    workload: str
    node_class: str
    os: str
    configuration: str
    then: int
    now: int
    rows: tuple[Row, ...]
    changed: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Across:
    """All tables of a run against an earlier one, and everything to know beside them."""

    service: str
    then_id: str
    now_id: str
    name: str
    """How the earlier run was called: its baseline's name, or its id."""
    settings: Settings
    tables: tuple[AcrossTable, ...]
    left_out: tuple[str, ...]
    warnings: tuple[str, ...]

    @property
    def contrasts(self) -> int:
        """How many rows decide together."""
        return sum(row.primary for table in self.tables for row in table.rows)

    @property
    def worse(self) -> list[str]:
        """The figures that decide and are worse."""
        return [
            f"{row.metric.label} of {table.configuration} under {table.workload}"
            for table in self.tables
            for row in table.rows
            if row.primary and row.verdict == "worse"
        ]

    @property
    def undecided(self) -> list[str]:
        """The figures that decide and have no verdict, and what is not compared at all."""
        rows = [
            f"{row.metric.label} of {table.configuration} under {table.workload}: {row.verdict}"
            for table in self.tables
            for row in table.rows
            if row.primary and row.open
        ]
        return [*rows, *self.left_out]


def across(then: MeasuredRun, now: MeasuredRun, name: str) -> Across:
    """Compare a run with an earlier one. Pure: the same input, the same output.

    Margins, confidence and what decides are those of the newer run. Raises UserError, with the
    reasons, when nothing of them can be compared.
    """
    _check(then, now)
    settings = settings_of(now.document)
    before, after = _values(then), _values(now)
    left_out = list(_left_out(then, now, before, after))
    others = _other_traffic(then, now)
    places = [p for p in sorted(before.keys() & after.keys()) if p[2] not in others]
    if not places:
        why = "; ".join(left_out) or "neither has a valid trial"
        raise UserError(f"{now.run_id} can't be compared with {name}: {why}")
    tables = [_table(place, then, now, before[place], after[place], settings) for place in places]
    return Across(
        service=str(now.document["service"]),
        then_id=then.run_id,
        now_id=now.run_id,
        name=name,
        settings=settings,
        tables=tuple(_decided(tables, settings)),
        left_out=tuple(left_out),
        warnings=(*then.damage, *now.damage, *_residue(then, now), *_invalid(then, now)),
    )


def settings_of(document: dict[str, Any]) -> Settings:
    """How a run's matrix wants it decided."""
    asked = document["comparison"]
    return Settings(
        baseline="",
        confidence=asked["confidence"],
        primary=tuple(asked["primary"]),
        margins=dict(asked["margins"]),
    )


def _check(then: MeasuredRun, now: MeasuredRun) -> None:
    if then.run_id == now.run_id:
        raise UserError(f"{now.run_id} can't be compared with itself")
    services = [str(run.document["service"]) for run in (then, now)]
    if services[0] != services[1]:
        raise UserError(
            f"{now.run_id} measured {services[1]}, {then.run_id} {services[0]}: two services can't "
            "be compared"
        )


def _values(run: MeasuredRun) -> dict[Place, dict[str, list[float | None]]]:
    """Place → metric → a value for each counted trial."""
    found: dict[Place, dict[str, list[float | None]]] = {}
    for m in run.measurements:
        place = (m.os, m.node_class, m.workload, m.configuration)
        found.setdefault(place, defaultdict(list))[m.metric].append(m.value)
    return found


def _left_out(
    then: MeasuredRun, now: MeasuredRun, before: dict[Place, Any], after: dict[Place, Any]
) -> Iterator[str]:
    """What of the two runs has nothing to be held against, and why."""
    yield from _other_traffic(then, now).values()
    planned_then, planned_now = (planned_places(r.document, r.records) for r in (then, now))
    known_then, known_now = planned_then | before.keys(), planned_now | after.keys()
    for index, what in enumerate(("system", "node class", "workload", "configuration")):
        theirs = {place[: index + 1] for place in known_then}
        for place in sorted({place[: index + 1] for place in known_now} - theirs):
            if place[:index] in {known[:index] for known in theirs}:
                yield f"{what} {place[-1]} is not in {then.run_id}"
    for index, what in ((2, "workload"), (3, "configuration")):
        ours = {place[: index + 1] for place in known_now}
        for place in sorted({place[: index + 1] for place in known_then} - ours):
            if place[:index] in {known[:index] for known in ours}:
                yield f"{what} {place[-1]} is not in {now.run_id}"
    for run, planned, measured in ((then, planned_then, before), (now, planned_now, after)):
        for place in sorted(planned - measured.keys()):
            yield f"{without_trial(place)} in {run.run_id}"


def _other_traffic(then: MeasuredRun, now: MeasuredRun) -> dict[str, str]:
    """Workloads of one name that are not the same traffic: name → why not."""
    theirs, ours = (traffic_of_run(run.document, run.records) for run in (then, now))
    return {
        name: f"workload {name} is other traffic in {then.run_id}: {', '.join(differing)}"
        for name, differing in other_traffic(theirs, ours).items()
    }


def _table(
    place: Place,
    then: MeasuredRun,
    now: MeasuredRun,
    before: dict[str, list[float | None]],
    after: dict[str, list[float | None]],
    settings: Settings,
) -> AcrossTable:
    system, node_class, workload, configuration = place
    rows = [
        _row(metric, before.get(metric.name), after.get(metric.name), settings, system)
        for metric in metrics_on(system)
        if metric.name in before or metric.name in after
    ]
    return AcrossTable(
        workload=workload,
        node_class=node_class,
        os=system,
        configuration=configuration,
        then=max(map(len, before.values())),
        now=max(map(len, after.values())),
        rows=tuple(rows),
        changed=tuple(_changed(place, then, now)),
    )


def _row(
    metric: Metric,
    before: list[float | None] | None,
    after: list[float | None] | None,
    settings: Settings,
    system: str,
) -> Row:
    """A row without its verdict, which takes all rows."""
    first = [value for value in before or () if value is not None]
    second = [value for value in after or () if value is not None]
    relative = bool(first and second) and min(*first, *second, math.inf) > 0
    shift = _shift(first, second, settings.confidence, relative=relative)
    return Row(
        metric=metric,
        baseline=median(first) if first else None,
        candidate=median(second) if second else None,
        change=_as_change(shift.shift, relative=relative) if shift else None,
        relative=relative,
        p=shift.p if shift else None,
        p_adjusted=shift.p if shift else None,
        pairs=min(len(first), len(second)),
        values=(len(first), len(second)),
        primary=settings.decides(metric, system),
        verdict=_verdict(metric, first, second, shift, settings, relative=relative),
    )


def _shift(
    first: list[float], second: list[float], confidence: float, *, relative: bool
) -> Shift | None:
    if not first or not second:
        return None
    if relative:
        first, second = [math.log(v) for v in first], [math.log(v) for v in second]
    return shift_between(first, second, confidence)


def _as_change(shift: Interval, *, relative: bool) -> Interval:
    if not relative:
        return shift
    return Interval(*(_factor(value) for value in (shift.estimate, shift.low, shift.high)))


def _factor(value: float) -> float:
    """A log ratio as a change; a bound that does not exist stays infinite."""
    if value == -math.inf:
        return value
    return math.expm1(value) if value < 700 else math.inf


def _verdict(
    metric: Metric,
    first: list[float],
    second: list[float],
    shift: Shift | None,
    settings: Settings,
    *,
    relative: bool,
) -> str:
    """The verdict by this row's own p; too few trials and corrections come later."""
    if shift is None:
        if not first and not second:
            return f"n/a ({metric.absent})" if metric.absent else "invalid (no trial has it)"
        return f"n/a (only in the {'newer' if second else 'earlier'} run)"
    if metric.direction == "none":
        return ""
    margin = settings.margins.get(metric.name)
    if margin and relative:
        logs = [math.log(v) for v in first], [math.log(v) for v in second]
        low, high = math.log1p(-margin), math.log1p(margin)
        if within(*logs, low, high, settings.confidence):
            return f"equivalent (±{margin * 100:g} %)"
    excludes_zero = shift.shift.low > 0 or shift.shift.high < 0
    if shift.p > settings.alpha * (1 + 1e-12) or not excludes_zero:
        return "no difference shown"
    return "better" if (shift.shift.estimate > 0) == (metric.direction == "higher") else "worse"


def _decided(tables: Sequence[AcrossTable], settings: Settings) -> Iterator[AcrossTable]:
    """Holm over the rows that decide, in all tables; and what too few trials can't decide."""
    deciding = [
        row.p for table in tables for row in table.rows if row.primary and row.p is not None
    ]
    corrected = iter(holm(deciding))
    for table in tables:
        rows = []
        for row in table.rows:
            decides = row.primary and row.p is not None
            p = next(corrected) if decides else row.p
            rows.append(_settled(row, p, settings, len(deciding) if decides else 1))
        yield replace(table, rows=tuple(rows))


def _settled(row: Row, p: float | None, settings: Settings, family: int) -> Row:
    """The verdict after correction. A trial may lack the figure: the row's own values count."""
    verdict, level = row.verdict, settings.alpha * (1 + 1e-12)
    if verdict in ("better", "worse", "no difference shown"):
        if smallest_p(*row.values) > level / family:
            verdict = f"needs {trials_at_least(settings.confidence, family)} trials"
        elif p is not None and p > level:
            verdict = "no difference shown"
    return replace(row, p_adjusted=p, verdict=verdict)


def trials_at_least(confidence: float, contrasts: int) -> int:
    """The fewest trials in each of two runs of the same size with which a verdict is possible."""
    allowed = (1 - confidence) / max(1, contrasts) * (1 + 1e-9)
    return next(n for n in range(2, TRIALS_MAX) if smallest_p(n, n) <= allowed)


def _changed(place: Place, then: MeasuredRun, now: MeasuredRun) -> list[str]:
    """What a configuration was built and run with, then and now."""
    return differences(_set_up(place, then), _set_up(place, now))


def _set_up(place: Place, run: MeasuredRun) -> dict[str, Any]:
    for record in run.records:
        if (record.os, record.node_class, record.workload, record.configuration) == place:
            return set_up_of(record)
    return {}


def _residue(then: MeasuredRun, now: MeasuredRun) -> Iterator[str]:
    """What may move a figure and is in no column, where the runs differ in it."""
    classes = {r.node_class for r in then.records} & {r.node_class for r in now.records}
    for node_class in sorted(classes):
        for what, of in RESIDUE.items():
            before, after = (
                sorted({str(of(r)) for r in run.records if r.valid and r.node_class == node_class})
                for run in (then, now)
            )
            if before and after and before != after:
                yield (
                    f"the runs differ on {node_class} in {what}: {', '.join(before)}, "
                    f"now {', '.join(after)}"
                )


def _invalid(then: MeasuredRun, now: MeasuredRun) -> Iterator[str]:
    for run in (then, now):
        number = sum(not record.valid for record in run.records)
        if number:
            yield f"{counted(number, 'trial')} of {run.run_id} not counted: bench show {run.run_id}"

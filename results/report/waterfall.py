"""Which factor did how much: from the baseline, one factor after the other, to their bundle.

A configuration that differs from the baseline in one factor tells what that factor does alone; one
that sets several of them at once tells what they do together. Changes multiply, so on a log axis
each factor's step is equally long wherever it stands, and what is left between the last step and
the bundle is what no factor does alone. Changes are those of the comparison; only that rest, which
is not tested, is reckoned here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from results.comparing.ablation import settings_of
from results.record import TrialRecord
from results.report.forest import minus

Factor = tuple[str, str]
"""What is set (`env.GOGC`, `go`, `build`) and to what."""


@dataclass(frozen=True, slots=True)
class Step:
    """One step, as factors of the baseline: from `start` to `end`, which lies in `low` … `high`.

    `kind` is whole (the baseline and the bundle), factor, or rest.
    """

    label: str
    kind: str
    start: float
    end: float
    low: float | None = None
    high: float | None = None
    verdict: str = ""


@dataclass(frozen=True, slots=True)
class Bundle:
    """A configuration that sets several factors, and those that set one of them each."""

    configuration: str
    parts: tuple[tuple[Factor, str], ...]
    missing: tuple[str, ...]
    """Factors of the bundle that no configuration sets alone."""


def bundles(records: Sequence[TrialRecord], configurations: Sequence[str]) -> list[Bundle]:
    """Those of one node class and workload that at least two others take apart."""
    told = _told(records)
    base = next((r.configuration for r in records if r.baseline), None)
    if base not in told:
        return []
    differing = {name: _changed(told[base], own) for name, own in told.items() if name != base}
    # What belongs to no factor must be the same.
    changed = {n: own for n, own in differing.items() if not any(f == "other" for f, _ in own)}
    singles = {next(iter(f)): name for name, f in changed.items() if len(f) == 1}
    found = []
    for name in configurations:
        factors = sorted(changed.get(name, ()))
        known = ((f, singles[f]) for f in factors if f in singles)
        parts = tuple(sorted(known, key=lambda part: configurations.index(part[1])))
        if len(factors) > 1 and len(parts) > 1:
            missing = tuple(what for what, value in factors if (what, value) not in singles)
            found.append(Bundle(name, parts, missing))
    return found


def _told(records: Sequence[TrialRecord]) -> dict[str, Mapping[str, str]]:
    """What each configuration sets; one whose trials were not all told the same is left out."""
    found: dict[str, list[Mapping[str, str]]] = {}
    for record in records:
        found.setdefault(record.configuration, []).append(settings_of(record))
    return {n: own[0] for n, own in found.items() if all(other == own[0] for other in own)}


def _changed(base: Mapping[str, str], own: Mapping[str, str]) -> frozenset[Factor]:
    """In what a configuration differs from the baseline; flags of the build are one factor."""
    names = {n for n in base.keys() | own.keys() if base.get(n) != own.get(n)}
    flags = sorted(name for name in names if name.startswith("build."))
    if flags or "go" in names:
        # Another release or flag makes another binary.
        names -= {"binary"}
    together = " ".join(f"{n.removeprefix('build.')}={own.get(n, 'not set')}" for n in flags)
    factors = {(name, own.get(name, "not set")) for name in names - set(flags)}
    return frozenset(factors | ({("build", together)} if flags else set()))


def steps(bundle: Bundle, rows: Mapping[str, dict[str, Any]], baseline: str) -> list[Step]:
    """The steps of one metric: `rows` are its rows of the comparison, by configuration.

    No steps where a change is not known or not relative.
    """
    wanted = [name for _, name in bundle.parts] + [bundle.configuration]
    if not all(name in rows and _is_known(rows[name]) for name in wanted):
        return []
    return list(_steps(bundle, rows, baseline))


def _is_known(row: dict[str, Any]) -> bool:
    return bool(row["relative"]) and row["change"] is not None and row["change"] > -1


def _steps(bundle: Bundle, rows: Mapping[str, dict[str, Any]], baseline: str) -> Iterator[Step]:
    yield Step(baseline, "whole", 1.0, 1.0)
    at = 1.0
    for factor, name in bundle.parts:
        step = _step(told_factor(factor), "factor", at, rows[name])
        yield step
        at = step.end
    last = rows[bundle.configuration]
    yield Step(" and ".join([*bundle.missing, "together"]), "rest", at, 1 + last["change"])
    yield replace(_step(bundle.configuration, "whole", 1.0, last), start=1 + last["change"])


def _step(label: str, kind: str, at: float, row: dict[str, Any]) -> Step:
    """A change of the comparison from `at` on; a bound that does not exist is none."""
    low, high = (
        None if row[n] is None else at * (1 + row[n]) for n in ("change_low", "change_high")
    )
    return Step(label, kind, at, at * (1 + row["change"]), low, high, row["verdict"])


def told_factor(factor: Factor) -> str:
    """A factor as a person writes it: `GOGC=30`, `Go 1.23.9`, `flags ldflags=-s -w`."""
    what, value = factor
    if what == "go":
        return f"Go {value}"
    if what == "build":
        return f"flags {value}"
    return f"{what.removeprefix('env.').removeprefix('limits.')}={value}"


def told_step(step: Step) -> str:
    """The change of a step: `-30.1 %`; of a whole, that against the baseline."""
    change = step.end / step.start if step.kind != "whole" else step.end
    return minus(f"{(change - 1) * 100:+z.1f} %")

"""Which trials belong together: one configuration under one kind of traffic on one node class."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from results.errors import UserError
from results.forecast.observations import Observation, names_of
from results.metrics import counted


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What is to be forecast; None is not asked for, and stays as it was measured.

    `gogc` is in percent and infinite for off, `memlimit_bytes` infinite for none.
    """

    metrics: tuple[str, ...] = ("peak_rss", "gc_cpu_share")
    configurations: tuple[str, ...] = ()
    workloads: tuple[str, ...] = ()
    node_class: str = ""
    rate_rps: float | None = None
    live_bytes: float | None = None
    gogc: float | None = None
    memlimit_bytes: float | None = None
    confidence: float = 0.9

    @property
    def environment(self) -> bool:
        """Whether another setting of the collector is asked for."""
        return self.gogc is not None or self.memlimit_bytes is not None

    @property
    def heap(self) -> bool:
        """Whether the heap's goal is another one than was measured."""
        return self.environment or self.live_bytes is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """The trials of a forecast, the oldest first; `base` is the latest of its configuration.

    `left_out` says which trials of the configuration do not answer the same question.
    """

    base: Observation
    trials: tuple[Observation, ...]
    left_out: str = ""


def subjects(found: Sequence[Observation], asked: Asked) -> list[Subject]:
    """What can be forecast, by configuration and traffic. Raises UserError when nothing fits."""
    meant = [o for o in found if _is_meant(o, asked)]
    groups: dict[tuple[str, ...], list[Observation]] = defaultdict(list)
    for own in meant:
        if not asked.configurations or own.configuration in asked.configurations:
            traffic = (own.facts["machines"], own.facts["scenario"], own.facts["arrivals"])
            groups[own.configuration, *traffic].append(own)
    if not groups:
        there = names_of(found) or "none of steady arrivals"
        raise UserError(f"no valid trial fits; there are {there}")
    return [_subject(own, meant, asked) for _, own in sorted(groups.items())]


def _is_meant(own: Observation, asked: Asked) -> bool:
    return (
        not asked.workloads or own.workload in asked.workloads
    ) and asked.node_class.lower() in own.node_class.lower()


def _subject(own: Sequence[Observation], meant: Iterable[Observation], asked: Asked) -> Subject:
    base = own[-1]
    candidates = meant if asked.heap else own
    trials = tuple(o for o in candidates if not list(_differences(base, o, asked)))
    other = [o for o in own if o not in trials]
    return Subject(base=base, trials=trials, left_out=_left_out(base, other, asked))


def _differences(base: Observation, other: Observation, asked: Asked) -> Iterator[str]:
    """In what a trial answers another question than the base."""
    free = {"arguments"} if asked.live_bytes is not None else set()
    for what in base.facts.keys() - free:
        if base.facts[what] != other.facts.get(what):
            yield what
    if not asked.environment:
        if base.gogc != other.gogc:
            yield "GOGC"
        if base.memlimit_bytes != other.memlimit_bytes:
            yield "GOMEMLIMIT"


def _left_out(base: Observation, other: Sequence[Observation], asked: Asked) -> str:
    if not other:
        return ""
    what = sorted({word for o in other for word in _differences(base, o, asked)})
    return (
        f"{counted(len(other), 'trial')} of {base.configuration} left out, as "
        f"{'it was' if len(other) == 1 else 'they were'} measured with other {', '.join(what)}"
    )

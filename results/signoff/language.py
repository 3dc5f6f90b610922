"""An objective as one writes it → `Objective`; what is wrong is told with what would be right.

peak_rss <= 1.3GiB                  p99 <= 40ms            errors <= 0.1%
peak_rss better by >= 30%           p99 not worse by > 5%
headroom >= 20%                     capacity >= 800/s
no_leak                             no_leak over 24h
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from typing import Any, Final

from results import units
from results.metrics import METRICS, Metric
from results.signoff.objectives import Kind, Objective

SHORT_NAMES: Final = {
    "p50": "latency_p50",
    "p99": "latency_p99",
    "p999": "latency_p999",
    "errors": "error_share",
    "gc_cpu": "gc_cpu_share",
    "cpu": "cpu_cores",
}
"""Other names of metrics, as people say them."""

_LIMIT = re.compile(r"(?P<name>[\w.]+)\s*(?P<sign><=|>=|<|>|==?|≤|≥)\s*(?P<value>.+)")
_BETTER = re.compile(r"(?P<name>[\w.]+)\s+better\s+by\s*(?P<sign>>=|≥|>)\s*(?P<value>.+)")
_NOT_WORSE = re.compile(r"(?P<name>[\w.]+)\s+not\s+worse\s+by\s*(?P<sign>>)\s*(?P<value>.+)")
_CAPACITY = re.compile(r"capacity\b\s*(?P<rest>.*)")
_AT_LEAST = re.compile(r"(?:>=|≥)\s*(?P<value>.+)")
_NO_LEAK = re.compile(r"no_leak(?:\s+over\s+(?P<value>.+))?")
_FORMS = (
    "write for example `peak_rss <= 1.3GiB`, `peak_rss better by >= 30%`, "
    "`p99 not worse by > 5%`, `capacity >= 800/s` or `no_leak`"
)


def parse_objective(text: Any, **more: Any) -> Objective:
    """One objective; `more` are its other fields. Raises ValueError with what would be right."""
    if not isinstance(text, str):
        raise ValueError(f"{units.shortened(text)} is no objective; {_FORMS}")
    text = " ".join(text.split())
    if found := _NO_LEAK.fullmatch(text):
        seconds = units.duration_ns(found["value"]) / 1e9 if found["value"] else 0.0
        return Objective(text, "no_leak", bound=seconds, **more)
    if found := _CAPACITY.fullmatch(text):
        return Objective(text, "capacity", bound=_capacity(found["rest"]), at_most=False, **more)
    for pattern, read in ((_BETTER, _better), (_NOT_WORSE, _not_worse), (_LIMIT, _limit)):
        if found := pattern.fullmatch(text):
            metric = _metric(found["name"])
            kind, bound, at_most = read(metric, found["sign"], found["value"])
            return Objective(text, kind, metric.name, bound, at_most, **more)
    raise ValueError(f"{units.shortened(text)} is no objective; {_FORMS}")


def _capacity(text: str) -> float:
    """At least so many requests per second."""
    found = _AT_LEAST.fullmatch(text)
    if not found:
        raise ValueError("a capacity is searched for, and more is better: write capacity >= 800/s")
    return units.rate_rps(found["value"].strip())


def objective_from_plain(data: Mapping[str, Any]) -> Objective:
    """An objective of a run's document or of a record. Raises ValueError when it is none."""
    severity = data["severity"]
    if severity not in ("block", "warn"):
        raise ValueError(f"{severity!r} is no severity")
    return parse_objective(
        data["text"],
        severity=severity,
        configurations=tuple(map(str, data["configurations"])),
        workloads=tuple(map(str, data["workloads"])),
    )


def _metric(name: str) -> Metric:
    found = METRICS.get(SHORT_NAMES.get(name, name))
    if found is None:
        known = [*METRICS, *SHORT_NAMES, "capacity"]
        near = difflib.get_close_matches(name, known, 1, 0.4)
        hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
        raise ValueError(f"there is no metric {name!r}; {hint}")
    return found


def _limit(metric: Metric, sign: str, value: str) -> tuple[Kind, float, bool]:
    sign = {"≤": "<=", "≥": ">="}.get(sign, sign)
    if sign not in ("<=", ">="):
        raise ValueError(f"{sign!r} does not say what a limit is; write <= or >=")
    worse = {"lower": ">=", "higher": "<="}.get(metric.direction)
    if sign == worse:
        right = "<=" if sign == ">=" else ">="
        raise ValueError(
            f"{metric.name} is better when it is {metric.direction}: write {metric.name} {right} …"
        )
    return "limit", _in_unit(metric, value.strip()), sign == "<="


def _in_unit(metric: Metric, value: str) -> float:
    """A value in the metric's own unit."""
    if metric.unit == "bytes":
        return units.size_bytes(value)
    if metric.unit == "ns":
        return units.duration_ns(value)
    if metric.unit == "fraction":
        return _percent(value)
    if metric.unit == "/s":
        return units.rate_rps(value)
    return units.number(value)


def _percent(value: str) -> float:
    found = re.fullmatch(r"([0-9]{1,4}(?:\.[0-9]{1,9})?)\s*%", value)
    if not found:
        raise ValueError(f"{units.shortened(value)} is not a share; write for example 2%")
    return float(found[1]) / 100


def _better(metric: Metric, sign: str, value: str) -> tuple[Kind, float, bool]:
    if sign == ">":
        raise ValueError("write `better by >= …`: it says how much at least")
    share = _percent(value)
    if metric.direction == "lower" and share >= 1:
        raise ValueError(f"{metric.name} can't become better by {value}: nothing would be left")
    return "change", -share, _has_a_better_side(metric)


def _not_worse(metric: Metric, sign: str, value: str) -> tuple[Kind, float, bool]:
    return "change", _percent(value), _has_a_better_side(metric)


def _has_a_better_side(metric: Metric) -> bool:
    if metric.direction == "none":
        raise ValueError(f"{metric.name} has no better side; write a limit with <= or >=")
    return True

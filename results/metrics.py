"""The metrics of a trial: what is compared, in which unit, and which direction is better.

Their values come from the SQL view `trial_metrics`; this is their vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal

Group = Literal["memory", "price", "load", "build"]
Direction = Literal["lower", "higher", "none"]
System = Literal["linux", "windows"]
SYSTEMS: Final[tuple[System, ...]] = ("linux", "windows")
_LINUX: Final[tuple[System, ...]] = ("linux",)
_WINDOWS: Final[tuple[System, ...]] = ("windows",)


@dataclass(frozen=True, slots=True)
class Metric:
    """One figure of a trial; `none` is told without a verdict. It exists on its `systems` only.

    Metrics of one `kind` on several systems are counterparts: they answer the same question by
    other quantities, so only their ratios may stand beside each other. One that is named in a
    matrix stands for its counterpart where it does not exist itself.
    """

    name: str
    label: str
    unit: str
    direction: Direction
    group: Group
    meaning: str
    absent: str = ""
    """Why no trial may have it."""
    systems: tuple[System, ...] = SYSTEMS
    kind: str = ""
    needs_limit: bool = False
    """Only trials that asked for a hard memory limit have it, or a word why not."""

    def __post_init__(self) -> None:
        """A metric of all systems is its own kind."""
        if not self.kind:
            object.__setattr__(self, "kind", self.name)


_ALL: Final = (
    Metric(
        "initial_rss", "initial RSS", "bytes", "lower", "memory",
        "resident memory at rest: median of the second half of idle, before any load",
        systems=_LINUX, kind="initial_resident",
    ),
    Metric(
        "peak_rss", "peak RSS", "bytes", "lower", "memory",
        "the kernel's own peak of resident memory in measure (VmHWM), main process; "
        "on Windows `peak_working_set` decides in its place",
        "no peak of a phase",
        systems=_LINUX, kind="peak_resident",
    ),
    Metric(
        "peak_cgroup", "peak cgroup usage", "bytes", "lower", "memory",
        "the kernel's own peak of what a container limit counts, in measure",
        "no cgroup",
        systems=_LINUX, kind="peak_limited",
    ),
    Metric(
        "initial_working_set", "initial working set", "bytes", "lower", "memory",
        "resident memory at rest, as Windows counts it: median of the second half of idle",
        systems=_WINDOWS, kind="initial_resident",
    ),
    Metric(
        "initial_commit", "initial commit", "bytes", "lower", "memory",
        "memory that Windows has promised to back, at rest: median of the second half of idle",
        systems=_WINDOWS,
    ),
    Metric(
        "peak_working_set", "peak working set", "bytes", "lower", "memory",
        "resident memory in measure: the kernel's mark (main process) where it rose in measure, "
        "else the greatest sample, a lower bound; `trials.peak_working_set_from` says which. "
        "Trimming lowers it and saves nothing: read it with peak commit",
        "no peak of a phase",
        systems=_WINDOWS, kind="peak_resident",
    ),
    Metric(
        "peak_commit", "peak commit", "bytes", "lower", "memory",
        "private commit in measure: from the kernel's mark or the greatest sample, as the "
        "peak working set",
        "no peak of a phase",
        systems=_WINDOWS,
    ),
    Metric(
        "peak_job", "peak job commit", "bytes", "lower", "memory",
        "the kernel's mark of the job object's commit, which a memory limit counts, where it rose "
        "in measure",
        "the mark did not rise in measure",
        systems=_WINDOWS, kind="peak_limited",
    ),
    Metric(
        "headroom", "headroom", "fraction", "higher", "memory",
        "share of the hard memory limit (`limits.memory_max`) that was not used at the peak in "
        "measure, by the kernel's own peak of what the limit counts: cgroup usage; on Windows the "
        "job's commit. Where that peak can only be told since the start, it is: the headroom in "
        "measure was then no less. Only trials with such a limit have it",
        "the limit is not in force, or its kernel tells no peak",
        needs_limit=True,
    ),
    Metric(
        "gc_cpu_share", "GC CPU", "fraction", "lower", "price",
        "CPU time of collections (stops, assists, dedicated workers) per CPU time of the service",
        "no GC trace or CPU times, or more GC than CPU time",
    ),
    Metric(
        "gc_cycles", "GC cycles", "", "none", "price",
        "garbage collections in measure",
        "no GC trace",
    ),
    Metric(
        "cpu_cores", "CPU used", "cores", "lower", "price",
        "CPU time of the service per second of measure",
        "no CPU times",
    ),
    Metric(
        "latency_p50", "latency p50", "ns", "lower", "price",
        "from the intended start of a request to its last byte",
    ),
    Metric(
        "service_p50", "service time p50", "ns", "lower", "price",
        "from the real start of a request to its last byte",
    ),
    Metric("latency_p99", "latency p99", "ns", "lower", "price", "as latency p50",
        "< 1k requests"),
    Metric("service_p99", "service time p99", "ns", "lower", "price", "as service time p50",
        "< 1k requests"),
    Metric("latency_p999", "latency p99.9", "ns", "lower", "price", "as latency p50",
        "< 10k requests"),
    Metric("service_p999", "service time p99.9", "ns", "lower", "price", "as service time p50",
        "< 10k requests"),
    Metric(
        "throughput", "throughput", "/s", "higher", "load",
        "successful answers that came in per second of measure",
    ),
    Metric(
        "error_share", "errors", "fraction", "lower", "load",
        "failed requests per request in measure",
    ),
    Metric(
        "binary_size", "binary size", "bytes", "lower", "build",
        "size of the program's file",
    ),
)  # fmt: skip

METRICS: Final = {metric.name: metric for metric in _ALL}


def metrics_on(system: str) -> list[Metric]:
    """The metrics of a system, in the order of the tables."""
    return [metric for metric in _ALL if system in metric.systems]


def usual_on(system: str) -> list[Metric]:
    """Those of them that a trial has without any limit."""
    return [metric for metric in metrics_on(system) if not metric.needs_limit]


def named_on(system: str, names: Iterable[str]) -> tuple[str, ...]:
    """Metrics as a matrix names them, for one system: each itself, or its counterpart there.

    What has neither is left out. Each stands once, in the order of `names`.
    """
    found: dict[str, None] = {}
    for name in names:
        kind = METRICS[name].kind if name in METRICS else name
        own = (m.name for m in metrics_on(system) if name == m.name or kind == m.kind)
        found |= dict.fromkeys(own)
    return tuple(found)


def counted(number: int, noun: str) -> str:
    """A number with its noun: `1 block`, `6 blocks`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def format_value(metric: Metric, value: float | None) -> str:
    """A value for a person, with its unit; a dash for none."""
    if value is None:
        return "–"
    if metric.unit == "bytes":
        return format_bytes(value)
    if metric.unit == "ns":
        return format_time(value)
    if metric.unit == "fraction":
        return f"{value * 100:.2f} %" if value < 0.1 else f"{value * 100:.1f} %"
    if metric.unit == "cores":
        return f"{value:.2f}"
    return f"{value:,.0f}{metric.unit}"


def format_change(metric: Metric, value: float, *, relative: bool) -> str:
    """A signed change: percent of the baseline, or a difference (`pp` are percentage points)."""
    if relative:
        return f"{value * 100:+z.1f} %"
    if metric.unit == "fraction":
        return f"{value * 100:+z.2f} pp"
    text = format_value(metric, abs(value))
    # As with z above: what is shown as nothing has no sign but the usual one.
    return f"{'-' if value < 0 and text.strip('0., ') else '+'}{text}"


def format_bytes(value: float) -> str:
    """IEC units with one decimal, as in `1,280.0 MiB` and `8.5 KiB`."""
    for unit, size in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        # MiB up to ten GiB: two columns of one table then share a unit.
        if abs(value) >= size * (10 if unit == "GiB" else 1):
            return f"{value / size:,.1f} {unit}"
    return f"{value:,.0f} B"


def format_time(value_ns: float) -> str:
    """Three significant digits in µs, ms or s."""
    for unit, size in (("s", 1e9), ("ms", 1e6)):
        # From where three digits of the smaller unit would round up to 1e+03.
        if abs(value_ns) >= size * 0.9995:
            shown = value_ns / size
            return f"{shown:,.0f} {unit}" if abs(shown) >= 999.5 else f"{shown:.3g} {unit}"
    return f"{value_ns / 1e3:.3g} µs"

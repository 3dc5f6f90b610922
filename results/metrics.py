"""The metrics of a trial: what is compared, in which unit, and which direction is better.

Their values come from the SQL view `trial_metrics`; this is their vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

Group = Literal["memory", "price", "load", "build"]
Direction = Literal["lower", "higher", "none"]


@dataclass(frozen=True, slots=True)
class Metric:
    """One figure of a trial; `none` is told without a verdict."""

    name: str
    label: str
    unit: str
    direction: Direction
    group: Group
    meaning: str
    absent: str = ""
    """Why no trial may have it."""


_ALL: Final = (
    Metric(
        "initial_rss", "initial RSS", "bytes", "lower", "memory",
        "resident memory at rest: median of the second half of idle, before any load",
    ),
    Metric(
        "peak_rss", "peak RSS", "bytes", "lower", "memory",
        "the kernel's own peak of resident memory in measure (VmHWM), main process",
        "no peak of a phase",
    ),
    Metric(
        "peak_cgroup", "peak cgroup usage", "bytes", "lower", "memory",
        "the kernel's own peak of what a container limit counts, in measure",
        "no cgroup",
    ),
    Metric(
        "gc_cpu_share", "GC CPU", "fraction", "lower", "price",
        "CPU time of collections (stops, assists, dedicated workers) per CPU time of the service",
        "no GC trace",
    ),
    Metric(
        "gc_cycles", "GC cycles", "", "none", "price",
        "garbage collections in measure",
        "no GC trace",
    ),
    Metric(
        "cpu_cores", "CPU used", "cores", "lower", "price",
        "CPU time of the service per second of measure",
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

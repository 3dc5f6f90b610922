"""The figures of the page in their order: charts, words beside them, a table, the SQL behind."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, Final

import pyarrow as pa

from results.metrics import format_bytes, format_time, named_on
from results.report import change_charts, charts, latency_charts
from results.report.charts import Palette
from results.report.course_figures import course_figures
from results.report.data import Panel, ReportData
from results.report.factor_figures import factor_figures
from results.report.facts import cut_off, grid_of
from results.report.figure import Figure
from results.report.forest import minus
from results.report.grid import Grid
from results.report.profile_figures import profile_figures

GRID_ROWS_MAX: Final = 60
_GO_SIZE: Final = re.compile(r"(\d+)(B|KiB|MiB|GiB|TiB)?")
_GO_UNITS: Final = {"": 1, "B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}
_NO_LIMITS: Final = pa.table({"configuration": pa.array([], pa.string())})


def figures(data: ReportData) -> list[Figure]:
    """All figures of a run; a figure without any rows is left out."""
    palette = Palette(tuple(data.configurations))
    made: list[Figure] = []
    for number, panel in enumerate(data.panels):
        title = f" ({panel[1]}, {panel[0]})" if len(data.panels) > 1 else ""
        found = [
            *_ablation(data, palette, panel),
            *_memory(data, palette, panel),
            *_latency(data, palette, panel),
            *_gc(data, palette, panel),
            *profile_figures(data, panel),
            *course_figures(data, palette, panel),
        ]
        made += [_placed(figure, number, title) for figure in found]
    return made


def _placed(figure: Figure, number: int, title: str) -> Figure:
    """Names are unique on the page: those of a panel carry its number."""
    own = tuple(replace(chart, name=f"{chart.name}-{number}") for chart in figure.charts)
    name = f"{figure.name}-{number}"
    return replace(figure, name=name, title=figure.title + title, charts=own)


def _ablation(data: ReportData, palette: Palette, panel: Panel) -> Iterator[Figure]:
    if len(data.configurations) <= 2:
        return
    rows = data.answers["comparison"].of(panel)
    primary = named_on(data.system_of(panel), data.comparison.settings.primary)
    found = [chart for m in primary if (chart := change_charts.ablation_chart(palette, rows, m))]
    if found:
        yield Figure(
            "ablation",
            "comparison",
            "Each configuration against the baseline",
            "Change of what decides, with its interval; the shape tells the verdict. The numbers "
            "are in the tables below.",
            tuple(found),
            (),
            ("comparison",),
        )
    yield from factor_figures(data, palette, panel, primary)


def _memory(data: ReportData, palette: Palette, panel: Panel) -> Iterator[Figure]:
    samples = data.answers["memory_over_time"].of(panel)
    phases = data.answers["phase_spans"].of(panel)
    if not samples.num_rows:
        return
    windows = data.system_of(panel) == "windows"
    limits, beyond = _limits(data, samples["resident_bytes"], panel)
    resident = "The working set" if windows else "Resident memory"
    caption = (
        f"{resident} of the whole process tree, one line for each trial, moved so that phase "
        "measure begins at 0 (one that never measured ends there). Between samples a peak can "
        "hide: the kernel's own peaks are in the table. A dashed line is a trial that does "
        "not count; ✕ is a death or an OOM kill."
    )
    marks = data.answers["memory_marks"].of(panel)
    yield Figure(
        "memory",
        "memory",
        "Memory over time",
        " ".join([caption, *beyond]),
        (charts.memory_chart(palette, samples, phases, marks, limits),),
        (_memory_grid(data.answers["memory_by_trial"].of(panel), windows=windows),),
        ("memory_over_time", "memory_by_trial", "phase_spans", "memory_marks"),
    )
    yield from _commit(data, palette, panel)
    cycles = data.answers["gc_cycles"].of(panel)
    if cycles.num_rows:
        yield Figure(
            "gc-cycles",
            "memory",
            "When the collector ran",
            "One row for each trial (block and position), one tick for each garbage collection; "
            "close ticks are drawn as one. It moves and zooms with the chart above.",
            (charts.gc_strip(palette, cycles, phases, samples),),
            (_cycle_grid(cycles),),
            ("gc_cycles",),
        )


def _commit(data: ReportData, palette: Palette, panel: Panel) -> Iterator[Figure]:
    """Windows: what a trimmed working set does not show."""
    samples = data.answers["commit_over_time"].of(panel)
    if not samples.num_rows:
        return
    phases = data.answers["phase_spans"].of(panel)
    limits, beyond = _limits(data, samples["commit_bytes"], panel, hard=True)
    caption = (
        "Memory that Windows has promised to back, of the whole process tree. A working set can be "
        "trimmed without saving anything: what is saved falls here too. It moves and zooms with "
        "the chart above."
    )
    yield Figure(
        "commit",
        "memory",
        "Commit over time",
        " ".join([caption, *beyond]),
        (charts.commit_chart(palette, samples, phases, limits),),
        (),
        ("commit_over_time",),
    )


_LINUX_GRID: Final = {
    "initial RSS": "initial_rss_bytes",
    "peak RSS": "peak_rss_bytes",
    "peak cgroup": "peak_cgroup_bytes",
    "greatest sample": "sampled_peak_bytes",
}
_WINDOWS_GRID: Final = {
    "initial working set": "initial_working_set_bytes",
    "peak working set": "peak_working_set_bytes",
    "greatest sample": "sampled_working_set_bytes",
    "initial commit": "initial_commit_bytes",
    "peak commit": "peak_commit_bytes",
    "its greatest sample": "sampled_commit_bytes",
    "peak job": "peak_job_bytes",
}


def _memory_grid(trials: pa.Table, *, windows: bool) -> Grid:
    columns = _WINDOWS_GRID if windows else _LINUX_GRID
    rows = tuple(
        (row["trial_id"], *(_bytes(row[n]) for n in columns.values()), row["exit_text"] or "–")
        for row in trials.to_pylist()
    )
    numbers = frozenset(range(1, len(columns) + 1))
    whole = Grid("Memory of each trial", ("trial", *columns, "ended"), rows, numbers)
    return cut_off(whole, GRID_ROWS_MAX)


def _bytes(value: int | None) -> str:
    return "–" if value is None else format_bytes(value)


def _limits(
    data: ReportData, samples: pa.ChunkedArray, panel: Panel, *, hard: bool | None = None
) -> tuple[pa.Table, list[str]]:
    """The limits that the chart can show, and words about those far above all samples.

    A hard limit counts commit on Windows: it is not in the chart of the working set.
    """
    highest = max(samples.to_pylist())
    hard = data.system_of(panel) == "linux" if hard is None else hard
    shown: list[dict[str, Any]] = []
    beyond: dict[tuple[str, int], list[str]] = {}
    column, last, said = 0, -highest, set()
    for value, kind, configuration in sorted(set(_all_limits(data, hard=hard))):
        if value <= 2.5 * highest:
            label = f"{kind} {format_bytes(value)}"
            if label not in said:
                # Words about limits that are close to each other stand side by side.
                column = column + 1 if value - last < highest * 0.06 else 0
                last = value
            row = {"configuration": configuration, "bytes": value, "column": column}
            shown.append(row | {"label": "" if label in said else label})
            said.add(label)
        else:
            beyond.setdefault((kind, value), []).append(configuration)
    words = [
        f"The {kind} of {' and '.join(names)}, {format_bytes(value)}, is far above the chart."
        for (kind, value), names in beyond.items()
    ]
    return (pa.Table.from_pylist(shown) if shown else _NO_LIMITS), words


def _all_limits(data: ReportData, *, hard: bool) -> Iterator[tuple[int, str, str]]:
    for row in data.answers["limits"].rows.to_pylist():
        if hard and row["name"] == "memory_max_bytes" and row["enforced"]:
            yield int(row["read_back"] or row["asked"]), "hard limit", row["configuration"]
    for record in data.records:
        for name, value in record.spec["service"].get("environment", ()):
            size = _GO_SIZE.fullmatch(value) if name == "GOMEMLIMIT" else None
            if size:
                yield int(size[1]) * _GO_UNITS[size[2] or ""], name, record.configuration


def _latency(data: ReportData, palette: Palette, panel: Panel) -> Iterator[Figure]:
    points = data.answers["latency_percentiles"].of(panel)
    if points.num_rows:
        yield Figure(
            "percentiles",
            "latency",
            "Latency by percentile",
            "Latency counts from when the schedule wanted a request sent (solid), service time "
            "from when it was really sent (dashed): the gap is waiting. Medians over trials; the "
            "band spans all trials. Paler where fewer than ten requests of a trial are slower.",
            (latency_charts.percentile_chart(palette, points),),
            (_percentile_grid(points),),
            ("latency_percentiles",),
        )
    seconds = data.answers["latency_over_time"].of(panel)
    if seconds.num_rows:
        yield Figure(
            "latency-over-time",
            "latency",
            "Latency over time",
            "p99 (solid) and p50 (dotted) of latency in each second, and p99 of service time "
            "(dashed): what lies between the two p99 is waiting. Medians over trials.",
            (latency_charts.over_time_chart(palette, seconds),),
            (_seconds_grid(seconds),),
            ("latency_over_time",),
        )
    cells = data.answers["latency_heat_map"].of(panel)
    maps = latency_charts.heat_maps(palette, cells)
    if maps:
        yield Figure(
            "heat",
            "latency",
            "Where the requests lie",
            "Requests of all counted trials by second and latency: the stronger the colour, the "
            "more (on a log scale). Single slow requests stay visible.",
            tuple(maps),
            (_heat_grid(cells, data.configurations),),
            ("latency_heat_map",),
        )


def _percentile_grid(points: pa.Table) -> Grid:
    wanted = {2.0: "p50", 10.0: "p90", 100.0: "p99", 1000.0: "p99.9", 10000.0: "p99.99"}
    lines: dict[tuple[str, str], dict[float, str]] = {}
    for row in points.to_pylist():
        line = lines.setdefault((row["configuration"], row["kind"]), {})
        few = " *" if row["slower"] < 10 else ""
        line[row["one_in"]] = format_time(row["median_ns"]) + few
    rows = [
        (f"{name}, {kind}", *(line.get(one_in, "–") for one_in in wanted))
        for (name, kind), line in lines.items()
    ]
    caption = "Median over trials (* fewer than ten requests of a trial are slower)"
    return grid_of(caption, ("configuration", *wanted.values()), rows)


def _seconds_grid(seconds: pa.Table) -> Grid:
    heads = ("configuration", "second", "p50", "p99", "service p99", "slowest", "requests/s")
    times = ("p50_ns", "p99_ns", "service_p99_ns", "slowest_ns")
    rows = [
        (
            row["configuration"],
            str(row["second"]),
            *(format_time(row[name]) for name in times),
            f"{row['requests']:,}",
        )
        for row in seconds.to_pylist()
    ]
    return cut_off(grid_of("Latency by second", heads, rows), GRID_ROWS_MAX)


def _cycle_grid(cycles: pa.Table) -> Grid:
    """Collections of each trial, warmup and all."""
    sums: dict[str, dict[str, float]] = {}
    for row in cycles.to_pylist():
        own = sums.setdefault(row["trial_id"], {"first": row["second"], "cycles": 0, "stop": 0})
        own["cycles"] += row["cycles"]
        own["stop"] = max(own["stop"], row["longest_stop_ns"] or 0)
        own["last"] = row["second"]
    rows = [
        (
            trial_id,
            f"{own['cycles']:,.0f}",
            minus(f"{own['first']:.2f} s"),
            minus(f"{own['last']:.2f} s"),
            format_time(own["stop"]),
        )
        for trial_id, own in sums.items()
    ]
    heads = ("trial", "cycles", "first", "last", "longest stop")
    return cut_off(grid_of("Collections of each trial, in all phases", heads, rows), GRID_ROWS_MAX)


def _heat_grid(cells: pa.Table, configurations: Sequence[str]) -> Grid:
    """How many requests of measure lie in which tenth of a decade."""
    sums: dict[tuple[int, int], dict[str, int]] = {}
    for row in cells.to_pylist():
        own = sums.setdefault((row["low_ns"], row["high_ns"]), {})
        own[row["configuration"]] = own.get(row["configuration"], 0) + row["requests"]
    rows = [
        (
            f"{format_time(low)} … {format_time(high)}",
            *(f"{sums[low, high].get(name, 0):,}" for name in configurations),
        )
        for low, high in sorted(sums)
    ]
    whole = grid_of("Requests by latency, all seconds", ("latency", *configurations), rows)
    return cut_off(whole, GRID_ROWS_MAX)


def _gc(data: ReportData, palette: Palette, panel: Panel) -> Iterator[Figure]:
    trials = data.answers["gc_cost"].of(panel)
    if not trials.num_rows:
        return
    asked = {"gc_cpu_share": "GC CPU, share of the service's", "cycles": "collections in measure"}
    known = {name: title for name, title in asked.items() if trials[name].null_count < len(trials)}
    yield Figure(
        "gc-cost",
        "gc",
        "What the collector cost",
        "One dot for each trial, a bar at the median. GC CPU is the CPU time of collections "
        "(stops, assists, dedicated workers) per CPU time of the service in phase measure.",
        tuple(charts.gc_chart(palette, trials, name, title) for name, title in known.items()),
        (_gc_grid(trials),),
        ("gc_cost",),
    )


def _gc_grid(trials: pa.Table) -> Grid:
    heads = ("trial", "GC CPU", "cycles", "GC CPU time", "stopped", "longest stop", "returned")
    rows = [
        (
            row["trial_id"],
            "–" if row["gc_cpu_share"] is None else f"{row['gc_cpu_share'] * 100:.2f} %",
            f"{row['cycles']:,}",
            *(
                "–" if row[name] is None else format_time(row[name])
                for name in ("gc_cpu_ns", "stopped_ns", "longest_stop_ns")
            ),
            _bytes(row["scavenged_bytes"]),
        )
        for row in trials.to_pylist()
    ]
    return cut_off(grid_of("Garbage collection of each trial", heads, rows), GRID_ROWS_MAX)

"""The verdict in plain sentences, from the comparison alone.

A sentence claims only what a verdict of the comparison says: without one it gives the estimate and
says that it decides nothing. Rows that do not decide (the price) are told as secondary.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Final

from results.comparing.compare import Comparison, Row, Table
from results.comparing.trimming import TRIMMED
from results.metrics import format_value

PRICE: Final = ("gc_cpu_share", "cpu_cores", "latency_p99", "throughput", "error_share")
"""What is told beside the metrics that decide, in this order."""

_NOUNS: Final = {
    "initial_rss": "initial memory",
    "peak_rss": "peak memory",
    "peak_cgroup": "peak container memory",
    "initial_working_set": "initial working set",
    "initial_commit": "initial commit",
    "peak_working_set": "peak working set",
    "peak_commit": "peak commit",
    "peak_job": "peak commit of the job",
    "gc_cpu_share": "GC CPU",
    "gc_cycles": "GC cycles",
    "cpu_cores": "CPU",
    "latency_p50": "p50 latency",
    "latency_p99": "p99 latency",
    "latency_p999": "p99.9 latency",
    "service_p50": "p50 service time",
    "service_p99": "p99 service time",
    "service_p999": "p99.9 service time",
    "throughput": "throughput",
    "error_share": "failed requests",
    "binary_size": "size of the program",
}
_KINDS: Final = {
    "initial_resident": "initial resident memory",
    "peak_resident": "peak resident memory",
    "peak_limited": "peak memory under the limit",
}
"""A kind of metric in a sentence: what counterparts on several systems have in common."""

_OTHERWISE: Final = "deciding figures"
_TOLD_FROM: Final = 0.005
"""A secondary change of less than half a percent (or point) is not worth the sentence on top."""
_TIMES_FROM: Final = 1.0
"""From a change of +100 % on, a factor is easier to grasp than a percentage."""


def lead(comparison: Comparison) -> str:
    """The one sentence on top of the page."""
    tables = comparison.tables
    if not tables:
        return _nothing(comparison)
    if len(tables) == 1:
        return sentence(comparison, tables[0])
    return _of_many(comparison)


def sentence(comparison: Comparison, table: Table) -> str:
    """What one table says."""
    deciding = [row for row in table.rows if row.primary]
    parts = [_decided(comparison, table, row) for row in deciding]
    if not parts:
        return f"No metric decides between {table.candidate} and {table.baseline}."
    if all(map(_needs_more, deciding)):
        claims = "; ".join(_claim(table, row) for row in deciding)
        return _capital(f"{_too_few(comparison, table, deciding)}; so far: {claims}.")
    text = "; ".join(parts)
    price, gains = _secondary(table, "worse"), _secondary(table, "better")
    if price:
        text += f", and pays {_listed(price)}"
    if gains:
        text += f"{'; it also has' if price else ', and has'} {_listed(gains)}"
    return _capital(f"{text}.")


def doubts(comparison: Comparison) -> list[str]:
    """What to know before believing the sentence on top; empty when there is nothing."""
    found = []
    uncounted = [reason for _, reason in comparison.invalid]
    if uncounted:
        kept = "are" if len(uncounted) > 1 else "is"
        found.append(f"{_number(len(uncounted), 'trial')} {kept} invalid and not counted")
    if comparison.tables and comparison.missing:
        found.append(f"not compared: {', '.join(comparison.missing)}")
    if comparison.warnings:
        found.append(f"{_number(len(comparison.warnings), 'warning')} about trials that count")
    missing = [
        (table.blocks, planned)
        for table in comparison.tables
        if table.blocks < (planned := comparison.planned_on(table.node_class))
    ]
    if missing:
        least, planned = min(missing)
        found.append(f"only {least} of {planned} blocks are complete")
    return found


def noun(row: Row) -> str:
    """A metric in a sentence."""
    return _NOUNS.get(row.metric.name, row.metric.label)


def amount(row: Row) -> str:
    """How much a row changed, without saying of what: `48 % less`, `2.7 times the`."""
    assert row.change is not None, "only rows with a change are told"
    value = row.change.estimate
    if row.relative and value >= _TIMES_FROM:
        return f"{value + 1:.1f} times the"
    return f"{_size(row, value)} {_direction(row, value)}"


def _nothing(comparison: Comparison) -> str:
    invalid = len(comparison.invalid)
    if not invalid:
        return "Nothing was measured: this run has no finished trials."
    are = "is" if invalid == 1 else "are"
    return (
        "Nothing can be said: no configuration has valid trials to compare; "
        f"{_number(invalid, 'trial')} {are} invalid."
    )


def _of_many(comparison: Comparison) -> str:
    """The best of several tables, and how many of them are better at all."""
    firsts = [(table, row) for table in comparison.tables if (row := _first_primary(table))]
    if not firsts:
        return "No metric decides between these configurations."
    better = [pair for pair in firsts if pair[1].verdict == "better"]
    worse = sum(row.verdict == "worse" for _, row in firsts)
    if all(_needs_more(row) for _, row in firsts):
        return _open_of_many(comparison, firsts)
    name = _noun_of_all([row for _, row in firsts])
    counts = f"of {len(firsts)} comparisons, {len(better)} show better {name}"
    if worse:
        counts += f" and {worse} worse"
    if not better:
        return _capital(f"{counts}.")
    best, _ = max(better, key=lambda pair: _gain(pair[1]))
    return f"{sentence(comparison, best).removesuffix('.')}{_where(comparison, best)}; {counts}."


def _open_of_many(comparison: Comparison, firsts: list[tuple[Table, Row]]) -> str:
    least = min(row.pairs for _, row in firsts)
    text = (
        f"Nothing is decided yet: there {'is' if least == 1 else 'are'} {_number(least, 'block')}, "
        f"a verdict needs {comparison.blocks_needed}"
    )
    table, row = max(firsts, key=lambda pair: _gain(pair[1]))
    return f"{text}; the largest change so far: {_claim(table, row)}." if row.change else f"{text}."


def _noun_of_all(rows: Sequence[Row]) -> str:
    """What the rows of several systems have in common: their metric, or its kind."""
    if len({noun(row) for row in rows}) == 1:
        return noun(rows[0])
    kinds = {row.metric.kind for row in rows}
    return _KINDS.get(kinds.pop(), _OTHERWISE) if len(kinds) == 1 else _OTHERWISE


def _needs_more(row: Row) -> bool:
    return row.verdict.startswith("needs")


def _gain(row: Row) -> float:
    return abs(row.change.estimate) if row.change else 0.0


def _where(comparison: Comparison, table: Table) -> str:
    """Which table, when there are several of the same configuration."""
    same = [t for t in comparison.tables if t.candidate == table.candidate]
    return f" (workload {table.workload}, {table.node_class})" if len(same) > 1 else ""


def _first_primary(table: Table) -> Row | None:
    return next((row for row in table.rows if row.primary), None)


def _too_few(comparison: Comparison, table: Table, deciding: Sequence[Row]) -> str:
    needed, blocks = comparison.blocks_needed, max(row.pairs for row in deciding)
    return (
        f"nothing is decided yet: {table.candidate} and {table.baseline} have "
        f"{_number(blocks, 'block')} in common, a verdict needs {needed}"
    )


def _decided(comparison: Comparison, table: Table, row: Row) -> str:
    names = f"{table.candidate} and {table.baseline}"
    if row.change is None:
        return f"nothing is known of the {noun(row)} of {names}: {row.verdict}"
    if row.verdict.startswith("equivalent"):
        return (
            f"{names} have the same {noun(row)} within {row.verdict.partition(' ')[2].strip('()')}"
        )
    interval = f"({comparison.settings.confidence * 100:g} % interval {_interval(row)})"
    if _needs_more(row):
        return f"{_claim(table, row)} so far, which decides nothing: a verdict {row.verdict}"
    if row.verdict == TRIMMED:
        claim = f"{_claim(table, row)} {interval}"
        return f"{claim}, but its commit did not fall with it: {TRIMMED}"
    if row.verdict == "no difference shown":
        text = f"no difference in {noun(row)} between {names} is shown {interval}"
        more = row.more_blocks
        return f"{text}; about {more} blocks would show one of this size" if more else text
    return f"{_claim(table, row)} {interval}"


def _claim(table: Table, row: Row) -> str:
    """`optimised needs 48 % less peak memory than default`."""
    verb = "needs" if row.metric.group == "memory" else "has"
    if row.change and row.relative and row.change.estimate >= _TIMES_FROM:
        factor = f"{row.change.estimate + 1:.1f} times the {noun(row)} of {table.baseline}"
        return f"{table.candidate} {verb} {factor}"
    return f"{table.candidate} {verb} {amount(row)} {noun(row)} than {table.baseline}"


def _secondary(table: Table, verdict: str) -> list[str]:
    by_name = {row.metric.name: row for row in table.rows}
    rows = (by_name[name] for name in PRICE if name in by_name)
    return [
        f"{amount(row)} {noun(row)}"
        for row in rows
        if row.verdict == verdict
        and not row.primary
        and row.change
        and abs(row.change.estimate) >= _TOLD_FROM
    ]


def _direction(row: Row, value: float) -> str:
    if row.metric.unit in ("ns", "/s"):
        return "higher" if value > 0 else "lower"
    return "more" if value > 0 else "less"


def _size(row: Row, value: float) -> str:
    if row.relative:
        return _percent(abs(value))
    if row.metric.unit == "fraction":
        return f"{_points(abs(value))} points"
    return format_value(row.metric, abs(value))


def _percent(share: float) -> str:
    shown = share * 100
    return f"{shown:.0f} %" if shown >= 9.5 else f"{shown:.1f} %"


def _points(share: float) -> str:
    shown = share * 100
    return f"{shown:.0f}" if shown >= 9.5 else f"{shown:.1f}" if shown >= 0.95 else f"{shown:.2f}"


def _interval(row: Row) -> str:
    """`46 to 51 %` where both bounds are on one side of zero, else `−3 % to +5 %`."""
    assert row.change is not None
    low, high = row.change.low, row.change.high
    if not (math.isfinite(low) and math.isfinite(high)):
        return "unknown"
    if low > 0 or high < 0:
        small, large = sorted((abs(low), abs(high)))
        if row.relative and low > 0 and row.change.estimate >= _TIMES_FROM:
            return f"{low + 1:.1f} to {high + 1:.1f} times"
        return f"{_size(row, small)} to {_size(row, large)}"
    return " to ".join(f"{'−' if v < 0 else '+'}{_size(row, v)}" for v in (low, high))


def _listed(texts: list[str]) -> str:
    if len(texts) == 1:
        return texts[0]
    return f"{', '.join(texts[:-1])} and {texts[-1]}"


def _number(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


def _capital(text: str) -> str:
    """Names of configurations stay as they are; our own first words get a capital."""
    ours = ("no difference", "nothing", "of ")
    return text[:1].upper() + text[1:] if text.startswith(ours) else text


def all_sentences(comparison: Comparison) -> Iterator[tuple[Table, str]]:
    """Each table with what it says."""
    for table in comparison.tables:
        yield table, sentence(comparison, table)

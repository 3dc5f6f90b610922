"""What `bench capacity` prints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape

from orchestrator import values
from orchestrator.answers import plain_table, print_json
from orchestrator.capacity import Asked, Sought, find_capacity, told
from results.errors import RunIncomplete, UserError
from results.metrics import METRICS, format_value


def print_capacity(
    matrix: Path,
    archive: Path,
    progress: Console,
    console: Console,
    *,
    workload: str | None,
    lowest: str | None,
    highest: str | None,
    trials: int,
    within: str,
    as_json: bool,
) -> None:
    """Search, and tell each configuration's capacity. Raises RunIncomplete when one has none."""
    try:
        asked = Asked(
            workload,
            values.rate_rps(lowest) if lowest else None,
            values.rate_rps(highest) if highest else None,
            trials,
            values.share(within),
        )
    except ValueError as error:
        raise UserError(str(error)) from error
    sought = find_capacity(matrix, asked, archive, progress)
    if as_json:
        print_json([plain_sought(own) for own in sought])
    else:
        _print_table(sought, console)
    lost = [own.configuration for own in sought if own.stuck or not own.search.answers]
    if lost:
        raise RunIncomplete(f"no capacity was found of {', '.join(lost)}")


def _print_table(sought: list[Sought], console: Console) -> None:
    table = plain_table(
        "configuration", "capacity", "95 % interval", "peak memory", "/s per GiB", "/s per core",
        "trials",
    )  # fmt: skip
    for own in sought:
        interval = own.interval
        found = own.search.state in ("found", "spent") and own.generator_rps is None
        memory = _memory(own)
        per_gib = interval.estimate / (memory[1] / 2**30) if memory and found else None
        cores = own.at_capacity("cpu_cores")
        per_core = interval.estimate / cores if cores and found else None
        table.add_row(
            escape(own.configuration),
            f"{interval.estimate:,.0f}/s" if found else "–",
            f"{interval.low:,.0f} … {interval.high:,.0f}/s" if found else "–",
            format_value(METRICS[memory[0]], memory[1]) if memory else "–",
            f"{per_gib:,.0f}" if per_gib else "–",
            f"{per_core:,.0f}" if per_core else "–",
            str(len(own.tried)),
        )
    console.print(table)
    for own in sought:
        for text in told(own):
            console.print(
                f"[yellow]![/] {escape(own.configuration)}: {escape(text)}", highlight=False
            )


def _memory(own: Sought) -> tuple[str, float] | None:
    """The peak of resident memory of the trial that held at the highest rate."""
    for name in ("peak_rss", "peak_working_set"):
        value = own.at_capacity(name)
        if value is not None:
            return name, value
    return None


def plain_sought(own: Sought) -> dict[str, Any]:
    """As JSON; rates in requests per second."""
    interval = own.interval
    memory = _memory(own)
    return {
        "configuration": own.configuration,
        "state": own.search.state,
        "capacity_rps": interval.estimate,
        "low_rps": interval.low,
        "high_rps": interval.high,
        "at_least_rps": own.generator_rps,
        "memory_bytes": memory[1] if memory else None,
        "notes": list(told(own)),
        "trials": [
            {
                "run_id": tried.run_id,
                "rate_rps": tried.rate_rps,
                "holds": tried.held.holds,
                "reason": tried.held.reason,
            }
            for tried in own.tried
        ],
    }

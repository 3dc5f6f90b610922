"""What `bench plan` prints: the trials in their order, and the nodes that would be taken."""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Iterable
from typing import Any

from rich.console import Console
from rich.markup import escape

from orchestrator import plan
from orchestrator.answers.common import plain_table
from orchestrator.calibrate.margins import check_margins
from orchestrator.matrix.matrix import Matrix
from orchestrator.matrix.shapes import outline
from orchestrator.progress import format_seconds

ROWS_MAX = 24


def print_plan(matrix: Matrix, console: Console, *, as_json: bool, below_noise: bool) -> None:
    """The trials in their order, and how long they will take; never all of them in memory.

    Raises MatrixError for margins below this machine's noise, unless that is wanted.
    """
    trials = plan.planned_trials(matrix)
    warnings = [*plan.plan_warnings(matrix), *check_margins(matrix, below_noise=below_noise)]
    if as_json:
        _print_json(matrix, trials, warnings)
        return
    console.print(
        f"[bold]{escape(matrix.service.name)}[/]: {plan.plan_summary(matrix)}, about "
        f"{format_seconds(plan.estimate_ns(matrix) / 1e9)} after building",
        highlight=False,
    )
    groups = ["nodes"] * (len(matrix.groups) > 1)
    table = plain_table("trial", "block", "configuration", "workload", *groups)
    for trial in itertools.islice(trials, ROWS_MAX):
        name = escape(trial.configuration) + (" [dim](baseline)[/]" if trial.baseline else "")
        row = [trial.trial_id, str(trial.block), name, trial.workload, trial.group]
        table.add_row(*row[: len(table.columns)])
    console.print(table)
    _print_shapes(matrix, console)
    left = plan.count_trials(matrix) - ROWS_MAX
    if left > 0:
        console.print(f"… and {left:,} more; --json lists them all")
    for warning in warnings[:ROWS_MAX]:
        console.print(f"[yellow]![/] {escape(warning)}", highlight=False)
    _print_nodes(matrix, console)


def _print_shapes(matrix: Matrix, console: Console) -> None:
    """The rate over measure of each workload whose rate changes."""
    for name, arrivals in matrix.arrivals.items():
        if arrivals.rates:
            spaced = "even" if arrivals.evenly else "random"
            console.print(
                escape(
                    f"{name}: {arrivals.kind} {outline(arrivals)} {spaced}, mean "
                    f"{arrivals.rate_rps:,.4g}/s, peak {arrivals.peak_rps:,.4g}/s, warmup at "
                    f"{arrivals.first_rps:,.4g}/s"
                ),
                highlight=False,
            )


def _shapes(matrix: Matrix) -> dict[str, Any]:
    """The planned arrivals of each workload in an open loop."""
    return {
        name: {
            "kind": arrivals.kind,
            "spacing": "even" if arrivals.evenly else "random",
            "first_rps": arrivals.first_rps,
            "mean_rps": arrivals.rate_rps,
            "peak_rps": arrivals.peak_rps,
        }
        for name, arrivals in matrix.arrivals.items()
    }


def _print_nodes(matrix: Matrix, console: Console) -> None:
    """Where it would run now. Raises EnvironmentLacks when the cluster has not what is asked."""
    if not matrix.document.nodes:
        return
    from orchestrator.fleet import teams_for

    for team in teams_for(matrix):
        load = f", load from {', '.join(entry.name for entry in team.load)}" if team.load else ""
        node = f"{team.service.name} ({team.service.node_class})"
        console.print(escape(f"{team.group} on {node}{load}"), highlight=False)


def _print_json(matrix: Matrix, trials: Iterable[plan.PlannedTrial], warnings: list[str]) -> None:
    """One document, its trials one a line."""
    document = {
        "service": matrix.service.name,
        "seed": matrix.seed,
        "blocks": matrix.trials,
        "estimate_ns": plan.estimate_ns(matrix),
        "warnings": warnings,
        "arrivals": _shapes(matrix),
    }
    sys.stdout.write(json.dumps(document, indent=1).removesuffix("\n}") + ',\n "trials": [')
    for number, trial in enumerate(trials):
        sys.stdout.write(",\n  " if number else "\n  ")
        sys.stdout.write(json.dumps(trial.to_plain()))
    sys.stdout.write("\n ]\n}\n")

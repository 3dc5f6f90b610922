"""What `bench calibrate` prints: the generator's ceilings, the noise floor, the false alarms."""

from __future__ import annotations

import math
from collections.abc import Iterable

from rich.console import Console
from rich.markup import escape

from orchestrator.answers.common import plain_table, print_json
from orchestrator.calibrate.calibration import Calibration, Ceiling
from results.comparing.noise import Noise
from results.metrics import METRICS, counted
from results.statistics.paired import blocks_at_least

USERS = {
    "fast": "workloads.users.HttpUser",
    "fasthttp": "Locust's FastHttpUser",
    "http": "Locust's HttpUser",
}
BLOCKS = (6, 12, 24)
"""The numbers of blocks for which the table tells the smallest change and the narrowest margin."""


def print_calibration(calibration: Calibration, console: Console, *, as_json: bool) -> None:
    """All of it, as tables or as JSON."""
    if as_json:
        print_json(plain_calibration(calibration))
        return
    console.print(
        f"[bold]{escape(calibration.node_class)}[/], {calibration.made}, Heapgate "
        f"{calibration.heapgate}{', quick' if calibration.quick else ''}",
        highlight=False,
    )
    _print_ceilings(calibration.ceilings, console)
    _print_noise(calibration, console)
    for text in calibration.left_out:
        console.print(f"[yellow]![/] not measured: {escape(text)}", highlight=False)


def _print_ceilings(ceilings: Iterable[Ceiling], console: Console) -> None:
    table = plain_table("load generator", "loop", "processes", "valid up to", "beyond it")
    for ceiling in ceilings:
        reached = f"{ceiling.valid_rps:,.0f}/s" if ceiling.valid_rps else "[yellow]–[/]"
        if ceiling.users and ceiling.valid_rps:
            reached += f" ({counted(ceiling.users, 'user')})"
        table.add_row(
            USERS.get(ceiling.user, ceiling.user),
            ceiling.loop,
            str(ceiling.processes),
            reached,
            escape(_beyond(ceiling)),
        )
    console.print(table)


def _beyond(ceiling: Ceiling) -> str:
    if ceiling.invalid_rps is None:
        return "not reached" + (": the null server was full" if ceiling.server_bound else "")
    return f"at {ceiling.invalid_rps:,.0f}/s: {ceiling.limit}"


def _print_noise(calibration: Calibration, console: Console) -> None:
    table = plain_table(
        "between equals",
        f"interval of {counted(calibration.blocks, 'block')}",
        *(f"{blocks} blocks show" for blocks in BLOCKS),
        *(f"margin at {blocks}" for blocks in BLOCKS[:2]),
    )
    for noise in calibration.noise:
        metric = METRICS[noise.metric]
        if metric.direction == "none" or not noise.relative:
            continue
        half = noise.half_width
        changes = (noise.smallest_change(blocks, calibration.confidence) for blocks in BLOCKS)
        floors = (noise.floor(blocks, calibration.confidence) for blocks in BLOCKS[:2])
        table.add_row(
            f"{metric.label}{' [red]≠[/]' if noise.alarm else ''}",
            "–" if half is None else f"±{_percent(half)}",
            *map(_percent, changes),
            *(f"±{_percent(floor)}" for floor in floors),
        )
    console.print(table)
    console.print(_alarms(calibration), highlight=False)


def _percent(share: float) -> str:
    """Two digits, and no more than a hundredth of a percent."""
    if not math.isfinite(share):
        return "–"
    percent = share * 100
    return f"{percent:.0f} %" if percent >= 10 else f"{percent:.2g} %" if percent >= 0.01 else "0 %"


def _alarms(calibration: Calibration) -> str:
    """How often two equal configurations were taken for different, and what the noise is of."""
    of_what = (
        f"Noise is that of {calibration.measure_ns / 1e9:g} s of measure of the shipped session "
        "cache: longer trials are quieter, another service may be noisier."
    )
    least = blocks_at_least(calibration.confidence, 1)
    judged = [
        n
        for n in calibration.noise
        if METRICS[n.metric].direction != "none" and n.pairs >= least and n.spread
    ]
    if not judged:
        return f"false alarms can't be told from fewer than {least} valid blocks. {of_what}"
    expected = len(judged) * (1 - calibration.confidence)
    found = [METRICS[name].label for name in calibration.alarms]
    named = f" ({', '.join(found)})" if found else ""
    return (
        f"false alarms: {len(found)} of {counted(len(judged), 'metric')}{named}; at most "
        f"{expected:.2g} are expected, each tested alone. {of_what}"
    )


def plain_calibration(calibration: Calibration) -> dict[str, object]:
    """The calibration as JSON, with what its noise means for a few numbers of blocks."""
    return calibration.to_plain() | {
        "alarms": calibration.alarms,
        "floors": {n.metric: _floors(n, calibration.confidence) for n in calibration.noise},
    }


def _floors(noise: Noise, confidence: float) -> dict[str, object]:
    return {
        "half_width": noise.half_width,
        "smallest_change": {
            str(blocks): _finite(noise.smallest_change(blocks, confidence)) for blocks in BLOCKS
        },
        "margin": {str(blocks): _finite(noise.floor(blocks, confidence)) for blocks in BLOCKS},
    }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None

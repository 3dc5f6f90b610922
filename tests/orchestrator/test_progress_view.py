"""The live view of a run on a terminal: what is over scrolls up, and nothing else stays."""

from __future__ import annotations

import io

import pyte
from rich.console import Console

from orchestrator.progress import show_progress
from tests.workers.faultypipe import record

COLUMNS, LINES = 100, 10


def screen(text: str) -> list[str]:
    """Every line that a terminal shows, and what scrolled off."""
    shown = pyte.HistoryScreen(COLUMNS, LINES, history=1_000)
    pyte.Stream(shown).feed(text.replace("\n", "\r\n"))
    rows = [*shown.history.top, *(shown.buffer[n] for n in range(LINES))]
    lines = ["".join(row[n].data for n in range(COLUMNS)).rstrip() for row in rows]
    return [line for line in lines if line]


def test_finished_trials_scroll_up_and_nothing_else_stays() -> None:
    file = io.StringIO()
    console = Console(file=file, force_terminal=True, width=COLUMNS, height=LINES)
    trials = [f"b{n:02}-1-default-steady" for n in range(1, 15)]
    with show_progress(console) as progress:
        progress.step("building")
        progress.done("built")
        progress.trials(len(trials), 0, 60 * 10**9)
        for trial_id in trials:
            progress.trial_started(trial_id, "node-1")
            progress.snapshot(trial_id, {"phase": "measure", "rss_bytes": 2**20})
            progress.trial_finished(record(trial_id))
    lines = screen(file.getvalue())
    assert lines[0] == "✓ built"
    assert [line.split()[1] for line in lines[1:]] == trials

"""What the user sees while a run goes on: a live view on a terminal, plain lines elsewhere.

Both tell the same story. Nothing here decides anything: `orchestrator/run.py` calls, this prints.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from typing import Any, Protocol

from rich.console import Console, Group, RenderableType
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from orchestrator.liveview import LiveView
from results.record import Finding, TrialRecord, planned_id

HEARTBEAT_S = 20.0
"""A plain log shows a sign of life at least this often."""


class Progress(Protocol):
    """What a run tells while it goes on."""

    def step(self, text: str) -> None:
        """A piece of preparation begins."""

    def done(self, text: str) -> None:
        """A piece of preparation is over."""

    def warn(self, text: str) -> None:
        """Something the user should know, which stops nothing."""

    def trials(self, total: int, done: int, estimate_ns: int) -> None:
        """Trials begin: how many in all, how many are done already, how long they may take."""

    def trial_started(self, trial_id: str, node_id: str) -> None:
        """A trial was handed to a node."""

    def snapshot(self, trial_id: str, snapshot: Mapping[str, Any]) -> None:
        """What a running trial is doing now."""

    def trial_finished(self, record: TrialRecord) -> None:
        """A trial is over and sealed."""

    def left_ns(self, left_ns: int) -> None:
        """A better estimate of the time that is left."""


def format_bytes(value: float | None) -> str:
    """IEC units, three significant digits: `1.25 GiB`, `402 MiB`; a dash for none."""
    if value is None:
        return "–"
    size = float(value)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(size) < 1024 or unit == "GiB":
            break
        size /= 1024
    return f"{size:.0f} {unit}" if size >= 100 or unit == "B" else f"{size:.3g} {unit}"


def format_seconds(seconds: float) -> str:
    """`45 s`, `2:05 min` or `3:20 h`."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes}:{rest:02d} min"
    return f"{minutes // 60}:{minutes % 60:02d} h"


def trial_figures(record: TrialRecord) -> str:
    """One line of what a finished trial showed."""
    parts = [_peak_figures(record)]
    if record.load:
        measure = next((p for p in record.phases if p.name == "measure"), None)
        seconds = (measure.end_ns - measure.start_ns) / 1e9 if measure else 0
        rate = f"{record.load.measured / seconds:.0f}/s" if seconds else "–"
        parts.append(f"{record.load.sent:,} requests ({rate} measured)")
        if record.load.failed:
            parts.append(f"{record.load.failed:,} failed")
    return ", ".join(parts)


def _peak_figures(record: TrialRecord) -> str:
    peak = next((p for p in record.peaks if p.phase == "measure"), None)
    if record.os == "windows":
        working_set, commit = (peak.working_set[0], peak.commit[0]) if peak else (None, None)
        return f"peak working set {format_bytes(working_set)}, commit {format_bytes(commit)}"
    return f"peak RSS {format_bytes(peak.rss_bytes if peak else None)}"


class _Tally:
    """How many of the planned trials are over; a repeated one counts once."""

    def __init__(self, total: int = 0, done: int = 0) -> None:
        self.total = total
        self._before = done
        self._over: set[str] = set()

    @property
    def done(self) -> int:
        return self._before + len(self._over)

    def number(self, trial_id: str) -> int:
        """The place of a trial that is starting, from 1."""
        return self._before + len(self._over | {planned_id(trial_id)})

    def add(self, trial_id: str) -> None:
        """A trial is over."""
        self._over.add(planned_id(trial_id))


class PlainProgress:
    """One line a happening, with the time of day: for logs, pipes and CI."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._told_s: dict[str, float] = {}
        self._tally = _Tally()

    def _line(self, text: str) -> None:
        self._console.print(
            f"{datetime.now():%H:%M:%S} {text}", markup=False, highlight=False, soft_wrap=True
        )

    def step(self, text: str) -> None:
        """Print that a piece of preparation begins."""
        self._line(f"{text} …")

    def done(self, text: str) -> None:
        """Print that it is over."""
        self._line(text)

    def warn(self, text: str) -> None:
        """Print a warning."""
        self._line(f"warning: {text}")

    def trials(self, total: int, done: int, estimate_ns: int) -> None:
        """Print how many trials there are."""
        self._tally = _Tally(total, done)
        self._line(f"{total - done} trials to run, about {format_seconds(estimate_ns / 1e9)}")

    def trial_started(self, trial_id: str, node_id: str) -> None:
        """Print that a trial began."""
        self._told_s[trial_id] = time.monotonic()
        place = f"[{self._tally.number(trial_id)}/{self._tally.total}]"
        self._line(f"{place} {trial_id} on {node_id}")

    def snapshot(self, trial_id: str, snapshot: Mapping[str, Any]) -> None:
        """Print a sign of life now and then in a long phase."""
        now_s = time.monotonic()
        if snapshot and now_s - self._told_s.get(trial_id, 0.0) > HEARTBEAT_S:
            self._told_s[trial_id] = now_s
            self._line(f"    {trial_id}: {describe_snapshot(snapshot)}")

    def trial_finished(self, record: TrialRecord) -> None:
        """Print what the trial showed, and every reason for doubt."""
        self._tally.add(record.trial_id)
        self._told_s.pop(record.trial_id, None)
        # With several at work, a line says whose it is.
        whose = f"{record.trial_id} " if self._told_s else ""
        self._line(f"    {whose}{'valid' if record.valid else 'INVALID'}: {trial_figures(record)}")
        for finding in record.findings:
            if finding.level != "note":
                self._line(f"    {finding.level}: {finding_text(finding)}")

    def left_ns(self, left_ns: int) -> None:
        """Print nothing: a log needs no countdown."""


def finding_text(finding: Finding) -> str:
    """A reason for doubt and what to do about it, in one line."""
    return finding.text + (f" → {finding.remedy}" if finding.remedy else "")


def describe_snapshot(snapshot: Mapping[str, Any]) -> str:
    """Phase, time left in it, live memory and request rate, in one line."""
    left = snapshot.get("phase_left_ns")
    parts = [str(snapshot.get("phase", ""))]
    if left:
        parts.append(f"{left / 1e9:.0f} s left")
    parts.append(f"RSS {format_bytes(snapshot.get('rss_bytes'))}")
    if snapshot.get("rate_rps") is not None:
        parts.append(f"{snapshot['rate_rps']:.0f} req/s")
    if snapshot.get("failed"):
        parts.append(f"{snapshot['failed']} failed")
    return ", ".join(parts)


class TerminalProgress:
    """A live view: finished things scroll up, the running trial stays at the bottom."""

    def __init__(self, console: Console) -> None:
        self._spinner = Spinner("dots", style="cyan")
        self._step: str | None = None
        self._tally = _Tally()
        self._running: dict[str, tuple[str, Mapping[str, Any]]] = {}
        self._ends_s = 0.0
        self._view = LiveView(console, self._render)

    def start(self) -> None:
        """Begin drawing."""
        self._view.start()

    def stop(self) -> None:
        """Stop drawing; what scrolled up stays."""
        self._view.stop()

    def step(self, text: str) -> None:
        """Show a spinner beside what is being prepared."""
        self._step = text

    def done(self, text: str) -> None:
        """Tick it off."""
        self._step = None
        self._view.print(f"[green]✓[/] {escape(text)}")

    def warn(self, text: str) -> None:
        """Show a warning above the live view."""
        self._view.print(f"[yellow]![/] {escape(text)}")

    def trials(self, total: int, done: int, estimate_ns: int) -> None:
        """Show the bar."""
        self._step = None
        self._tally = _Tally(total, done)
        self.left_ns(estimate_ns)

    def trial_started(self, trial_id: str, node_id: str) -> None:
        """Show which trial runs where."""
        self._step = None
        self._running[trial_id] = (node_id, {})

    def snapshot(self, trial_id: str, snapshot: Mapping[str, Any]) -> None:
        """Show its phase, memory and rate."""
        node_id, _ = self._running.get(trial_id, ("", {}))
        self._running[trial_id] = (node_id, snapshot)

    def trial_finished(self, record: TrialRecord) -> None:
        """Scroll a finished trial up, with its reasons for doubt."""
        self._tally.add(record.trial_id)
        self._running.pop(record.trial_id, None)
        mark = "[green]✓[/]" if record.valid else "[red]✗[/]"
        self._view.print(
            f"{mark} {escape(record.trial_id):<34} [dim]{escape(trial_figures(record))}[/]"
        )
        for finding in record.findings:
            if finding.level != "note":
                colour = "red" if finding.level == "invalid" else "yellow"
                text = escape(finding_text(finding))
                self._view.print(f"    [{colour}]{text}[/]")

    def left_ns(self, left_ns: int) -> None:
        """Correct the countdown."""
        self._ends_s = time.monotonic() + left_ns / 1e9

    def _render(self) -> RenderableType:
        if self._step is not None:
            self._spinner.update(text=Text(f" {self._step}", style="cyan"))
            return self._spinner
        running = list(self._running.items())
        if not running:
            return Text("")
        return Group(self._overall(running[0][0]), *self._lines(running))

    def _overall(self, trial_id: str) -> RenderableType:
        tally, left_s = self._tally, max(0.0, self._ends_s - time.monotonic())
        grid = Table.grid(padding=(0, 1))
        grid.add_row(
            Text(f"trial {tally.number(trial_id)} of {tally.total}", style="bold"),
            ProgressBar(total=tally.total, completed=tally.done, width=32),
            Text(f"about {format_seconds(left_s)} left"),
        )
        return grid

    def _lines(self, running: list[tuple[str, tuple[str, Mapping[str, Any]]]]) -> Iterator[Any]:
        """One line for each trial that runs, with its node; the first one has the spinner."""
        for index, (trial_id, (node_id, snapshot)) in enumerate(running):
            line = Text.assemble(
                f" {trial_id}",
                (f" on {node_id}  ", "dim"),
                (describe_snapshot(snapshot) if snapshot else "starting", "cyan"),
            )
            if index == 0:
                self._spinner.update(text=line)
                yield self._spinner
            else:
                yield Text(" ") + line


@contextmanager
def show_progress(console: Console | Progress) -> Iterator[Progress]:
    """The progress display that fits where `console` writes to; one that is there already stays."""
    if not isinstance(console, Console):
        yield console
        return
    if not console.is_terminal:
        yield PlainProgress(console)
        return
    view = TerminalProgress(console)
    view.start()
    try:
        yield view
    finally:
        view.stop()

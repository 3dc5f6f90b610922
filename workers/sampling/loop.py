"""The sampling thread: one row at each of a fixed series of instants, and the peaks by phase.

At each instant the thread only looks; rows are made of many looks at once, when they are handed
over or when someone asks (`workers/sampling/linux.py` says why).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from results.clock import ClockMap, steady_ns
from results.record import PhasePeak
from workers.limits.limiter import Limiter
from workers.sampling.system import MemorySample, PhasePeaks, ProcessSampler, TreeLook

Sink = Callable[[dict[str, list[Any]]], object]
"""Takes rows as columns."""

EventSink = Callable[[str, str, str, float | None], object]
"""Takes an event: its kind, level, message and figure."""

INTERVAL_MIN_NS = 10_000_000
INTERVAL_MAX_NS = 1_000_000_000
FLUSH_EVERY_NS = 5_000_000_000
"""Handing rows over costs as much as ten samples, so it is not done more often than this."""

COLUMNS = ("time_ns", "phase", *MemorySample._fields)
"""The memory table's columns that this system has; the others are null."""


class SampleLoop:
    """Samples a process tree until it ends or `stop` is called.

    The instants are start + k × interval, whatever one sample takes; instants that passed
    without a sample are counted in `gaps` and told as `sample_gap` events.
    """

    def __init__(
        self,
        pid: int,
        limiter: Limiter,
        *,
        interval_ns: int,
        sink: Sink,
        phase: Callable[[], str],
        clock: ClockMap,
        on_event: EventSink | None = None,
    ) -> None:
        """Prepare. Raises ValueError for a rate outside 1 to 100 samples a second."""
        if not INTERVAL_MIN_NS <= interval_ns <= INTERVAL_MAX_NS:
            raise ValueError(f"sampling interval must be 10 ms to 1 s, not {interval_ns} ns")
        self._sampler = ProcessSampler(pid, limiter)
        self._peaks = PhasePeaks(self._sampler, limiter)
        self._interval_ns = interval_ns
        self._sink = sink
        self._phase = phase
        self._clock = clock
        self._on_event = on_event
        self._lock = threading.Lock()
        # Free once the loop is to end: waiting for a bare lock costs half of waiting for an Event.
        self._stop = threading.Lock()
        self._stop.acquire()
        self._thread = threading.Thread(target=self._run, name="sampler", daemon=True)
        self._looks: list[tuple[int, str, bool, TreeLook]] = []
        self._rows: list[tuple[Any, ...]] = []
        self._untold_gaps = 0
        self._peaks_phase = phase()
        self._failure: Exception | None = None
        self._latest: MemorySample | None = None
        self.gaps = 0
        self.samples = 0
        self.cpu_ns = 0

    def start(self) -> None:
        """Start sampling; the first sample is taken at once."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread and hand over the last rows. Raises what made the thread fail, if so."""
        if self._stop.locked():
            self._stop.release()
        if self._thread.ident is not None:
            self._thread.join()
        with self._lock:
            self._sampler.close()
        if self._failure:
            raise self._failure

    @property
    def latest(self) -> MemorySample | None:
        """The last sample; None before the first."""
        with self._lock:
            self._make_rows()
            return self._latest

    def begin_phase(self, previous: str) -> PhasePeak:
        """Call right after the phase changed: gives the ended phase's peaks, begins new ones.

        A peak that is not known to be the ended phase's, or can't be read any more, is None there.
        """
        with self._lock:
            self._make_rows()  # the ended phase's samples are part of its peaks
            peak = self._peaks.begin(previous)
            self._peaks_phase = self._phase()
        return peak

    def end_phase(self) -> int | None:
        """Call right before the phase changes: its last sample, whatever the interval.

        Gives the tree's processor time since its start; None when it has ended.
        """
        with self._lock:
            # What was started in this phase must be in all samples of the next.
            self._sampler.list_again()
        if not self._take():
            return None
        latest = self.latest
        assert latest
        user_ns, system_ns = latest.cpu_user_ns, latest.cpu_system_ns
        return None if user_ns is None or system_ns is None else user_ns + system_ns

    def _run(self) -> None:
        try:
            self._sample_until_stopped()
        except Exception as error:
            self._failure = error

    def _sample_until_stopped(self) -> None:
        due_ns = steady_ns()
        flush_ns = due_ns + FLUSH_EVERY_NS
        while self._take():
            now_ns = steady_ns()
            if now_ns >= flush_ns:
                self._flush()
                flush_ns = now_ns + FLUSH_EVERY_NS
            due_ns = self._next_due(due_ns)
            if self._stop.acquire(timeout=max(0, due_ns - steady_ns()) / 1e9):
                break
        self._flush()

    def _next_due(self, due_ns: int) -> int:
        """The next instant that is still ahead; those that passed meanwhile are gaps."""
        due_ns += self._interval_ns
        late_ns = steady_ns() - due_ns
        if late_ns < 0:
            return due_ns
        missed = late_ns // self._interval_ns + 1
        self.gaps += missed
        self._untold_gaps += missed
        return due_ns + missed * self._interval_ns

    def _take(self) -> bool:
        """One sample; False when the main process has ended."""
        with self._lock:
            time_ns, phase = steady_ns(), self._phase()
            look = self._sampler.look()
            if look is None:
                return False
            self._looks.append((time_ns, phase, phase == self._peaks_phase, look))
            self.samples += 1
        return True

    def _make_rows(self) -> None:
        """Make rows of all looks so far. Call it with the lock."""
        looks, self._looks = self._looks, []
        for time_ns, phase, begun, look in looks:
            self._latest = self._sampler.parse(look)
            row = self._peaks.seen(self._latest, begun)
            self._rows.append((self._clock.utc_ns(time_ns), phase, *row))

    def _flush(self) -> None:
        with self._lock:
            self._make_rows()
            rows, self._rows = self._rows, []
        if rows:
            self._sink(dict(zip(COLUMNS, map(list, zip(*rows, strict=True)), strict=True)))
        if self._untold_gaps and self._on_event:
            missed, self._untold_gaps = self._untold_gaps, 0
            text = f"{missed} sampling instants passed without a sample"
            self._on_event("sample_gap", "warning", text, float(missed))
        self.cpu_ns = time.thread_time_ns()

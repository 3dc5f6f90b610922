"""The service's own output: trace lines of the Go runtime become rows, all else goes to a log.

Formats: `gctrace` and `scavtrace` in the documentation of Go's package runtime ("Environment
Variables"), the same from Go 1.21 on, but for what 1.26 and later add to the cycle that looks for
leaked goroutines. The runtime cuts sizes to whole MiB and calls them MB.
It writes a line in many small pieces, so a line that the service writes at the same moment can
tear one apart: both halves are then kept in the log and counted in `torn`.
"""

from __future__ import annotations

import contextlib
import re
import threading
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from results.clock import ClockMap, steady_ns
from workers.sampling.pipes import Pipes

Sink = Callable[[dict[str, list[Any]]], object]
"""Takes rows as columns."""

FLUSH_EVERY_NS: Final = 500_000_000
POLL_S: Final = 0.25
JOIN_TIMEOUT_S: Final = 2.0
LINE_BYTES_MAX: Final = 65_536
"""A longer line is handled as several."""

LOG_BYTES_MAX: Final = 15 * 2**20
"""A service that writes more has the middle cut out: its log keeps the beginning and the end."""

LAST_LINES: Final = 10
LAST_LINE_CHARS: Final = 400
_FATAL = ("fatal error: ", "panic: ", "runtime: VirtualAlloc of ", "Exception 0xc0000005")
"""How the Go runtime begins to tell of the service's end; the last two on Windows only, where the
first line names the system's error.
"""

# The digits are bounded, so that no line can give a number beyond 64 bits.
_INT = r"([0-9]{1,10})"
_MS = r"([0-9]{1,9}(?:\.[0-9]{1,6})?)"
_CYCLE = re.compile(
    rf"gc {_INT} @([0-9]{{1,9}}\.[0-9]{{1,6}})s {_INT}%(?: \(checking for goroutine leaks\))?: "
    rf"{_MS}\+{_MS}\+{_MS} ms clock, {_MS}\+{_MS}/{_MS}/{_MS}\+{_MS} ms cpu, "
    rf"{_INT}->{_INT}->{_INT} MB, {_INT} MB goal, {_INT} MB stacks, {_INT} MB globals, {_INT} P"
    r"( \(forced\))?"
)
_SCAVENGE = re.compile(
    rf"scav {_INT} KiB work \(bg\), {_INT} KiB work \(eager\), {_INT} KiB now, {_INT}% util"
    r"(?:( \(forced\))| \[controller reset\])?"
)
_LOOKS_LIKE_TRACE = re.compile(r"gc [0-9]+ @|scav [0-9]+ KiB")

_CYCLE_TIMES = (
    "stw_sweep_ns", "concurrent_ns", "stw_mark_ns",
    "cpu_stw_sweep_ns", "cpu_assist_ns", "cpu_background_ns", "cpu_idle_ns", "cpu_stw_mark_ns",
)  # fmt: skip
_CYCLE_SIZES = (
    "heap_start_bytes", "heap_end_bytes", "heap_live_bytes", "heap_goal_bytes",
    "stacks_bytes", "globals_bytes",
)  # fmt: skip
_RELEASED = ("released_background_bytes", "released_eager_bytes", "released_now_bytes")
COLUMNS: Final = (
    "kind", "cycle", "forced", "since_start_ns", "gc_cpu_share_since_start",
    *_CYCLE_TIMES, *_CYCLE_SIZES, "procs", *_RELEASED, "heap_utilisation",
)  # fmt: skip
"""Columns of the gc table that a line gives; `time_ns` and `phase` are added when it is read."""


def parse_line(text: str) -> dict[str, Any] | None:
    """The columns that one trace line gives, in base units; None for any other line."""
    if found := _CYCLE.fullmatch(text):
        return _cycle(found.groups())
    if found := _SCAVENGE.fullmatch(text):
        return _scavenge(found.groups())
    return None


def _cycle(groups: tuple[str, ...]) -> dict[str, Any]:
    cycle, since_s, share, *rest = groups
    times, sizes, (procs, forced) = rest[:8], rest[8:14], rest[14:]
    return {
        "kind": "cycle",
        "cycle": int(cycle),
        "forced": forced is not None,
        "since_start_ns": round(float(since_s) * 1e9),
        "gc_cpu_share_since_start": int(share) / 100,
        **{name: round(float(ms) * 1e6) for name, ms in zip(_CYCLE_TIMES, times, strict=True)},
        **{name: int(mib) << 20 for name, mib in zip(_CYCLE_SIZES, sizes, strict=True)},
        "procs": int(procs),
    }


def _scavenge(groups: tuple[str, ...]) -> dict[str, Any]:
    *released, utilisation, forced = groups
    return {
        "kind": "scavenge",
        "forced": forced is not None,
        **{name: int(kib) << 10 for name, kib in zip(_RELEASED, released, strict=True)},
        "heap_utilisation": int(utilisation) / 100,
    }


class LineSplitter:
    """Bytes as they come from a pipe → whole lines; never holds more than LINE_BYTES_MAX."""

    def __init__(self) -> None:
        self._pending = b""

    def feed(self, data: bytes) -> list[bytes]:
        """The lines that are complete now, without their ends."""
        *lines, self._pending = (self._pending + data).split(b"\n")
        while len(self._pending) > LINE_BYTES_MAX:
            lines.append(self._pending[:LINE_BYTES_MAX])
            self._pending = self._pending[LINE_BYTES_MAX:]
        return lines

    def rest(self) -> list[bytes]:
        """What came after the last end of a line."""
        rest, self._pending = self._pending, b""
        return [rest] if rest else []


class ServiceLog:
    """The service's own lines in a file: whole up to LOG_BYTES_MAX, then only the last lines.

    A disk that is full ends the log, not the reading of the pipes.
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("wb", buffering=0)
        self._bytes = 0
        self._cut = 0
        self._last: deque[bytes] = deque(maxlen=200)

    def write(self, lines: list[bytes]) -> None:
        """Add lines."""
        text = b"".join(line + b"\n" for line in lines)
        if not self._cut and self._bytes + len(text) <= LOG_BYTES_MAX:
            self._put(text)
            return
        self._cut += len(lines)
        self._last.extend(line[:LAST_LINE_CHARS] for line in lines)

    def close(self) -> None:
        """Say what was cut, add the last lines, and close the file."""
        if self._cut:
            self._put(f"[{self._cut - len(self._last)} lines are cut here]\n".encode())
            self._put(b"".join(line + b"\n" for line in self._last))
        self._file.close()

    def _put(self, text: bytes) -> None:
        with contextlib.suppress(OSError):
            self._bytes += self._file.write(text) or 0


class StderrReader:
    """Reads the service's standard output and error in one thread until both have ended.

    Owns the two descriptors and closes them. Trace lines are looked for on standard error only.
    """

    def __init__(
        self,
        output_fd: int,
        error_fd: int,
        *,
        log_path: Path,
        sink: Sink,
        phase: Callable[[], str],
        clock: ClockMap,
    ) -> None:
        """Prepare. Raises OSError when the log can't be made."""
        self._splitters = {output_fd: LineSplitter(), error_fd: LineSplitter()}
        self._error_fd = error_fd
        self._log = ServiceLog(log_path)
        self._sink = sink
        self._phase = phase
        self._clock = clock
        self._rows: list[dict[str, Any]] = []
        self._last: deque[str] = deque(maxlen=LAST_LINES)
        self._first_of_death: list[str] = []
        self._stop = threading.Event()
        self._failure: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="service-output", daemon=True)
        self.rows = 0
        self.torn = 0

    @property
    def fatal(self) -> str | None:
        """The first line in which the Go runtime told of the service's end, if it did."""
        return self._first_of_death[0] if self._first_of_death else None

    @property
    def last_lines(self) -> tuple[str, ...]:
        """What the service said last; after a fatal error: how that message begins."""
        return tuple(self._first_of_death or self._last)

    def start(self) -> None:
        """Start reading."""
        self._thread.start()

    def join(self, timeout_s: float = JOIN_TIMEOUT_S) -> None:
        """Call when the service has ended: reads what is left, then ends the thread.

        A process that outlived the service may keep the pipes open: then reading ends after
        `timeout_s`. Raises what the sink raised, if it did.
        """
        self._thread.join(timeout_s)
        self._stop.set()
        self._thread.join()
        if self._failure:
            raise self._failure

    def _run(self) -> None:
        pipes = Pipes(self._splitters)
        self._read_all(pipes)
        for descriptor, splitter in self._splitters.items():
            self._take(descriptor, splitter.rest())
        pipes.close()
        self._flush()
        self._log.close()

    def _read_all(self, pipes: Pipes) -> None:
        flush_ns = steady_ns() + FLUSH_EVERY_NS
        while pipes.open and not self._stop.is_set():
            for descriptor, data in pipes.read(POLL_S):
                self._take(descriptor, self._splitters[descriptor].feed(data))
            if steady_ns() >= flush_ns:
                self._flush()
                flush_ns = steady_ns() + FLUSH_EVERY_NS

    def _take(self, descriptor: int, lines: list[bytes]) -> None:
        own = [line for line in lines if descriptor != self._error_fd or not self._trace(line)]
        if own:
            self._log.write(own)
            for line in own:
                self._remember(line, descriptor == self._error_fd)

    def _trace(self, line: bytes) -> bool:
        """Keep a trace line as a row; False for any other line."""
        if not line.startswith((b"gc ", b"scav ")):
            return False
        text = line.decode("ascii", "replace")
        row = parse_line(text)
        if row is None:
            self.torn += bool(_LOOKS_LIKE_TRACE.match(text))
            return False
        self._rows.append({"time_ns": self._clock.now_ns(), "phase": self._phase(), **row})
        return True

    def _remember(self, line: bytes, error: bool) -> None:
        text = line[:LAST_LINE_CHARS].decode("utf-8", "replace").rstrip()
        if not text:
            return
        self._last.append(text)
        begun = bool(self._first_of_death)
        if error and (begun or text.startswith(_FATAL)) and len(self._first_of_death) < LAST_LINES:
            self._first_of_death.append(text)

    def _flush(self) -> None:
        if not self._rows:
            return
        rows, self._rows = self._rows, []
        names = ("time_ns", "phase", *COLUMNS)
        try:
            self._sink({name: [row.get(name) for row in rows] for name in names})
            self.rows += len(rows)
        except Exception as error:
            # The pipes must be emptied all the same, or the service would block.
            self._failure = self._failure or error

"""Every request becomes a row: columns that grow, not objects."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from workers.spool import StreamWriter

ERROR_CHARACTERS_MAX = 200
COLUMNS = (
    "intended_ns",
    "start_ns",
    "phase",
    "latency_ns",
    "service_ns",
    "method",
    "name",
    "status",
    "response_bytes",
    "error",
)


@dataclass(frozen=True, slots=True)
class Timeline:
    """When the phases of the load begin, in nanoseconds since the epoch (UTC)."""

    start_ns: int
    measure_ns: int
    end_ns: int

    def phase(self, time_ns: int) -> str:
        """The phase to which a request of this instant belongs.

        What users do before their first task is warmup too.
        """
        if time_ns < self.measure_ns:
            return "warmup"
        return "measure" if time_ns < self.end_ns else "cooldown"


NOT_STARTED = Timeline(2**62, 2**62, 2**62)


@dataclass(slots=True)
class Recorder:
    """Collects rows and hands them to the spool when asked to flush."""

    stream: StreamWriter
    timeline: Timeline = NOT_STARTED
    sent: int = 0
    measured: int = 0
    failed: int = 0
    _rows: list[tuple[Any, ...]] = field(default_factory=list)

    def record(
        self,
        *,
        intended_ns: int | None,
        start_ns: int,
        service_ns: int,
        method: str,
        name: str,
        status: int | None,
        response_bytes: int | None,
        error: str | None,
    ) -> None:
        """Add one request. Its phase is that of its intended start, where there is one."""
        due_ns = start_ns if intended_ns is None else intended_ns
        phase = self.timeline.phase(due_ns)
        latency_ns = start_ns - due_ns + service_ns
        timing = (intended_ns, start_ns, phase, latency_ns, service_ns)
        self._rows.append((*timing, method, name, status, response_bytes, error))
        self.sent += 1
        self.measured += phase == "measure"
        self.failed += error is not None

    def flush(self) -> None:
        """Hand the rows to the spool."""
        rows, self._rows = self._rows, []
        if rows:
            self.stream.append(dict(zip(COLUMNS, zip(*rows, strict=True), strict=True)))
        self.stream.flush()


def error_text(exception: BaseException | str) -> str:
    """Why a request failed, short enough to be a word in a dictionary."""
    text = exception if isinstance(exception, str) else str(exception) or repr(exception)
    return " ".join(text.split())[:ERROR_CHARACTERS_MAX]

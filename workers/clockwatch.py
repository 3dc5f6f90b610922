"""The head's clock as seen by a node, at both ends of a trial."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc

from results.judging import validity
from results.record import Finding
from workers.clockoffset import ClockOffset, jumped, measure_at


class ClockWatch:
    """Measures the offset when it is made and again when it is asked to end."""

    def __init__(self, address: str, tls_folder: Path) -> None:
        self._address = address
        self._tls_folder = tls_folder
        self._before = self._measure()
        self._after: ClockOffset | None = None

    def _measure(self) -> ClockOffset | None:
        try:
            return measure_at(self._address, self._tls_folder)
        except grpc.RpcError:
            return None  # the collector may be starting again just now

    @property
    def offset_ns(self) -> int:
        """The head's clock minus this node's; 0 when it is not known."""
        return self._before.offset_ns if self._before else 0

    def end(self) -> None:
        """Measure again."""
        self._after = self._measure()

    def told(self) -> dict[str, Any] | None:
        """Offset and error bound, and the drift between both ends where both were measured."""
        first = self._before or self._after
        if first is None:
            return None
        drift_ns = None
        if self._before and self._after:
            drift_ns = self._after.offset_ns - self._before.offset_ns
        return {
            "offset_ns": first.offset_ns,
            "error_ns": first.error_ns,
            "drift_ns": drift_ns,
        }

    def findings(self) -> Iterator[Finding]:
        """What is wrong with this node's clock."""
        if self._before is None or self._after is None:
            yield validity.clock_offset_unknown("the head did not answer")
        elif jumped(self._before, self._after):
            moved_ms = (self._after.offset_ns - self._before.offset_ns) / 1e6
            yield validity.clock_jumped(
                f"this node's clock moved by {moved_ms:.1f} ms in the trial"
            )

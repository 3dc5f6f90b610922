"""What every mechanism for limits offers: one Protocol, and the counters that it reads."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

from results.record import LimitRecord
from workers.spec import LimitsSpec


class LimitsUnavailable(Exception):
    """This mechanism can't be used here; the text says why and what would help."""


class GroupCounters(NamedTuple):
    """The kernel's account of a group of processes; None where the system has no such figure.

    Bytes and nanoseconds. `peak_bytes` counts from the last successful `reset_peak`, or from the
    group's making; the others count since the group was made.
    """

    usage_bytes: int | None = None
    peak_bytes: int | None = None
    anon_bytes: int | None = None
    file_bytes: int | None = None
    limit_hits: int | None = None
    oom_kills: int | None = None
    pressure_some_ns: int | None = None
    pressure_full_ns: int | None = None


GroupLook = tuple[Any, ...] | None
"""What a limiter saw of its group's account, not yet made into numbers; None: there is no group."""


class Limiter(Protocol):
    """A group of processes with limits and an account of its own; one for each trial.

    `join_paths` are the files to which a process writes its pid to become a member of the group;
    on Windows there are none, and whoever starts a process puts it into `job_object.JobObject`.
    `reason` says why limits are not available here; it is empty when they are.
    """

    mechanism: str
    reason: str
    join_paths: tuple[str, ...]

    def apply(self, limits: LimitsSpec) -> list[LimitRecord]:
        """Set the limits, read each one back, and tell what is in force. Never raises OSError."""
        ...

    def look(self) -> GroupLook:
        """See what the account says now, the cheap part; its meaning is left for later."""
        ...

    def counters(self, look: GroupLook) -> GroupCounters | None:
        """What was seen, in numbers; None when there was no group (any more)."""
        ...

    def read(self) -> GroupCounters | None:
        """The counters now; None when there is no group (any more)."""
        ...

    def reset_peak(self) -> bool:
        """Begin a new peak; False where the system can't."""
        ...

    def processes(self) -> list[int]:
        """Process ids of the group's members."""
        ...

    def oom_kills(self) -> int:
        """Processes killed because of the hard limit; still known after `remove`."""
        ...

    def remove(self) -> None:
        """Kill what is left in the group and remove it. May be called again."""
        ...

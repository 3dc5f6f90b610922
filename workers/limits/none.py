"""No limits and no group: what a machine without usable cgroups gets, with the reason."""

from __future__ import annotations

from results.record import LimitRecord
from workers.limits.limiter import GroupCounters, GroupLook
from workers.limits.records import asked_limits
from workers.spec import LimitsSpec


class NoLimits:
    """Enforces nothing, counts nothing, and says why in every record."""

    mechanism = "none"
    join_paths: tuple[str, ...] = ()

    def __init__(self, reason: str) -> None:
        self.reason = reason

    def apply(self, limits: LimitsSpec) -> list[LimitRecord]:
        """One record for each limit that was asked for, none of them enforced."""
        return [
            LimitRecord(
                name=name,
                asked=asked,
                read_back=None,
                enforced=False,
                mechanism=self.mechanism,
                reason=self.reason,
            )
            for name, asked in asked_limits(limits)
        ]

    def look(self) -> GroupLook:
        """There is no group to see."""
        return None

    def counters(self, look: GroupLook) -> GroupCounters | None:
        """Nothing was seen."""
        return None

    def read(self) -> GroupCounters | None:
        """There is no group to read."""
        return None

    def reset_peak(self) -> bool:
        """There is no peak to reset."""
        return False

    def processes(self) -> list[int]:
        """There is no group, so nothing is known of its members."""
        return []

    def oom_kills(self) -> int:
        """Without a group there is no OOM killer of its own."""
        return 0

    def remove(self) -> None:
        """Nothing was made."""

"""What a trial tells of itself while it runs, for the progress display and the live metrics."""

from __future__ import annotations

from collections.abc import Iterable

from results.record import LimitRecord
from workers.sampling.system import MemorySample

TOLD = (
    "cgroup_usage_bytes",
    "cgroup_anon_bytes",
    "commit_bytes",
    "cpu_user_ns",
    "cpu_system_ns",
)
"""Of the last sample; those of another system are None."""


def memory_figures(latest: MemorySample | None) -> dict[str, int | None]:
    """What the last sample says; nothing before the first."""
    if latest is None:
        return {}
    figures: dict[str, int | None] = {name: getattr(latest, name, None) for name in TOLD}
    return figures | {"resident_bytes": latest.resident_bytes}


def memory_limit_bytes(limits: Iterable[LimitRecord]) -> int | None:
    """The hard limit that is in force; None without one."""
    for limit in limits:
        if limit.name == "memory_max_bytes" and limit.enforced:
            return int(limit.asked if limit.read_back is None else limit.read_back)
    return None

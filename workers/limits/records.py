"""From limits asked for to records of what is in force."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from results.record import LimitRecord
from workers.spec import LimitsSpec

LimitName = Literal["memory_max_bytes", "memory_high_bytes", "cpus", "working_set_max_bytes"]
Setter = Callable[[float], tuple[float | None, str]]
"""Sets one limit. Gives the value read back and, where it does not hold, why; may raise OSError."""

CPU_PERIOD_US = 100_000
"""Period of CPU bandwidth control: the kernel's own default."""

_NOT_OFFERED = "Linux has no limit of this kind: working sets are Windows'"
_PAGE_BYTES = 65_536
"""Largest page size in use: the kernel rounds a memory limit to whole pages."""


def asked_limits(limits: LimitsSpec) -> list[tuple[LimitName, float]]:
    """The limits that were asked for, in the order in which they are set."""
    values: list[tuple[LimitName, float | None]] = [
        ("memory_high_bytes", limits.memory_high_bytes),
        ("memory_max_bytes", limits.memory_max_bytes),
        ("cpus", limits.cpus),
        ("working_set_max_bytes", limits.working_set_max_bytes),
    ]
    return [(name, value) for name, value in values if value is not None]


def apply_each(
    limits: LimitsSpec,
    mechanism: str,
    setters: dict[LimitName, Setter],
    *,
    cpus_step: float = 1 / CPU_PERIOD_US,
) -> list[LimitRecord]:
    """Set every limit that was asked for and record what the system then says.

    A limit without a setter is one that this system does not offer. `cpus_step` is the least
    difference of two CPU limits.
    """
    return [
        _apply_one(name, asked, mechanism, setters.get(name, _not_offered), cpus_step)
        for name, asked in asked_limits(limits)
    ]


def _not_offered(_asked: float) -> tuple[float | None, str]:
    return None, _NOT_OFFERED


def _apply_one(
    name: LimitName, asked: float, mechanism: str, setter: Setter, cpus_step: float
) -> LimitRecord:
    try:
        read_back, reason = setter(asked)
    except (OSError, ValueError) as error:
        read_back, reason = None, f"could not be set: {error}"
    if not reason and not _same(name, asked, read_back, cpus_step):
        reason = f"the system says {read_back} after {asked} was set"
    return LimitRecord(
        name=name,
        asked=asked,
        read_back=read_back,
        enforced=not reason,
        mechanism=mechanism,
        reason=reason,
    )


def _same(name: LimitName, asked: float, read_back: float | None, cpus_step: float) -> bool:
    """Whether a limit read back is the one asked for, but for the system's own rounding."""
    if read_back is None:
        return False
    tolerance = 1.5 * cpus_step if name == "cpus" else _PAGE_BYTES
    return abs(read_back - asked) < tolerance

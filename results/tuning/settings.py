"""A setting of the collector, and the settings that may be tried."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from results.gomodel import GOGC_DEFAULT, OFF, GoService
from results.units import UNITS_BYTES

MIB: Final = 2**20
GOGCS: Final = (
    10.0, 15.0, 20.0, 25.0, 30.0, 40.0, 50.0, 60.0, 75.0, 100.0, 125.0, 150.0, 200.0, 300.0, 400.0,
    600.0, 800.0, OFF,
)  # fmt: skip
"""What GOGC may be where the matrix names no values."""

LIMITS: Final = 16
"""How many values of GOMEMLIMIT are between the least and the greatest."""

GREATEST_GOGC: Final = 300.0
"""A limit that leaves as much as this GOGC would take is the greatest that is tried."""

NAME_MAX: Final = 42
"""Letters that a configuration's name may have."""

Others = tuple[tuple[str, Any], ...]
"""Settings of the matrix's other axes, such as (("go", "1.23"),)."""


@dataclass(frozen=True, slots=True)
class Setting:
    """GOGC in percent and GOMEMLIMIT in bytes, both infinite for `off`, and other axes' values."""

    gogc: float = GOGC_DEFAULT
    memlimit_bytes: float = OFF
    others: Others = ()

    @property
    def bounded(self) -> bool:
        """Whether anything makes the collector begin."""
        return math.isfinite(self.gogc) or math.isfinite(self.memlimit_bytes)

    @property
    def environment(self) -> dict[str, str]:
        """Both variables as Go reads them."""
        return {"GOGC": self.gogc_text, "GOMEMLIMIT": memlimit_text(self.memlimit_bytes)}

    @property
    def gogc_text(self) -> str:
        """As Go reads it."""
        return f"{self.gogc:.0f}" if math.isfinite(self.gogc) else "off"

    @property
    def text(self) -> str:
        """As in `GOGC=50 GOMEMLIMIT=240MiB go=1.23`; what is off is not said but for GOGC."""
        limit = self.environment["GOMEMLIMIT"]
        parts = [f"GOGC={self.gogc_text}"] + ([f"GOMEMLIMIT={limit}"] if limit != "off" else [])
        parts += [f"{name.rpartition('.')[2]}={value}" for name, value in self.others]
        return " ".join(parts)

    @property
    def name(self) -> str:
        """A configuration's name: the text in the letters that one may have."""
        plain = re.sub(r"[^a-z0-9.]+", "-", self.text.lower()).strip("-.")
        if len(plain) <= NAME_MAX:
            return plain
        digest = hashlib.sha256(plain.encode()).hexdigest()[:8]
        return f"{plain[: NAME_MAX - 9].rstrip('-.')}-{digest}"

    def to_plain(self) -> dict[str, Any]:
        """As JSON, spelled as Go reads it."""
        return self.environment | {"others": dict(self.others)}


def memlimit_text(size_bytes: float) -> str:
    """A size in the largest of Go's units that leaves a whole number: `240MiB`; `off` for none."""
    if math.isinf(size_bytes):
        return "off"
    whole = round(size_bytes)
    units = [(unit, size) for unit, size in UNITS_BYTES.items() if unit != "TiB"]
    unit, size = next((u, s) for u, s in reversed(units) if whole % s == 0)
    return f"{whole // size}{unit}"


def whole_mib(size_bytes: float) -> float:
    """Rounded to whole MiB, at least one."""
    return float(max(1, round(size_bytes / MIB)) * MIB)


@dataclass(frozen=True, slots=True)
class Space:
    """What may be tried: each list ascending; `others` are combinations of the other axes."""

    gogcs: tuple[float, ...]
    limits: tuple[float, ...]
    others: tuple[Others, ...] = ((),)

    def __iter__(self) -> Iterator[Setting]:
        """All settings that are bounded by something."""
        for others in self.others:
            for limit in self.limits:
                for gogc in self.gogcs:
                    if (setting := Setting(gogc, limit, others)).bounded:
                        yield setting


def limits_for(service: GoService, most_bytes: float = OFF) -> tuple[float, ...]:
    """GOMEMLIMITs from where half of the CPU goes to the collector, up to what GOGC=300 takes.

    `most_bytes` bounds them. Whole MiB, each once, and `off`.
    """
    least = service.memlimit_for_gc_share(0.5)
    most = min(float(service.peak_bytes(GREATEST_GOGC)), most_bytes)
    if most <= least:
        return (OFF,)
    steps = [least * (most / least) ** (n / (LIMITS - 1)) for n in range(LIMITS)]
    return (*sorted({whole_mib(step) for step in steps}), OFF)

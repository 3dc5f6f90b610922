"""Amounts as people write them: durations, rates, sizes, shares, numbers.

Each function takes what YAML gave and returns base units (nanoseconds, requests per second, bytes),
or raises ValueError with what would be right.
"""

from __future__ import annotations

import re
from typing import Any

UNITS_NS = {"ns": 1, "us": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}
UNITS_BYTES = {"B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}
_DECIMAL_BYTES = {"KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
NUMBER = r"[0-9]{1,15}(?:\.[0-9]{1,15})?"
_DURATION_PART = re.compile(rf"({NUMBER})(ns|us|ms|s|m|h)")
_DURATION = re.compile(rf"(?:{NUMBER}(?:ns|us|ms|s|m|h))+")
_RATE = re.compile(rf"({NUMBER})\s*(?:/|per)\s*(s|m|h)")
_SIZE = re.compile(rf"({NUMBER})\s*([A-Za-z]+)")
INT64_MAX = 2**63 - 1
_DURATION_MAX_NS = 366 * 24 * UNITS_NS["h"]
_RATE_MAX_RPS = 10_000_000
_SHOWN_CHARACTERS_MAX = 80


def word(value: Any, wanted: str) -> str:
    """The text of one word or number; nothing, yes and no, lists and mappings are none."""
    if isinstance(value, (str, int, float)) and not isinstance(value, bool):
        return str(value).strip()
    raise ValueError(f"{wanted} is wanted here")


def duration_ns(value: Any, *, zero: bool = False) -> int:
    """`300ms`, `5m`, `1m30s` → nanoseconds; more than zero unless `zero`."""
    text = word(value, "a duration such as 300ms, 30s, 5m or 1m30s")
    if text in ("0", "0s"):
        if zero:
            return 0
        raise ValueError(f"duration {text} must be more than zero; write for example 30s")
    if re.fullmatch(rf"-?{NUMBER}", text):
        raise ValueError(f"duration {text} has no unit; write for example {text.lstrip('-')}s")
    if text.startswith("-"):
        raise ValueError(f"duration {text} is negative")
    if not _DURATION.fullmatch(text):
        raise ValueError(
            f"{shortened(text)} is not a duration; write for example 300ms, 30s, 5m or 1m30s"
        )
    total_ns = sum(float(n) * UNITS_NS[unit] for n, unit in _DURATION_PART.findall(text))
    if round(total_ns) == 0 and not zero:
        raise ValueError(f"duration {text} must be more than zero")
    if total_ns > _DURATION_MAX_NS:
        raise ValueError(f"duration {text} is more than a year")
    return round(total_ns)


def whole_number(value: Any) -> int:
    """A whole number; its bounds are checked where it is used."""
    text = word(value, "a whole number")
    if not re.fullmatch(r"-?[0-9]{1,18}", text):
        raise ValueError(f"{shortened(text)} is not a whole number")
    return int(text)


def number(value: Any) -> float:
    """A number, with a fraction or without."""
    text = word(value, "a number")
    if not re.fullmatch(rf"-?{NUMBER}", text):
        raise ValueError(f"{shortened(text)} is not a number")
    return float(text)


def shortened(value: Any) -> str:
    """A value as it is shown in messages, which nobody reads when they are pages long."""
    text = "nothing" if value is None else repr(value)
    return text if len(text) <= _SHOWN_CHARACTERS_MAX else f"{text[:_SHOWN_CHARACTERS_MAX]}…"


def duration_text(ns: int) -> str:
    """Nanoseconds as one writes them, in the largest unit that leaves a whole number."""
    unit = next(u for u, size in reversed(UNITS_NS.items()) if ns % size == 0)
    return f"{ns // UNITS_NS[unit]}{unit}" if ns else "0s"


def rate_rps(value: Any, *, zero: bool = False) -> float:
    """`400/s` or `90/m` → per second; more than zero unless `zero`."""
    text = word(value, "a rate such as 400/s or 90/m")
    if zero and text == "0":
        return 0.0
    if re.fullmatch(rf"-?{NUMBER}", text):
        raise ValueError(f"rate {text} has no unit; write for example {text.lstrip('-')}/s")
    if text.startswith("-"):
        raise ValueError(f"rate {text} is negative")
    found = _RATE.fullmatch(text)
    if not found:
        raise ValueError(f"{shortened(text)} is not a rate; write for example 400/s or 90/m")
    rate = float(found[1]) / (UNITS_NS[found[2]] / 1e9)
    if rate == 0 and not zero:
        raise ValueError(f"rate {text} must be more than zero")
    if rate > _RATE_MAX_RPS:
        raise ValueError(f"rate {text} is more than {_RATE_MAX_RPS:,} a second")
    return rate


def size_bytes(value: Any) -> int:
    """`1280MiB`, `4GiB`, `2GB` → bytes, more than zero."""
    text = word(value, "a size such as 512MiB or 4GiB")
    if re.fullmatch(rf"-?{NUMBER}", text):
        raise ValueError(f"size {text} has no unit; write for example {text.lstrip('-')}MiB")
    if text.startswith("-"):
        raise ValueError(f"size {text} is negative")
    found = _SIZE.fullmatch(text)
    units = UNITS_BYTES | _DECIMAL_BYTES
    if not found or found[2] not in units:
        raise ValueError(f"{shortened(text)} is not a size; write for example 512MiB or 4GiB")
    size = round(float(found[1]) * units[found[2]])
    if size == 0:
        raise ValueError(f"size {text} must be more than zero")
    if size > INT64_MAX:
        raise ValueError(f"size {text} is more than any machine has")
    return size


def share(value: Any) -> float:
    """`90%` → 0.9; between 0 and 1, both excluded."""
    text = word(value, "a share such as 2%")
    found = re.fullmatch(rf"({NUMBER})%", text)
    if not found or not 0 < float(found[1]) < 100:
        raise ValueError(f"{shortened(text)} is not a share; write for example 2%")
    return float(found[1]) / 100

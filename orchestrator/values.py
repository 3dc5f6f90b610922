"""What a matrix may say in one word: durations, rates, sizes, and the settings of the Go runtime.

Each function takes what YAML gave and returns base units (nanoseconds, requests per second, bytes),
or raises ValueError with what would be right. Go's rules are those of its runtime: GOMEMLIMIT as in
runtime/mgcpacer.go `readGOMEMLIMIT` and runtime/string.go `parseByteCount`, GOGC as in `readGOGC`.
"""

from __future__ import annotations

import re
from typing import Any

UNITS_NS = {"ns": 1, "us": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}
UNITS_BYTES = {"B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}
_DECIMAL_BYTES = {"KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_NUMBER = r"[0-9]{1,15}(?:\.[0-9]{1,15})?"
_DURATION_PART = re.compile(rf"({_NUMBER})(ns|us|ms|s|m|h)")
_DURATION = re.compile(rf"(?:{_NUMBER}(?:ns|us|ms|s|m|h))+")
_RATE = re.compile(rf"({_NUMBER})\s*(?:/|per)\s*(s|m|h)")
_SIZE = re.compile(rf"({_NUMBER})\s*([A-Za-z]+)")
_GO_BYTES = re.compile(r"[0-9]+(?:(?:[KMGT]i)?B)?")
_INT32_MAX = 2**31 - 1
_INT64_MAX = 2**63 - 1
_DURATION_MAX_NS = 366 * 24 * UNITS_NS["h"]
_RATE_MAX_RPS = 10_000_000
_SHOWN_CHARACTERS_MAX = 80
_JVM_FLAG = re.compile(r"-X(?:X:|m[xsn]\d|ss\d|loggc|bootclasspath)|-javaagent:|-Djava\.")
JVM_VARIABLES = {"JAVA_OPTS", "JAVA_TOOL_OPTIONS", "JDK_JAVA_OPTIONS", "_JAVA_OPTIONS"}


def _word(value: Any, wanted: str) -> str:
    """The text of one word or number; nothing, yes and no, lists and mappings are none."""
    if isinstance(value, (str, int, float)) and not isinstance(value, bool):
        return str(value).strip()
    raise ValueError(f"{wanted} is wanted here")


def duration_ns(value: Any, *, zero: bool = False) -> int:
    """`300ms`, `5m`, `1m30s` → nanoseconds; more than zero unless `zero`."""
    text = _word(value, "a duration such as 300ms, 30s, 5m or 1m30s")
    if text in ("0", "0s"):
        if zero:
            return 0
        raise ValueError(f"duration {text} must be more than zero; write for example 30s")
    if re.fullmatch(rf"-?{_NUMBER}", text):
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
    text = _word(value, "a whole number")
    if not re.fullmatch(r"-?[0-9]{1,18}", text):
        raise ValueError(f"{shortened(text)} is not a whole number")
    return int(text)


def number(value: Any) -> float:
    """A number, with a fraction or without."""
    text = _word(value, "a number")
    if not re.fullmatch(rf"-?{_NUMBER}", text):
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
    text = _word(value, "a rate such as 400/s or 90/m")
    if zero and text == "0":
        return 0.0
    if re.fullmatch(rf"-?{_NUMBER}", text):
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
    text = _word(value, "a size such as 512MiB or 4GiB")
    if re.fullmatch(rf"-?{_NUMBER}", text):
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
    if size > _INT64_MAX:
        raise ValueError(f"size {text} is more than any machine has")
    return size


def share(value: Any) -> float:
    """`90%` → 0.9; between 0 and 1, both excluded."""
    text = _word(value, "a share such as 2%")
    found = re.fullmatch(rf"({_NUMBER})%", text)
    if not found or not 0 < float(found[1]) < 100:
        raise ValueError(f"{shortened(text)} is not a share; write for example 2%")
    return float(found[1]) / 100


def go_version(value: Any) -> str:
    """`1.22` or `1.22.10`."""
    text = _word(value, "a Go release such as 1.22 or 1.22.10").removeprefix("go")
    if not re.fullmatch(r"1\.[0-9]{1,3}(?:\.[0-9]{1,3})?", text):
        raise ValueError(
            f"Go version {shortened(text)} is not a release; write for example 1.22 or 1.22.10"
        )
    return text


def gomemlimit(value: str) -> str:
    """What Go accepts: digits, then nothing, B, KiB, MiB, GiB or TiB; or `off`.

    A share of the hard limit such as `90%` passes too: it is resolved before a node sees it.
    """
    if value == "off":
        return value
    if _GO_BYTES.fullmatch(value):
        return _fits_int64(value)
    if value.endswith("%"):
        share(value)
        return value
    text = f"GOMEMLIMIT {value!r} is not valid; Go accepts B, KiB, MiB, GiB, TiB."
    raise ValueError(f"{text} {_meant(value.strip())}")


def _fits_int64(value: str) -> str:
    digits = value.rstrip("KMGTiB").lstrip("0")
    if len(digits) > 19 or (gomemlimit_bytes(value) or 0) > _INT64_MAX:
        raise ValueError(f"GOMEMLIMIT {value!r} is not valid: it does not fit in 64 bits")
    return value


def _meant(value: str) -> str:
    found = re.fullmatch(rf"({_NUMBER})\s*([KMGT])(?:i?[bB]?)?", value, re.IGNORECASE)
    if not found:
        return "Write for example 1280MiB, or off"
    number, unit = float(found[1]), f"{found[2].upper()}iB"
    if number != int(number):
        number, unit = number * 1024, _smaller(unit)
    return f"Did you mean {number:.0f}{unit}?"


def _smaller(unit: str) -> str:
    names = list(UNITS_BYTES)
    return names[names.index(unit) - 1]


def gomemlimit_bytes(value: str) -> int | None:
    """The bytes of a GOMEMLIMIT that Go accepts; None for `off` and for a share."""
    found = re.fullmatch(r"([0-9]+)((?:[KMGT]i)?B)?", value)
    return int(found[1]) * UNITS_BYTES[found[2] or "B"] if found else None


def gogc(value: str) -> str:
    """`off` or a whole number; Go takes anything else for 100 without a word."""
    if value == "off":
        return value
    if not re.fullmatch(r"-?[0-9]+", value):
        digits = re.search(r"[0-9]+", value)
        hint = f"Did you mean {digits[0]}?" if digits else "Write a whole number of percent, or off"
        raise ValueError(f"GOGC {value!r} is not valid: Go would silently use 100 instead. {hint}")
    number = int(value[:20])
    if abs(number) > _INT32_MAX:
        raise ValueError(f"GOGC {value[:20]} is too large: Go would silently use 100 instead")
    if number < 0:
        raise ValueError(f"GOGC {value} means off to Go; write off if that is meant")
    if number == 0:
        raise ValueError("GOGC 0 collects without end; the smallest useful value is 1")
    return value


def gomaxprocs(value: str) -> str:
    """A whole number above zero; Go ignores anything else without a word."""
    if not re.fullmatch(r"[1-9][0-9]{0,5}", value):
        raise ValueError(f"GOMAXPROCS {value!r} is not valid: Go would silently ignore it")
    return value


GO_VARIABLES = {"GOGC": gogc, "GOMEMLIMIT": gomemlimit, "GOMAXPROCS": gomaxprocs}


def environment_value(value: Any) -> str:
    """A variable's text; YAML's numbers and truth values as they were written."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (str, int)):
        text = str(value)
        if "\0" in text:
            raise ValueError("a variable's value can't hold a NUL character")
        return text
    raise ValueError("a variable's value must be text or a number")


def is_jvm_flag(text: str) -> bool:
    """Whether a flag of the Java virtual machine is in it, which a Go service does not have."""
    return any(_JVM_FLAG.match(word) for word in text.split())

"""What a matrix may say in one word: the amounts of `results.units`, and Go's own settings.

Each function takes what YAML gave, or raises ValueError with what would be right. Go's rules are
those of its runtime: GOMEMLIMIT as in runtime/mgcpacer.go `readGOMEMLIMIT` and runtime/string.go
`parseByteCount`, GOGC as in `readGOGC`.
"""

from __future__ import annotations

import re
from typing import Any

from results.units import (
    INT64_MAX,
    NUMBER,
    UNITS_BYTES,
    UNITS_NS,
    duration_ns,
    duration_text,
    number,
    rate_rps,
    share,
    shortened,
    size_bytes,
    whole_number,
    word,
)

__all__ = [
    "GO_VARIABLES",
    "JVM_VARIABLES",
    "UNITS_BYTES",
    "UNITS_NS",
    "duration_ns",
    "duration_text",
    "environment_value",
    "go_version",
    "gogc",
    "gomaxprocs",
    "gomemlimit",
    "gomemlimit_bytes",
    "is_jvm_flag",
    "number",
    "rate_rps",
    "share",
    "shortened",
    "size_bytes",
    "whole_number",
]

_GO_BYTES = re.compile(r"[0-9]+(?:(?:[KMGT]i)?B)?")
_INT32_MAX = 2**31 - 1
_JVM_FLAG = re.compile(r"-X(?:X:|m[xsn]\d|ss\d|loggc|bootclasspath)|-javaagent:|-Djava\.")
JVM_VARIABLES = {"JAVA_OPTS", "JAVA_TOOL_OPTIONS", "JDK_JAVA_OPTIONS", "_JAVA_OPTIONS"}


def go_version(value: Any) -> str:
    """`1.22` or `1.22.10`."""
    text = word(value, "a Go release such as 1.22 or 1.22.10").removeprefix("go")
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
    if len(digits) > 19 or (gomemlimit_bytes(value) or 0) > INT64_MAX:
        raise ValueError(f"GOMEMLIMIT {value!r} is not valid: it does not fit in 64 bits")
    return value


def _meant(value: str) -> str:
    found = re.fullmatch(rf"({NUMBER})\s*([KMGT])(?:i?[bB]?)?", value, re.IGNORECASE)
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

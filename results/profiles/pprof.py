"""pprof profiles → what each function costs: flat (itself) and cumulative (with what it called);
and what each stack of calls costs.

A profile is a gzip-compressed message (`proto/heapgate/profile/v1/profile.proto`). It comes from
the service under test, so nothing in it is trusted: a reference that leads nowhere is an error, and
what grows beyond PROFILE_BYTES_MAX when it is unpacked is none that Go has written.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from google.protobuf.message import DecodeError

from results.wire import profile_pb2 as wire

PROFILE_BYTES_MAX: Final = 128 * 2**20
_GZIP: Final = 16 + zlib.MAX_WBITS


class BadProfile(ValueError):
    """These bytes are no profile; the text says what is wrong."""


@dataclass(frozen=True, slots=True)
class Cost:
    """What one function costs in one quantity of a profile.

    `quantity` is such as inuse_space with its `unit` (bytes). `flat` is what the function itself
    did, `cumulative` that and all that it called; `total` is that of all samples.
    """

    quantity: str
    unit: str
    function: str
    file: str
    flat: int
    cumulative: int
    total: int


@dataclass(frozen=True, slots=True)
class Stack:
    """What one stack of calls costs in one quantity of a profile; `calls` begins outermost."""

    quantity: str
    unit: str
    calls: tuple[str, ...]
    value: int


def costs(content: bytes) -> Iterator[Cost]:
    """What each function of a profile costs, quantity by quantity. Raises BadProfile."""
    yield from costs_and_stacks(content)[0]


def costs_and_stacks(content: bytes) -> tuple[list[Cost], list[Stack]]:
    """What each function and what each stack of a profile costs. Raises BadProfile."""
    profile = _parsed(content)
    found: list[Cost] = []
    whole: list[Stack] = []
    try:
        stacks = list(_stacks(profile))
        quantities = [_quantity(profile, kind) for kind in profile.sample_type]
        names = {f.id: _named(profile, f) for f in profile.function}
        for place, (quantity, unit) in enumerate(quantities):
            own = [(stack, values[place]) for stack, values in stacks]
            found += _costs_of(quantity, unit, own, names)
            whole += _stacks_of(quantity, unit, own, names)
    except (IndexError, KeyError) as error:
        raise BadProfile(f"it names something that is not in it: {error}") from error
    return found, whole


def _parsed(content: bytes) -> wire.Profile:
    unpacking = zlib.decompressobj(_GZIP)
    try:
        plain = unpacking.decompress(content, PROFILE_BYTES_MAX)
        if unpacking.unconsumed_tail:
            raise BadProfile(f"it unpacks to more than {PROFILE_BYTES_MAX:,} bytes")
        if not unpacking.eof:
            raise BadProfile("it is cut off")
        return wire.Profile.FromString(plain)
    except zlib.error as error:
        raise BadProfile(f"not compressed as a profile is: {error}") from error
    except DecodeError as error:
        raise BadProfile(f"not a profile: {error}") from error


def _quantity(profile: wire.Profile, kind: wire.ValueType) -> tuple[str, str]:
    return profile.string_table[kind.type], profile.string_table[kind.unit]


def _named(profile: wire.Profile, function: wire.Function) -> tuple[str, str]:
    return profile.string_table[function.name], profile.string_table[function.filename]


def _stacks(profile: wire.Profile) -> Iterator[tuple[list[int], list[int]]]:
    """The functions of each sample, innermost first, an inlined one for itself; its values."""
    frames = {place.id: [line.function_id for line in place.line] for place in profile.location}
    for sample in profile.sample:
        yield [f for place in sample.location_id for f in frames[place]], list(sample.value)


def _costs_of(
    quantity: str,
    unit: str,
    stacks: list[tuple[list[int], int]],
    names: dict[int, tuple[str, str]],
) -> Iterator[Cost]:
    flat: dict[tuple[str, str], int] = {}
    cumulative: dict[tuple[str, str], int] = {}
    for stack, value in stacks:
        if not value:
            continue
        called = [names[function] for function in stack]
        for function in dict.fromkeys(called):  # a function that calls itself counts once
            cumulative[function] = cumulative.get(function, 0) + value
        if called:
            flat[called[0]] = flat.get(called[0], 0) + value
    total = sum(value for _, value in stacks)
    for function, value in sorted(cumulative.items()):
        yield Cost(quantity, unit, *function, flat.get(function, 0), value, total)


def _stacks_of(
    quantity: str,
    unit: str,
    stacks: list[tuple[list[int], int]],
    names: dict[int, tuple[str, str]],
) -> Iterator[Stack]:
    """Stacks by the names of their functions: places within a function are put together."""
    sums: dict[tuple[str, ...], int] = {}
    for stack, value in stacks:
        calls = tuple(names[function][0] for function in reversed(stack))
        if value and calls:
            sums[calls] = sums.get(calls, 0) + value
    for calls, value in sorted(sums.items()):
        yield Stack(quantity, unit, calls, value)

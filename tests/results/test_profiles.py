"""Profiles become rows: what each function costs, trial by trial and beside the baseline."""

from __future__ import annotations

import contextlib
import gzip
import zlib
from pathlib import Path

import pytest
from archives import EPOCH_NS, MIB, pprof, reseal, write_archive, write_table
from hypothesis import given
from hypothesis import strategies as st

from results.archive.archive import Archive
from results.archive.verify import verify_run
from results.profiles import pprof as reading
from results.profiles.pprof import BadProfile, Stack, costs, costs_and_stacks
from results.sql.database import open_database
from results.wire import profile_pb2


def told(content: bytes) -> dict[str, tuple[int, int]]:
    return {cost.function: (cost.flat, cost.cumulative) for cost in costs(content)}


def test_flat_is_the_innermost_s_and_cumulative_everybody_s_once() -> None:
    content = pprof(
        {
            ("main", "serve", "decode"): 100,
            ("main", "serve"): 10,
            ("main", "walk", "walk", "walk"): 5,  # calls itself
            ("main", "idle"): 0,
        }
    )
    assert told(content) == {
        "main": (0, 115),
        "serve": (10, 110),
        "decode": (100, 100),
        "walk": (5, 5),
    }
    assert {(c.quantity, c.unit, c.total) for c in costs(content)} == {
        ("inuse_space", "bytes", 115)
    }


def test_a_stack_begins_outermost_and_is_told_once() -> None:
    """Two places of the same function are one stack; what costs nothing is none."""
    content = pprof({("main", "serve", "decode"): 100, ("main", "idle"): 0, ("main",): 3})
    profile = profile_pb2.Profile.FromString(gzip.decompress(content))
    profile.location.append(profile_pb2.Location(id=99, line=profile.location[0].line))
    profile.sample.append(profile_pb2.Sample(location_id=profile.sample[0].location_id, value=[7]))
    profile.sample[-1].location_id[0] = 99
    _, stacks = costs_and_stacks(gzip.compress(profile.SerializeToString()))
    assert stacks == [
        Stack("inuse_space", "bytes", ("main",), 3),
        Stack("inuse_space", "bytes", ("main", "serve", "decode"), 107),
    ]


@given(st.dictionaries(st.lists(st.sampled_from("abc"), min_size=1).map(tuple), st.integers(0, 9)))
def test_stacks_tell_the_same_as_functions(stacks: dict[tuple[str, ...], int]) -> None:
    found, whole = costs_and_stacks(pprof(stacks))
    total = sum(stacks.values())
    assert sum(stack.value for stack in whole) == total
    assert all(cost.total == total for cost in found)
    for cost in found:
        assert cost.flat == sum(s.value for s in whole if s.calls[-1] == cost.function)
        assert cost.cumulative == sum(s.value for s in whole if cost.function in s.calls)


def test_an_inlined_call_is_a_frame_of_its_own() -> None:
    profile = profile_pb2.Profile.FromString(gzip.decompress(pprof({("outer", "inner"): 7})))
    numbers = {profile.string_table[f.name]: f.id for f in profile.function}
    place = profile_pb2.Location(
        id=99,
        line=[
            profile_pb2.Line(function_id=numbers["inner"]),
            profile_pb2.Line(function_id=numbers["outer"]),
        ],
    )
    profile.location.append(place)
    profile.sample[0].location_id[:] = [99]
    assert told(gzip.compress(profile.SerializeToString())) == {"inner": (7, 7), "outer": (0, 7)}


def test_what_is_no_profile_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = pprof({("main",): 1})
    monkeypatch.setattr(reading, "PROFILE_BYTES_MAX", 10_000)
    bad = {
        "not compressed": b"heap profile: 1: 2 [3: 4] @ heap/1048576\n",
        "cut off": whole[:-9],
        "more than": gzip.compress(bytes(100_000)),
        "not a profile": gzip.compress(b"\xff" * 100),
        "not in it": gzip.compress(
            profile_pb2.Profile(
                sample_type=[profile_pb2.ValueType(type=7, unit=8)]
            ).SerializeToString()
        ),
    }
    for why, content in bad.items():
        with pytest.raises(BadProfile, match=why):
            list(costs(content))


@given(st.binary(max_size=300), st.booleans())
def test_any_bytes_are_a_profile_or_a_named_error(data: bytes, compressed: bool) -> None:
    with contextlib.suppress(BadProfile):
        list(costs(gzip.compress(data) if compressed else data))


@given(st.data())
def test_a_damaged_profile_is_read_or_named(data: st.DataObject) -> None:
    plain = bytearray(zlib.decompress(pprof({("a", "b"): 1, ("c",): 2}), 31))
    for at in data.draw(st.lists(st.integers(0, len(plain) - 1), max_size=4)):
        plain[at] = data.draw(st.integers(0, 255))
    with contextlib.suppress(BadProfile):
        list(costs(gzip.compress(bytes(plain))))


def test_what_a_configuration_saves_is_named_by_function(tmp_path: Path) -> None:
    """The baseline keeps 100 MiB in main.keep, the candidate 40, of which 30 in a new function."""
    root = write_archive(
        tmp_path,
        configurations={"default": {}, "optimised": {"initial_rss_bytes": 40 * MIB}},
        blocks=3,
    )
    for path in root.glob("*/trials/*-optimised-*/profile_files.arrow"):
        content = pprof(
            {("main.main", "main.keep"): 10 * MIB, ("main.main", "main.pool"): 30 * MIB}
        )
        row = {"time_ns": EPOCH_NS, "phase": "cooldown", "kind": "heap", "reason": "end"}
        write_table(path, [row | {"took_ns": 1, "resident_bytes": None, "content": content}])
        reseal(path.parent)
    with open_database(root) as database:
        found = database.query(
            "select function, baseline_flat, flat, flat_change, cumulative_change, profiles"
            " from profile_diff"
        ).to_pylist()
        top = database.query(
            "select function, rank, flat_share, cumulative_share from profiles"
            " where configuration = 'optimised' and block = 2"
        ).to_pylist()
    names = ("function", "baseline_flat", "flat", "flat_change", "cumulative_change", "profiles")
    assert found == [
        dict(zip(names, row, strict=True))
        for row in (
            ("main.keep", 100 * MIB, 10 * MIB, -90 * MIB, -90 * MIB, 3),
            ("main.pool", 0, 30 * MIB, 30 * MIB, 30 * MIB, 3),
            ("main.main", 0, 0, 0, -60 * MIB, 3),
        )
    ]
    assert [tuple(row.values()) for row in top] == [
        ("main.pool", 1, 0.75, 0.75),
        ("main.keep", 2, 0.25, 0.25),
        ("main.main", 3, 0, 1),
    ]


def test_a_broken_profile_is_noted_and_the_others_are_rows(tmp_path: Path) -> None:
    root = write_archive(tmp_path, blocks=2)
    path = next(root.glob("*/trials/b01-*/profile_files.arrow"))
    row = {"time_ns": EPOCH_NS, "phase": "cooldown", "reason": "end", "took_ns": 1}
    write_table(
        path,
        [
            row | {"kind": "heap", "content": b"page not found"},
            row | {"kind": "trace", "content": b"go 1.23 trace\0\0\0"},
        ],
    )
    reseal(path.parent)
    with open_database(root) as database:
        found = database.query("select distinct block from profiles").to_pylist()
        assert found == [{"block": 2}]
        assert [note for note in database.notes if "b01-1-default-steady" in note]


def test_the_files_are_in_the_archive_and_verified(tmp_path: Path) -> None:
    root = write_archive(tmp_path, blocks=1)
    (run,) = Archive(root).runs()
    assert list(verify_run(run)) == []
    path = next(root.glob("*/trials/*/profile_files.arrow"))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    assert [damage.path for damage in verify_run(run)] == [path]

"""Limits and the kernel's account of a group.

What needs a real control group uses one, on cgroup v1 or v2, whichever carries the memory
controller, and is skipped elsewhere. Folders made by a test stand for cgroup v2 only where the
form of its files is read.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.limits import Limiter, open_limiter, remove_run_groups, run_groups
from workers.limits.cgroup_v2 import parse_cpu_max, parse_limit, parse_pressure, writable_base
from workers.limits.groupfolder import CounterFile, group_folder, number_in, value_of
from workers.limits.hierarchies import find_hierarchies, parse_mounts, parse_own_groups
from workers.limits.none import NoLimits
from workers.spec import LimitsSpec

MIB = 2**20
RUN = f"test-limits-{os.getpid()}"

EATER = """\
import sys
held = []
for size in map(int, sys.stdin):
    held = bytearray(size)
    held[::4096] = bytes([1]) * len(held[::4096])
    print(size, flush=True)
"""


def wait_for(condition: Callable[[], object], what: str) -> None:
    until_s = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < until_s, f"waited in vain for {what}"
        os.sched_yield()


class Member:
    """A process in the group that holds as many bytes as it is told."""

    def __init__(self, limiter: Limiter) -> None:
        join = "".join(f"echo $$ > {path}; " for path in limiter.join_paths)
        self.process = subprocess.Popen(
            ["/bin/sh", "-c", f'{join}exec "$0" -c "$1"', sys.executable, EATER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.hold(0)

    def hold(self, size_bytes: int) -> bool:
        """Give back what it held, hold this instead; False when it died of it."""
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write(f"{size_bytes}\n")
        self.process.stdin.flush()
        return self.process.stdout.readline() == f"{size_bytes}\n"

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe
            pipe.close()


@pytest.fixture
def limiter(needs_memory_cgroup: None) -> Iterator[Limiter]:
    made = open_limiter(RUN, "b1-1-default-steady")
    assert made.reason == ""
    yield made
    made.remove()
    assert RUN not in run_groups()


@pytest.fixture
def member(limiter: Limiter) -> Iterator[Member]:
    made = Member(limiter)
    yield made
    made.end()


def test_every_limit_is_read_back(limiter: Limiter) -> None:
    asked = LimitsSpec(memory_max_bytes=256 * MIB, memory_high_bytes=200 * MIB, cpus=1.5)
    records = {record.name: record for record in limiter.apply(asked)}
    assert set(records) == {"memory_max_bytes", "memory_high_bytes", "cpus"}
    assert records["memory_max_bytes"].enforced
    assert records["memory_max_bytes"].read_back == 256 * MIB
    assert records["cpus"].enforced and records["cpus"].read_back == 1.5
    high = records["memory_high_bytes"]
    assert high.read_back == 200 * MIB
    if limiter.mechanism == "cgroup v1":
        assert not high.enforced and "soft limit" in high.reason


def test_only_what_was_asked_for_is_recorded(limiter: Limiter) -> None:
    assert limiter.apply(LimitsSpec()) == []


def test_a_limit_that_the_kernel_changes_is_not_called_enforced(limiter: Limiter) -> None:
    (record,) = limiter.apply(LimitsSpec(cpus=0.001))
    assert not record.enforced
    assert record.reason


def test_the_group_counts_its_members(limiter: Limiter, member: Member) -> None:
    assert limiter.processes() == [member.process.pid]
    before = limiter.read()
    assert member.hold(64 * MIB)
    after = limiter.read()
    assert before and after and before.usage_bytes and after.usage_bytes
    assert before.anon_bytes is not None and after.anon_bytes is not None
    assert 63 * MIB < after.usage_bytes - before.usage_bytes < 80 * MIB
    assert after.usage_bytes - before.usage_bytes > 0
    wait_for(lambda: _anon(limiter) >= 63 * MIB, "the statistics")
    assert after.oom_kills == 0


def _anon(limiter: Limiter) -> int:
    counters = limiter.read()
    return counters.anon_bytes or 0 if counters else 0


def test_a_peak_outlives_the_memory_and_can_be_begun_anew(limiter: Limiter, member: Member) -> None:
    assert member.hold(96 * MIB)
    assert member.hold(1 * MIB)
    counters = limiter.read()
    assert counters and counters.peak_bytes and counters.peak_bytes > 96 * MIB
    if not limiter.reset_peak():
        pytest.skip("this kernel can't reset a group's peak")
    counters = limiter.read()
    assert counters and counters.peak_bytes and counters.peak_bytes < 60 * MIB
    assert member.hold(48 * MIB)
    counters = limiter.read()
    assert counters and counters.peak_bytes and 48 * MIB < counters.peak_bytes < 96 * MIB


def test_a_look_at_the_group_tells_of_its_own_instant(limiter: Limiter, member: Member) -> None:
    assert member.hold(96 * MIB)
    look = limiter.look()
    assert member.hold(0)
    now, then = limiter.read(), limiter.counters(look)
    assert now and now.usage_bytes and then and then.usage_bytes
    assert then.usage_bytes > 96 * MIB > now.usage_bytes
    limiter.remove()
    assert limiter.counters(look) == then
    assert limiter.counters(limiter.look()) is None


def test_the_hard_limit_kills_and_is_counted(limiter: Limiter, member: Member) -> None:
    limiter.apply(LimitsSpec(memory_max_bytes=64 * MIB))
    assert member.hold(32 * MIB), "below the limit nothing happens"
    assert limiter.oom_kills() == 0
    assert not member.hold(256 * MIB)
    assert member.process.wait(20) == -signal.SIGKILL
    counters = limiter.read()
    assert counters and counters.oom_kills == 1
    assert counters.limit_hits and counters.limit_hits > 0
    assert counters.peak_bytes and counters.peak_bytes <= 64 * MIB + 65_536
    limiter.remove()
    assert limiter.oom_kills() == 1, "still known when the group is gone"
    assert limiter.read() is None


def test_a_cpu_limit_throttles(limiter: Limiter) -> None:
    (record,) = limiter.apply(LimitsSpec(cpus=0.2))
    assert record.enforced
    join = "".join(f"echo $$ > {path}; " for path in limiter.join_paths)
    program = (
        "import time; t = time.monotonic(); c = time.process_time()\n"
        "while time.monotonic() - t < 1: pass\n"
        "print(time.process_time() - c)"
    )
    used = subprocess.run(
        ["/bin/sh", "-c", f'{join}exec "$0" -c "$1"', sys.executable, program],
        capture_output=True,
        check=True,
        text=True,
    )
    assert float(used.stdout) < 0.5, "CPU time in one second of spinning"


def test_removal_ends_what_is_left(limiter: Limiter, member: Member) -> None:
    limiter.remove()
    assert member.process.wait(20) == -signal.SIGKILL
    assert not any(Path(path).exists() for path in limiter.join_paths)
    assert limiter.read() is None and limiter.processes() == []
    limiter.remove()


def test_what_a_killed_run_left_is_found_and_removed(needs_memory_cgroup: None) -> None:
    groups = [open_limiter(RUN, f"b{n}-1-default-steady") for n in (1, 2)]
    other = open_limiter(f"{RUN}-other", "b1-1-default-steady")
    try:
        member, stranger = Member(groups[1]), Member(other)
        try:
            assert {RUN, f"{RUN}-other"} <= set(run_groups())
            removed = remove_run_groups(RUN)
            assert member.process.wait(20) == -signal.SIGKILL
            assert stranger.process.poll() is None, "another run is none of our business"
        finally:
            member.end()
            stranger.end()
    finally:
        for left in (*groups, other):
            left.remove()
    assert str(Path(groups[0].join_paths[0]).parent) in removed
    assert RUN not in run_groups()
    assert remove_run_groups(RUN) == []


def test_a_group_of_that_name_is_made_afresh(needs_memory_cgroup: None) -> None:
    first = open_limiter(RUN, "same")
    member = Member(first)
    try:
        second = open_limiter(RUN, "same")
        assert member.process.wait(20) == -signal.SIGKILL
        assert second.processes() == []
        second.remove()
    finally:
        member.end()
        first.remove()


@pytest.mark.parametrize("name", ["..", "a/b", "", ".hidden", "a b"])
def test_no_name_leads_out_of_our_folder(name: str) -> None:
    with pytest.raises(ValueError, match="can't be the name"):
        group_folder(Path("/sys/fs/cgroup"), name, "t")
    with pytest.raises(ValueError, match="can't be the name"):
        group_folder(Path("/sys/fs/cgroup"), "r", name)


def test_a_trial_of_a_group_of_nodes_has_a_group_of_its_name(needs_memory_cgroup: None) -> None:
    made = open_limiter(RUN, "b1-1-default-steady@linux~2")
    try:
        assert made.mechanism.startswith("cgroup")
        assert made.join_paths
    finally:
        made.remove()


def test_without_groups_every_record_says_why() -> None:
    limiter = NoLimits("no cgroups on this machine")
    records = limiter.apply(LimitsSpec(memory_max_bytes=MIB, cpus=1))
    assert [(r.name, r.enforced, r.read_back, r.reason) for r in records] == [
        ("memory_max_bytes", False, None, "no cgroups on this machine"),
        ("cpus", False, None, "no cgroups on this machine"),
    ]
    assert limiter.read() is None and not limiter.reset_peak() and limiter.processes() == []


def test_a_limit_of_windows_is_not_in_force_here(needs_memory_cgroup: None) -> None:
    limiter = open_limiter(f"test-limits-{os.getpid()}", "b1-1-default-steady")
    try:
        (limit,) = limiter.apply(LimitsSpec(working_set_max_bytes=64 * MIB))
    finally:
        limiter.remove()
    assert (limit.name, limit.enforced) == ("working_set_max_bytes", False)
    assert "no limit of this kind" in limit.reason


# From here on: the form of files


def test_pressure() -> None:
    text = (
        b"some avg10=0.22 avg60=0.17 avg300=1.11 total=58761459\n"
        b"full avg10=0.23 avg60=0.16 avg300=1.08 total=58464525\n"
    )
    assert parse_pressure(text) == (58_761_459_000, 58_464_525_000)
    assert parse_pressure(b"") == (None, None)
    assert parse_pressure(None) == (None, None)


def test_v2_limits() -> None:
    assert parse_cpu_max("150000 100000\n") == 1.5
    assert parse_cpu_max("max 100000\n") is None
    assert parse_limit("max\n") is None
    assert parse_limit("268435456\n") == 256 * MIB


@given(
    st.dictionaries(
        st.from_regex(r"[a-z_]{1,12}", fullmatch=True), st.integers(0, 2**63 - 1), min_size=1
    )
)
def test_every_key_of_a_flat_file_is_found(values: dict[str, int]) -> None:
    text = "".join(f"{key} {value}\n" for key, value in values.items()).encode()
    for key, value in values.items():
        assert value_of(text, key.encode()) == value
    assert value_of(text, b"no such key") is None


@given(st.binary(), st.binary(max_size=3))
def test_any_bytes_in_a_flat_file(text: bytes, key: bytes) -> None:
    value_of(text, key)


MOUNTS = """\
30 23 0:26 / /sys/fs/cgroup ro,nosuid - tmpfs tmpfs ro,mode=755
31 30 0:27 / /sys/fs/cgroup/unified rw,nosuid - cgroup2 cgroup2 rw,nsdelegate
33 30 0:29 / /sys/fs/cgroup/memory rw,nosuid shared:11 - cgroup cgroup rw,memory
34 30 0:30 /docker/1 /odd\\040place rw - cgroup cgroup rw,cpu,cpuacct
junk
"""


def test_mounts() -> None:
    unified, memory, cpu = parse_mounts(MOUNTS)
    assert unified.unified and unified.point == Path("/sys/fs/cgroup/unified")
    assert not memory.unified and "memory" in memory.controllers
    assert cpu.point == Path("/odd place") and cpu.root == "/docker/1"
    assert {"cpu", "cpuacct"} <= cpu.controllers


def test_own_groups() -> None:
    text = "4:cpu,cpuacct:/a\n3:memory:/b:c\n0::/user.slice\n"
    assert parse_own_groups(text) == {
        "cpu": "/a",
        "cpuacct": "/a",
        "memory": "/b:c",
        "": "/user.slice",
    }


def test_a_machine_without_cgroups(tmp_path: Path) -> None:
    found = find_hierarchies(tmp_path)
    assert found.version is None
    (tmp_path / "mountinfo").write_text("22 1 0:21 / /proc rw - proc proc rw\n")
    (tmp_path / "cgroup").write_text("")
    assert find_hierarchies(tmp_path).version is None


def test_a_unified_machine(tmp_path: Path) -> None:
    mount = tmp_path / "mount"
    own = mount / "user.slice" / "session"
    own.mkdir(parents=True)
    (mount / "cgroup.controllers").write_text("cpu memory pids\n")
    proc = tmp_path / "proc"
    proc.mkdir()
    (proc / "mountinfo").write_text(f"31 30 0:27 / {mount} rw - cgroup2 cgroup2 rw\n")
    (proc / "cgroup").write_text("0::/user.slice/session\n")
    found = find_hierarchies(proc)
    assert found.version == "v2"
    assert (found.unified, found.unified_own) == (mount, own)


def test_the_base_is_the_highest_group_of_an_unbroken_chain(tmp_path: Path) -> None:
    own = tmp_path / "a" / "b" / "c"
    own.mkdir(parents=True)
    for folder in (own, own.parent, tmp_path):
        (folder / "cgroup.procs").touch()
        (folder / "cgroup.subtree_control").touch()
    assert writable_base(tmp_path, own) == own.parent, "a has no such files, so we end below it"
    assert writable_base(tmp_path, tmp_path / "a") is None


def test_a_counter_file_that_vanishes_is_none(tmp_path: Path) -> None:
    path = tmp_path / "memory.peak"
    path.write_text("123\n")
    file = CounterFile(path)
    assert number_in(file.read()) == 123
    file.close()
    assert number_in(file.read()) is None and not file.write(b"0")
    assert CounterFile(tmp_path / "absent").read() is None
    path.write_text("max\n")
    file = CounterFile(path)
    assert number_in(file.read()) is None
    file.close()

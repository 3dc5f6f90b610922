"""The sampler, against small real processes."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from results.clock import ClockMap
from results.schema import MEMORY
from workers.limits import Limiter, open_limiter
from workers.limits.none import NoLimits
from workers.sampling import windows as windows_sampling
from workers.sampling.cores import CoreUsage
from workers.sampling.linux import (
    MemorySample,
    ProcessReading,
    ProcessSampler,
    descendants,
    parse_process,
)
from workers.sampling.loop import COLUMNS, SampleLoop

MIB = 2**20
MS = 1_000_000
NO_GROUP = NoLimits("not used here")

# Does what its standard input says, one order a line, and answers each.
PUPPET = """\
import os, subprocess, sys, threading, time
child = None
for line in sys.stdin:
    order, number = line.split()
    if order == "hold":
        held = bytearray(int(number))
        held[::4096] = bytes([1]) * len(held[::4096])
    elif order == "spin":
        end = time.process_time() + int(number) / 1000
        while time.process_time() < end: pass
    elif order == "thread":
        for _ in range(int(number)):
            threading.Thread(target=threading.Event().wait, daemon=True).start()
    elif order == "child":
        child = subprocess.Popen([sys.executable, "-c", sys.argv[1], sys.argv[1]],
                                 stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    elif order == "tell-child":
        print("hold", number, file=child.stdin, flush=True)
        child.stdout.readline()
    elif order == "end-child":
        child.kill(); child.wait()
    print(child.pid if child else 0, flush=True)
"""


def wait_for(condition: Callable[[], object], what: str) -> None:
    until_s = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < until_s, f"waited in vain for {what}"
        threading.Event().wait(0.002)


class Puppet:
    """A process that does what it is told."""

    def __init__(self, join_paths: tuple[str, ...] = ()) -> None:
        join = "".join(f"echo $$ > {path}; " for path in join_paths)
        self.process = subprocess.Popen(
            ["/bin/sh", "-c", f'{join}exec "$0" -c "$1" "$1"', sys.executable, PUPPET],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.pid = self.process.pid
        self.do("hold", 0)

    def do(self, order: str, number: int = 0) -> int:
        """Give an order and wait until it is done; the answer is its child's id."""
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write(f"{order} {number}\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())

    def end(self) -> None:
        """End it, and with it its child, whose input ends."""
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe
            pipe.close()


@pytest.fixture
def puppet() -> Iterator[Puppet]:
    made = Puppet()
    yield made
    made.end()


@pytest.fixture
def sampler(puppet: Puppet) -> Iterator[ProcessSampler]:
    before = open_files()
    made = ProcessSampler(puppet.pid, NO_GROUP)
    yield made
    made.close()
    assert open_files() == before
    assert made.sample() is None, "closed"


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def take(sampler: ProcessSampler) -> MemorySample:
    sample = sampler.sample()
    assert sample
    return sample


def status_kib(pid: int, name: str) -> int:
    text = Path(f"/proc/{pid}/status").read_text()
    (line,) = [line for line in text.splitlines() if line.startswith(f"{name}:")]
    return int(line.split()[1])


def test_a_sample_is_what_the_kernel_says(puppet: Puppet, sampler: ProcessSampler) -> None:
    puppet.do("hold", 32 * MIB)
    puppet.do("thread", 3)
    sample = take(sampler)
    assert (sample.processes, sample.threads) == (1, 4)
    assert sample.rss_bytes == status_kib(puppet.pid, "VmRSS") * 1024
    assert sample.rss_anon_bytes == status_kib(puppet.pid, "RssAnon") * 1024 > 32 * MIB
    assert sample.rss_file_bytes == status_kib(puppet.pid, "RssFile") * 1024
    assert sample.virtual_bytes == status_kib(puppet.pid, "VmSize") * 1024
    assert sample.peak_rss_bytes == status_kib(puppet.pid, "VmHWM") * 1024
    assert sample.minor_faults > 0 and sample.cpu_user_ns + sample.cpu_system_ns >= 0
    assert sample.cgroup_usage_bytes is None, "no group: null, not 0"


def test_memory_cpu_and_faults_are_seen_to_grow(puppet: Puppet, sampler: ProcessSampler) -> None:
    before = take(sampler)
    puppet.do("hold", 64 * MIB)
    puppet.do("spin", 100)
    after = take(sampler)
    assert 64 * MIB <= after.rss_anon_bytes - before.rss_anon_bytes < 70 * MIB
    used_ns = after.cpu_user_ns + after.cpu_system_ns - before.cpu_user_ns - before.cpu_system_ns
    assert used_ns >= 80 * MS
    assert after.minor_faults > before.minor_faults


def test_the_peak_is_that_of_the_phase(puppet: Puppet, sampler: ProcessSampler) -> None:
    puppet.do("hold", 64 * MIB)
    puppet.do("hold", 0)
    peak = sampler.peak_rss_bytes()
    assert peak and peak > 64 * MIB
    assert sampler.reset_peak()
    peak = sampler.peak_rss_bytes()
    assert peak and peak < 48 * MIB
    puppet.do("hold", 40 * MIB)
    puppet.do("hold", 0)
    peak = sampler.peak_rss_bytes()
    assert peak and 40 * MIB < peak < 64 * MIB + 16 * MIB


def test_the_whole_tree_is_summed(
    puppet: Puppet, sampler: ProcessSampler, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.sampling.linux.DESCENDANTS_EVERY_NS", 0)
    alone = take(sampler)
    child = puppet.do("child")
    assert descendants(puppet.pid) == [child]
    puppet.do("tell-child", 48 * MIB)
    both = take(sampler)
    assert (both.processes, both.threads) == (2, alone.threads + 1)
    own_kib = status_kib(puppet.pid, "VmRSS") + status_kib(child, "VmRSS")
    assert both.rss_bytes == own_kib * 1024
    assert both.peak_rss_bytes == status_kib(puppet.pid, "VmHWM") * 1024, "of the main process"


def test_what_an_ended_child_used_is_not_lost(
    puppet: Puppet, sampler: ProcessSampler, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.sampling.linux.DESCENDANTS_EVERY_NS", 0)
    puppet.do("child")
    puppet.do("tell-child", 48 * MIB)
    with_child = take(sampler)
    puppet.do("end-child")
    without = take(sampler)
    assert without.processes == 1
    assert without.rss_bytes < with_child.rss_bytes - 40 * MIB
    assert without.minor_faults >= with_child.minor_faults
    assert without.cpu_user_ns >= with_child.cpu_user_ns


def test_a_look_tells_of_its_own_instant(puppet: Puppet, sampler: ProcessSampler) -> None:
    """Numbers are made of a look later: by then memory is another and the child has ended."""
    child = puppet.do("child")
    puppet.do("tell-child", 48 * MIB)
    puppet.do("hold", 32 * MIB)
    look = sampler.look()
    own_kib = status_kib(puppet.pid, "VmRSS") + status_kib(child, "VmRSS")
    puppet.do("hold", 0)
    puppet.do("end-child")
    sampler.list_again()
    later = take(sampler)
    assert look
    then = sampler.parse(look)
    assert (then.processes, then.rss_bytes) == (2, own_kib * 1024)
    assert (later.processes, sampler.parse(look)) == (1, then)
    assert later.minor_faults >= then.minor_faults


def test_an_ended_process_gives_no_sample(puppet: Puppet, sampler: ProcessSampler) -> None:
    take(sampler)
    puppet.process.kill()
    puppet.process.wait()
    assert sampler.sample() is None
    assert sampler.peak_rss_bytes() is None
    assert not sampler.reset_peak()


def test_a_zombie_gives_no_sample(puppet: Puppet, sampler: ProcessSampler) -> None:
    puppet.process.kill()
    os.waitid(os.P_PID, puppet.pid, os.WEXITED | os.WNOWAIT)
    assert sampler.sample() is None


def test_a_process_that_never_was() -> None:
    sampler = ProcessSampler(2**22 + 1, NO_GROUP)
    assert sampler.sample() is None and sampler.peak_rss_bytes() is None
    sampler.close()


@pytest.mark.parametrize("name", [b"plain", b"with blank", b") S 1 (", b"(((", b"\xff"])
def test_a_name_can_not_confuse_the_reading(name: bytes) -> None:
    status = (
        b"Name:\tx\nVmSize:\t  10 kB\nVmLck:\t 0 kB\nVmHWM:\t 9 kB\nVmRSS:\t 8 kB\n"
        b"RssAnon:\t 5 kB\nRssFile:\t 3 kB\nRssShmem:\t 0 kB\nVmSwap:\t 1 kB\nThreads:\t4\n"
    )
    stat = b"7 (" + name + b") S 1 7 7 0 -1 4194304 100 200 11 22 33 44 55 66 20 0 4 0 9\n"
    assert parse_process(status, stat) == ProcessReading(10, 9, 8, 5, 3, 1, 4, 100, 11, 33, 44)


@given(st.binary(), st.binary())
def test_any_bytes_are_read_without_failing(status: bytes, stat: bytes) -> None:
    assert parse_process(status, stat) is None


class Rows:
    """A sink that takes only what fits the memory table."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []

    def __call__(self, columns: dict[str, list[Any]]) -> None:
        absent = dict.fromkeys(
            set(MEMORY.arrow.names) - set(columns), [None] * len(columns["time_ns"])
        )
        self.rows += pa.RecordBatch.from_pydict(columns | absent, MEMORY.arrow).to_pylist()


class Phase:
    """The trial's phase, as the loop asks for it."""

    def __init__(self) -> None:
        self.name = "startup"

    def __call__(self) -> str:
        return self.name


def make_loop(
    pid: int, limiter: Limiter = NO_GROUP, *, interval_ns: int = 10 * MS, **others: Any
) -> SampleLoop:
    others = {"sink": Rows(), "phase": Phase(), "clock": ClockMap.read()} | others
    return SampleLoop(pid, limiter, interval_ns=interval_ns, **others)


def test_both_systems_columns_make_the_memory_table() -> None:
    here, windows = set(COLUMNS), {"time_ns", "phase", *windows_sampling.MemorySample._fields}
    assert here | windows == set(MEMORY.arrow.names)
    # Only what means the same on both may share a column.
    shared = {"time_ns", "phase", "processes", "threads", "cpu_user_ns", "cpu_system_ns"}
    assert here & windows == shared


def test_rows_come_at_their_instants(puppet: Puppet) -> None:
    rows, clock = Rows(), ClockMap.read()
    loop = make_loop(puppet.pid, sink=rows, clock=clock)
    before_ns = clock.now_ns()
    loop.start()
    wait_for(lambda: loop.samples >= 20, "20 samples")
    loop.stop()
    times = [row["time_ns"] for row in rows.rows]
    assert len(times) == loop.samples
    assert times == sorted(set(times))
    assert before_ns <= times[0] and times[-1] <= clock.now_ns()
    passed = (times[-1] - times[0]) / (10 * MS)
    assert loop.samples + loop.gaps == pytest.approx(passed + 1, abs=1.5)
    assert loop.latest and loop.latest.rss_bytes == rows.rows[-1]["rss_bytes"]
    assert loop.cpu_ns > 0


def test_the_loop_ends_with_its_process(puppet: Puppet) -> None:
    rows = Rows()
    loop = make_loop(puppet.pid, sink=rows)
    loop.start()
    wait_for(lambda: loop.samples >= 3, "some samples")
    puppet.process.kill()
    puppet.process.wait()
    wait_for(lambda: not loop._thread.is_alive(), "the end of the thread")
    assert len(rows.rows) == loop.samples, "the last rows are handed over without a stop"
    loop.stop()


def test_missed_instants_are_counted_and_told(puppet: Puppet) -> None:
    events: list[tuple[str, str, str, float | None]] = []
    held_up = threading.Event()

    def slow_phase() -> str:
        if loop.samples == 2 and not held_up.is_set():
            held_up.set()
            threading.Event().wait(0.1)
        return "idle"

    loop = make_loop(puppet.pid, phase=lambda: "idle", on_event=lambda *event: events.append(event))
    loop._phase = slow_phase
    loop.start()
    wait_for(lambda: loop.samples >= 6, "samples after the hold-up")
    loop.stop()
    assert loop.gaps >= 9
    assert {event[:2] for event in events} == {("sample_gap", "warning")}
    assert sum(event[3] or 0 for event in events) == loop.gaps


@pytest.mark.parametrize("interval_ns", [0, -1, 9 * MS, 1001 * MS])
def test_a_rate_out_of_bounds_is_refused(interval_ns: int) -> None:
    with pytest.raises(ValueError, match="10 ms to 1 s"):
        make_loop(os.getpid(), interval_ns=interval_ns)


def test_a_broken_sink_is_told_at_the_end(puppet: Puppet) -> None:
    def fail(_columns: dict[str, list[Any]]) -> None:
        raise RuntimeError("spool is broken")

    loop = make_loop(puppet.pid, sink=fail)
    loop.start()
    wait_for(lambda: loop.samples >= 1, "a sample")
    with pytest.raises(RuntimeError, match="spool is broken"):
        loop.stop()


def test_peaks_by_phase(puppet: Puppet) -> None:
    rows, phase = Rows(), Phase()
    loop = make_loop(puppet.pid, sink=rows, phase=phase)
    loop.start()
    puppet.do("hold", 96 * MIB)
    puppet.do("hold", 0)
    phase.name = "idle"
    startup = loop.begin_phase("startup")
    puppet.do("hold", 40 * MIB)
    puppet.do("hold", 0)
    phase.name = "measure"
    idle = loop.begin_phase("idle")
    loop.stop()
    assert (startup.phase, idle.phase) == ("startup", "idle")
    assert startup.rss_bytes and startup.rss_bytes > 96 * MIB
    assert idle.rss_bytes and 40 * MIB < idle.rss_bytes < 80 * MIB
    assert startup.cgroup_bytes is None
    for row in rows.rows:
        if row["phase"] == "idle" and row["peak_rss_bytes"] is not None:
            # The kernel keeps the peak by a counter that may lag by some pages a core.
            assert row["peak_rss_bytes"] <= idle.rss_bytes + MIB


def test_samples_are_known_before_they_are_handed_over(
    puppet: Puppet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.sampling.loop.FLUSH_EVERY_NS", 3600 * 1000 * MS)
    rows, phase = Rows(), Phase()
    loop = make_loop(puppet.pid, sink=rows, phase=phase)
    assert loop.latest is None
    loop.start()
    puppet.do("hold", 64 * MIB)
    held = loop.samples
    wait_for(lambda: loop.samples >= held + 2, "samples of it")
    assert loop.latest and loop.latest.rss_bytes > 64 * MIB
    puppet.do("hold", 0)
    phase.name = "idle"
    startup = loop.begin_phase("startup")
    assert startup.sampled_rss_bytes and startup.sampled_rss_bytes > 64 * MIB
    assert rows.rows == []
    loop.stop()
    assert len(rows.rows) == loop.samples
    assert loop.latest and loop.latest.rss_bytes == rows.rows[-1]["rss_bytes"]


def test_a_phase_ends_with_a_sample_whatever_the_interval(puppet: Puppet) -> None:
    rows, phase = Rows(), Phase()
    loop = make_loop(puppet.pid, sink=rows, phase=phase, interval_ns=1000 * MS)
    loop.start()
    wait_for(lambda: loop.samples >= 1, "a sample")
    child = puppet.do("child")
    before_ns = loop.end_phase()
    assert loop.latest and loop.latest.processes == 2, "the list of processes is made anew"
    phase.name = "measure"
    after_ns = loop.end_phase()
    puppet.end()
    loop.stop()
    assert before_ns is not None and after_ns is not None and after_ns >= before_ns
    assert loop.end_phase() is None, "it has ended"
    in_measure = [row for row in rows.rows if row["phase"] == "measure"]
    assert child and in_measure
    assert in_measure[0]["cpu_user_ns"] + in_measure[0]["cpu_system_ns"] <= after_ns


def test_a_peak_of_the_phase_before_is_never_a_row_of_the_next(puppet: Puppet) -> None:
    rows, phase = Rows(), Phase()
    loop = make_loop(puppet.pid, sink=rows, phase=phase)
    puppet.do("hold", 64 * MIB)
    puppet.do("hold", 0)
    loop.start()
    wait_for(lambda: loop.samples >= 2, "samples")
    # The phase has changed, but nobody has begun a new peak yet.
    phase.name = "idle"
    wait_for(lambda: loop.samples >= 10, "samples in the new phase")
    loop.stop()
    by_phase = {row["phase"]: row["peak_rss_bytes"] for row in rows.rows}
    assert by_phase["startup"] > 64 * MIB
    assert by_phase["idle"] is None


def test_a_peak_that_can_not_be_reset_is_unknown(
    puppet: Puppet, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, phase = Rows(), Phase()
    loop = make_loop(puppet.pid, sink=rows, phase=phase)
    monkeypatch.setattr(loop._sampler, "reset_peak", lambda: False)
    loop.start()
    phase.name = "idle"
    assert loop.begin_phase("startup").rss_bytes
    first = loop.samples
    wait_for(lambda: loop.samples >= first + 3, "samples")
    phase.name = "measure"
    assert loop.begin_phase("idle").rss_bytes is None
    loop.stop()
    assert {row["peak_rss_bytes"] for row in rows.rows if row["phase"] == "idle"} == {None}


def test_the_group_s_columns(needs_memory_cgroup: None) -> None:
    limiter = open_limiter(f"test-sampling-{os.getpid()}", "b1-1-default-steady")
    puppet = Puppet(limiter.join_paths)
    rows, phase = Rows(), Phase()
    try:
        loop = make_loop(puppet.pid, limiter, sink=rows, phase=phase)
        loop.start()
        child = puppet.do("child")
        puppet.do("hold", 64 * MIB)
        puppet.do("hold", 0)
        phase.name = "idle"
        startup = loop.begin_phase("startup")
        wait_for(lambda: loop.latest and loop.latest.processes == 2, "the child to be seen")
        loop.stop()
        assert sorted(limiter.processes()) == sorted([puppet.pid, child])
    finally:
        puppet.end()
        limiter.remove()
    assert startup.cgroup_bytes and startup.cgroup_bytes > 64 * MIB
    last = rows.rows[-1]
    assert last["cgroup_usage_bytes"] > last["cgroup_anon_bytes"] > MIB
    assert last["cgroup_peak_bytes"] >= last["cgroup_usage_bytes"]
    assert last["cgroup_file_bytes"] is not None
    assert (last["cgroup_limit_hits"], last["cgroup_oom_kills"]) == (0, 0)


def test_busy_cores() -> None:
    cores = tuple(sorted(os.sched_getaffinity(0)))
    before = CoreUsage.read(cores)
    end_s = time.process_time() + 0.2
    while time.process_time() < end_s:
        pass
    used = CoreUsage.read(cores).since(before)
    assert used.busy_ns >= 150 * MS
    assert used.steal_ns >= 0
    assert CoreUsage.read(()) == CoreUsage(0, 0)

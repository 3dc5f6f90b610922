"""The service's output: trace lines become rows, its own lines a log, and it is never held up."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.builds.toolchains import Toolchain
from results.clock import ClockMap
from results.schema import GC
from workers.sampling import gctrace
from workers.sampling.gctrace import COLUMNS, LineSplitter, StderrReader, parse_line
from workers.sampling.pipes import SelectedPipes, ThreadedPipes

MIB = 2**20

# Written by a program built with Go 1.22.10 and with 1.23.9.
CYCLE_122 = (
    "gc 3 @0.003s 5%: 0.012+0.080+0.001 ms clock, 0.024+0.069/0.017/0.004+0.003 ms cpu, "
    "13->13->10 MB, 13 MB goal, 0 MB stacks, 0 MB globals, 2 P"
)
FORCED_122 = (
    "gc 11 @0.065s 1%: 0.009+0.094+0.002 ms clock, 0.018+0/0.064/0.048+0.005 ms cpu, "
    "231->231->201 MB, 370 MB goal, 0 MB stacks, 0 MB globals, 2 P (forced)"
)
CYCLE_123 = (
    "gc 2 @0.000s 21%: 0.11+0.14+0.002 ms clock, 0.23+0.050/0.041/0+0.005 ms cpu, "
    "8->8->6 MB, 8 MB goal, 0 MB stacks, 0 MB globals, 2 P"
)
SCAVENGE_122 = "scav 768 KiB work (bg), 0 KiB work (eager), 250216 KiB now, 10% util"
SCAVENGE_FORCED_123 = (
    "scav 0 KiB work (bg), 253952 KiB work (eager), 264712 KiB now, 99% util (forced)"
)


def test_a_cycle_of_go_1_22() -> None:
    assert parse_line(CYCLE_122) == {
        "kind": "cycle",
        "cycle": 3,
        "forced": False,
        "since_start_ns": 3_000_000,
        "gc_cpu_share_since_start": 0.05,
        "stw_sweep_ns": 12_000,
        "concurrent_ns": 80_000,
        "stw_mark_ns": 1_000,
        "cpu_stw_sweep_ns": 24_000,
        "cpu_assist_ns": 69_000,
        "cpu_background_ns": 17_000,
        "cpu_idle_ns": 4_000,
        "cpu_stw_mark_ns": 3_000,
        "heap_start_bytes": 13 * MIB,
        "heap_end_bytes": 13 * MIB,
        "heap_live_bytes": 10 * MIB,
        "heap_goal_bytes": 13 * MIB,
        "stacks_bytes": 0,
        "globals_bytes": 0,
        "procs": 2,
    }


def test_a_forced_cycle() -> None:
    row = parse_line(FORCED_122)
    assert row and row["forced"] and row["cycle"] == 11 and row["cpu_assist_ns"] == 0


def test_a_cycle_of_go_1_23() -> None:
    row = parse_line(CYCLE_123)
    assert row and not row["forced"] and row["cpu_stw_sweep_ns"] == 230_000


def test_the_scavenger() -> None:
    assert parse_line(SCAVENGE_122) == {
        "kind": "scavenge",
        "forced": False,
        "released_background_bytes": 768 * 1024,
        "released_eager_bytes": 0,
        "released_now_bytes": 250216 * 1024,
        "heap_utilisation": 0.10,
    }
    row = parse_line(SCAVENGE_FORCED_123)
    assert row and row["forced"] and row["released_eager_bytes"] == 253952 * 1024
    assert parse_line(SCAVENGE_122 + " [controller reset]")


@pytest.mark.parametrize(
    "line",
    [
        "",
        "gc",
        CYCLE_122[:-1],
        CYCLE_122 + " ",
        CYCLE_122.replace("2 P", "2 P (forced) (forced)"),
        CYCLE_122.replace("13->13", "13->-13"),
        CYCLE_122.replace("13 MB goal", "9" * 40 + " MB goal"),
        CYCLE_122.replace("gc 3", "gc ٣"),
        "gc 2024-01-01 started",
        SCAVENGE_122.replace("10%", "10"),
    ],
)
def test_what_only_looks_like_a_trace_line(line: str) -> None:
    assert parse_line(line) is None


RECORDED = sorted(Path(__file__).with_name("gctrace").glob("go-*.txt"))


@pytest.mark.parametrize("path", RECORDED, ids=lambda path: path.stem)
def test_every_line_that_a_real_runtime_wrote(path: Path) -> None:
    """One file for each Go release, written by tests/services/collecting."""
    rows = [parse_line(line) for line in path.read_text().splitlines()]
    assert None not in rows
    _as_arrow([row for row in rows if row])
    cycles = [row for row in rows if row and row["kind"] == "cycle"]
    assert [row["cycle"] for row in cycles] == list(range(1, len(cycles) + 1))
    assert any(row["cpu_assist_ns"] for row in cycles)
    assert sum(row["forced"] for row in cycles) >= 2
    since = [row["since_start_ns"] for row in cycles]
    assert since == sorted(since)
    scavenges = [row for row in rows if row and row["kind"] == "scavenge"]
    assert any(row["released_background_bytes"] for row in scavenges)
    assert any(row["released_eager_bytes"] for row in scavenges)
    assert any(row["forced"] for row in scavenges)


def test_lines_of_every_release_are_there() -> None:
    assert [path.stem for path in RECORDED] == [f"go-1.{minor}" for minor in range(21, 28)]
    searched = [path.stem for path in RECORDED if "goroutine leaks" in path.read_text()]
    assert searched == ["go-1.26", "go-1.27"]


recorded_lines = st.sampled_from([line for path in RECORDED for line in path.open("rb")])


@given(recorded_lines, recorded_lines, st.binary(max_size=30), st.data())
def test_a_torn_line_is_never_read_as_another(
    line: bytes, other: bytes, words: bytes, data: st.DataObject
) -> None:
    """A report with foreign bytes in its midst gives no row, or the row that was written."""
    at = data.draw(st.integers(0, len(line) - 1))
    torn = line[:at] + data.draw(st.sampled_from([words, other])) + line[at:]
    told = [parse_line(text.decode("ascii", "replace")) for text in torn.split(b"\n")]
    written = [parse_line(text.decode("ascii").strip()) for text in (line, other)]
    digits = words.strip().isdigit()  # the runtime's own digits can't be told from foreign ones
    assert digits or all(row is None or row in written for row in told)


counts = st.integers(0, 10**10 - 1)
thousandths = st.integers(0, 10**9 - 1)


def _ms(value: int) -> str:
    return f"{value // 1000}.{value % 1000:03}"


@given(st.lists(thousandths, min_size=9, max_size=9), st.lists(counts, min_size=9, max_size=9))
def test_every_cycle_line_is_read_as_it_was_written(times: list[int], sizes: list[int]) -> None:
    a, b, c, d, e, f, g, h, since = map(_ms, times)
    cycle, share, start, end, live, goal, stacks, globals_, procs = sizes
    row = parse_line(
        f"gc {cycle} @{since}s {share}%: {a}+{b}+{c} ms clock, {d}+{e}/{f}/{g}+{h} ms cpu, "
        f"{start}->{end}->{live} MB, {goal} MB goal, {stacks} MB stacks, {globals_} MB globals, "
        f"{procs} P"
    )
    assert row
    assert row["since_start_ns"] == times[8] * 10**6
    assert [value for name, value in row.items() if name in gctrace._CYCLE_TIMES] == [
        value * 1000 for value in times[:8]
    ]
    assert [value for name, value in row.items() if name in gctrace._CYCLE_SIZES] == [
        value * MIB for value in (start, end, live, goal, stacks, globals_)
    ]
    assert (row["cycle"], row["procs"]) == (cycle, procs)
    _as_arrow([row])


@given(counts, counts, counts, counts, st.booleans())
def test_every_scavenge_line_is_read_as_it_was_written(
    background: int, eager: int, now: int, utilisation: int, forced: bool
) -> None:
    row = parse_line(
        f"scav {background} KiB work (bg), {eager} KiB work (eager), {now} KiB now, "
        f"{utilisation}% util{' (forced)' * forced}"
    )
    assert row and row["forced"] is forced
    assert row["released_background_bytes"] == background * 1024
    assert row["released_eager_bytes"] == eager * 1024
    assert row["released_now_bytes"] == now * 1024
    _as_arrow([row])


def _as_arrow(rows: list[dict[str, Any]]) -> pa.RecordBatch:
    stamped = [{"time_ns": 1, "phase": "measure"} | row for row in rows]
    return pa.RecordBatch.from_pylist(stamped, schema=GC.arrow)


def test_the_columns_are_those_of_the_gc_table() -> None:
    assert {"time_ns", "phase", *COLUMNS} == set(GC.arrow.names)


@given(st.text())
def test_no_text_makes_the_parser_fail(text: str) -> None:
    parse_line(text)
    parse_line("gc " + text)
    parse_line("scav " + text)


@given(st.lists(st.binary(max_size=50)))
def test_lines_do_not_depend_on_how_the_bytes_are_cut(pieces: list[bytes]) -> None:
    splitter = LineSplitter()
    lines = [line for piece in pieces for line in splitter.feed(piece)] + splitter.rest()
    whole = b"".join(pieces).split(b"\n")
    assert lines == (whole if whole[-1] else whole[:-1])


def test_a_line_without_end_is_not_hoarded() -> None:
    splitter = LineSplitter()
    lines = splitter.feed(b"x" * (3 * gctrace.LINE_BYTES_MAX + 5))
    assert [len(line) for line in lines] == [gctrace.LINE_BYTES_MAX] * 3
    assert splitter.rest() == [b"xxxxx"]


class Output:
    """Pipes like those of a service, their reader, and what it made of them."""

    def __init__(self, log: Path, phase: Callable[[], str] = lambda: "measure") -> None:
        self.log = log
        self.rows: list[dict[str, Any]] = []
        output_read, self.output = os.pipe()
        error_read, self.error = os.pipe()
        self.reader = StderrReader(
            output_read,
            error_read,
            log_path=log,
            sink=self.take,
            phase=phase,
            clock=ClockMap.read(),
        )

    def take(self, columns: dict[str, list[Any]]) -> None:
        batch = pa.RecordBatch.from_pydict(columns, schema=GC.arrow)
        self.rows += batch.to_pylist()

    def finish(self) -> None:
        """The service ends."""
        self.close()
        self.reader.join()

    def close(self) -> None:
        for name in ("output", "error"):
            descriptor = getattr(self, name)
            if descriptor >= 0:
                os.close(descriptor)
                setattr(self, name, -1)


@pytest.fixture(params=[SelectedPipes, ThreadedPipes])
def output(
    tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Output]:
    """The reader, with the pipes of Linux and with those of Windows."""
    monkeypatch.setattr("workers.sampling.gctrace.Pipes", request.param)
    open_before = len(list(Path("/proc/self/fd").iterdir()))
    made = Output(tmp_path / "service.log")
    made.reader.start()
    yield made
    made.close()
    made.reader._thread.join(10)
    assert not made.reader._thread.is_alive()
    for thread in [t for t in threading.enumerate() if t.name == "pipe"]:
        thread.join(10)
    assert len(list(Path("/proc/self/fd").iterdir())) == open_before


def test_own_lines_and_trace_lines_are_kept_apart(output: Output) -> None:
    os.write(output.error, f"starting\n{CYCLE_122}\n{SCAVENGE_122}\nlast".encode())
    os.write(output.output, b"listening\n")
    output.finish()
    assert [row["kind"] for row in output.rows] == ["cycle", "scavenge"]
    assert {row["phase"] for row in output.rows} == {"measure"}
    assert sorted(output.log.read_text().splitlines()) == ["last", "listening", "starting"]
    assert set(output.reader.last_lines) == {"last", "listening", "starting"}
    assert output.reader.fatal is None


def test_trace_text_on_standard_output_is_the_service_s_own(output: Output) -> None:
    os.write(output.output, f"{CYCLE_122}\n".encode())
    output.finish()
    assert output.rows == []
    assert output.log.read_text() == f"{CYCLE_122}\n"


def test_a_torn_trace_line_is_kept_and_counted(output: Output) -> None:
    os.write(output.error, f"{CYCLE_122[:20]}own words\n{CYCLE_122[20:]}\n".encode())
    output.finish()
    assert output.rows == []
    assert output.reader.torn == 1
    assert output.log.read_text() == f"{CYCLE_122[:20]}own words\n{CYCLE_122[20:]}\n"


def test_how_a_death_is_told(output: Output) -> None:
    os.write(output.error, b"serving\npanic: assignment to entry in nil map\n\ngoroutine 1:\n")
    os.write(output.error, b"".join(b"\tframe %d\n" % n for n in range(500)))
    output.finish()
    assert output.reader.fatal == "panic: assignment to entry in nil map"
    assert output.reader.last_lines[:2] == (output.reader.fatal, "goroutine 1:")
    assert len(output.reader.last_lines) == gctrace.LAST_LINES


def test_any_bytes(output: Output) -> None:
    os.write(output.error, b"\xff\xfe\x00gc 1 @\n" + bytes(range(256)) + b"\n")
    output.finish()
    assert output.log.read_bytes() == b"\xff\xfe\x00gc 1 @\n" + bytes(range(256)) + b"\n"


def test_a_talkative_service_is_not_held_up(
    output: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gctrace, "LOG_BYTES_MAX", 100_000)
    text = b"".join(b"line %06d\n" % n for n in range(100_000))
    subprocess.run(["/bin/cat"], input=text, stdout=output.error, check=True, timeout=30)
    output.finish()
    log = output.log.read_bytes()
    assert len(log) < 100_000 + 200 * gctrace.LAST_LINE_CHARS
    assert log.startswith(b"line 000000\n")
    assert log.endswith(b"line 099999\n")
    (cut,) = [line for line in log.splitlines() if not line.startswith(b"line")]
    assert log.count(b"line 0") + int(cut[1:].split()[0]) == 100_000


def test_a_failing_sink_does_not_stop_the_reading(tmp_path: Path) -> None:
    def fail(_columns: dict[str, list[Any]]) -> None:
        raise RuntimeError("spool is broken")

    output = Output(tmp_path / "log")
    output.reader._sink = fail
    output.reader.start()
    # More than both pipes hold: this would block if nobody read them.
    text = f"{CYCLE_122}\n".encode() * 5_000
    subprocess.run(["/bin/cat"], input=text, stdout=output.error, check=True, timeout=30)
    with pytest.raises(RuntimeError, match="spool is broken"):
        output.finish()


def test_pipes_that_stay_open_are_left(output: Output) -> None:
    os.write(output.error, f"{CYCLE_122}\nstill here\n".encode())
    output.reader.join(timeout_s=0.2)
    assert len(output.rows) == 1
    assert output.log.read_text() == "still here\n"


def test_the_phase_is_that_of_the_moment(tmp_path: Path) -> None:
    phase = ["idle"]
    seen = threading.Event()

    def current() -> str:
        now = phase[0]
        seen.set()
        return now

    output = Output(tmp_path / "log", current)
    output.reader.start()
    os.write(output.error, f"{CYCLE_122}\n".encode())
    assert seen.wait(10)
    phase[0] = "measure"
    os.write(output.error, f"{CYCLE_123}\n".encode())
    output.finish()
    assert [row["phase"] for row in output.rows] == ["idle", "measure"]


PROGRAM = """\
package main

import "runtime"

var keep []byte

func main() {
\tfor i := 0; i < 50; i++ {
\t\tkeep = make([]byte, 1<<20)
\t}
\truntime.GC()
\tprintln("own words")
\tpanic("the end")
}
"""


def test_a_real_go_program(toolchain: Toolchain, tmp_path: Path, output: Output) -> None:
    (tmp_path / "main.go").write_text(PROGRAM)
    (tmp_path / "go.mod").write_text("module example\n\ngo 1.21\n")
    subprocess.run(
        [toolchain.go, "build", "-o", "program", "."],
        cwd=tmp_path,
        env=os.environ | {"GOTOOLCHAIN": "local"},
        check=True,
    )
    subprocess.run(
        [tmp_path / "program"],
        env={"GODEBUG": "gctrace=1,scavtrace=1"},
        stdout=output.output,
        stderr=output.error,
        check=False,
    )
    output.finish()
    cycles = [row for row in output.rows if row["kind"] == "cycle"]
    assert [row["cycle"] for row in cycles] == list(range(1, len(cycles) + 1))
    assert any(row["forced"] for row in cycles)
    assert any(row["kind"] == "scavenge" for row in output.rows)
    assert output.reader.torn == 0
    log = output.log.read_text()
    assert log.startswith("own words\npanic: the end\n")
    assert "MB goal" not in log
    assert output.reader.fatal == "panic: the end"


def test_the_log_can_not_be_made(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="absent"):
        StderrReader(
            -1,
            -1,
            log_path=tmp_path / "absent" / "log",
            sink=print,
            phase=lambda: "startup",
            clock=ClockMap.read(),
        )

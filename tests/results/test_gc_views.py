"""Which requests were in flight during a collection: by hand, by brute force, and for real."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from archives import EPOCH_NS, MIB, reseal, write_archive, write_table
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.builds.builds import build_go
from orchestrator.builds.toolchains import Toolchain
from results.clock import ClockMap
from results.sql.database import open_database, view_text
from workers.sampling.gctrace import StderrReader

MS = 1_000_000
SERVICE = Path(__file__).resolve().parents[1] / "services" / "collecting"
KEYS = {"run_id": "r", "trial_id": "t", "configuration": "c", "workload": "w", "block": 1}


def cycle(number: int, start_ns: int, stops_ns: int = 1 * MS, mark_ns: int = 8 * MS) -> dict:
    """A cycle that began at a time after the program's start and was read at once."""
    return {
        **KEYS,
        "valid": True,
        "phase": "measure",
        "kind": "cycle",
        "cycle": number,
        "forced": False,
        "since_start_ns": start_ns // MS * MS,
        "stw_sweep_ns": stops_ns,
        "concurrent_ns": mark_ns,
        "stw_mark_ns": stops_ns,
        "cpu_assist_ns": 7,
        "time_ns": EPOCH_NS + start_ns + 2 * stops_ns + mark_ns,
    }


def request(start_ns: int, service_ns: int, latency_ns: int = 0) -> dict:
    return {
        **KEYS,
        "phase": "measure",
        "start_ns": EPOCH_NS + start_ns,
        "service_ns": service_ns,
        "latency_ns": latency_ns or service_ns,
        "measure_start_ns": EPOCH_NS,
    }


def joined(cycles: list[dict], requests: list[dict]) -> list[dict[str, Any]]:
    """The view over these rows of one trial."""
    trial = {**KEYS, "gc_traced": True, "measure_start_ns": EPOCH_NS, "load_clock_error_ns": 0}
    like = pa.Table.from_pylist([request(0, 1)]).schema
    with duckdb.connect() as connection:
        connection.register("gc", pa.Table.from_pylist(cycles))
        connection.register("requests", pa.Table.from_pylist(requests, schema=like))
        connection.register("trials", pa.Table.from_pylist([trial]))
        connection.execute(view_text("requests_during_gc"))
        return connection.sql("from requests_during_gc").to_arrow_table().to_pylist()


def test_by_hand() -> None:
    # Cycle 1 lasts from 100 to 110 ms: a stop of 1 ms, mark, a stop of 1 ms. Cycle 2: 200 to 210.
    found = joined(
        [cycle(1, 100 * MS), cycle(2, 200 * MS)],
        [
            request(90 * MS, 9 * MS, 11),  # over before the first
            request(95 * MS, 5 * MS + 1, 12),  # until its first stop
            request(104 * MS, 2 * MS, 13),  # within its mark
            request(109 * MS + 1, 5 * MS, 14),  # from its last stop on
            request(150 * MS, 100 * MS, 15),  # all of the second
            request(50 * MS, 300 * MS, 16),  # all of both
            request(220 * MS, 1 * MS, 17),
        ],
    )
    first, second = found
    assert (first["start_ns"], first["end_ns"]) == (EPOCH_NS + 100 * MS, EPOCH_NS + 110 * MS)
    assert (first["requests"], first["in_stop"], first["in_mark"]) == (4, 3, 2)
    assert (first["latency_p50_ns"], first["stop_latency_p50_ns"]) == (13.5, 14)
    assert (second["requests"], second["in_stop"], second["in_mark"]) == (2, 2, 2)
    assert second["latency_p50_ns"] == 15.5
    assert first["other_latency_p50_ns"] == second["other_latency_p50_ns"] == 14
    assert (first["stopped_ns"], first["assist_cpu_ns"]) == (2 * MS, 7)


def test_a_cycle_that_nobody_waited_for_is_a_row() -> None:
    (found,) = joined([cycle(1, 100 * MS)], [request(500 * MS, 1 * MS)])
    assert (found["requests"], found["in_stop"], found["latency_p50_ns"]) == (0, 0, None)
    assert found["other_latency_p50_ns"] == 1 * MS
    (found,) = joined([cycle(1, 100 * MS)], [])
    assert (found["requests"], found["other_latency_p50_ns"]) == (0, None)


def test_a_report_that_was_read_late_is_placed_by_its_whole_millisecond() -> None:
    late = cycle(2, 300 * MS)
    late["time_ns"] += 500 * MS
    _, found = joined([cycle(1, 100 * MS), late], [])
    assert EPOCH_NS + 300 * MS <= found["start_ns"] <= EPOCH_NS + 301 * MS
    assert found["start_ns"] - found["error_ns"] <= EPOCH_NS + 300 * MS


spans = st.lists(
    st.tuples(
        st.integers(0, 20 * MS),  # pause before it
        st.integers(0, 3 * MS),  # each stop
        st.integers(0, 30 * MS),  # mark
        st.integers(0, 40 * MS),  # until it was read
    ),
    min_size=1,
    max_size=12,
)
flights = st.lists(st.tuples(st.integers(0, 500 * MS), st.integers(0, 80 * MS)), max_size=40)


@settings(max_examples=60)
@given(spans, flights)
def test_nothing_is_placed_too_early_and_all_are_counted(
    lengths: list[tuple[int, int, int, int]], asked: list[tuple[int, int]]
) -> None:
    cycles, begins, now_ns, read_ns = [], [], 7 * MS, 0
    for number, (pause_ns, stops_ns, mark_ns, delay_ns) in enumerate(lengths, 1):
        now_ns += pause_ns + 1
        row = cycle(number, now_ns, stops_ns, mark_ns)
        # The first one is read at once, lines stay in their order.
        read_ns = max(read_ns, row["time_ns"] + (delay_ns if number > 1 else 0))
        cycles.append(row | {"time_ns": read_ns})
        begins.append(EPOCH_NS + now_ns)
        now_ns += 2 * stops_ns + mark_ns
    requests = [request(start_ns, service_ns) for start_ns, service_ns in asked]
    found = joined(cycles, requests)
    assert [row["cycle"] for row in found] == list(range(1, len(cycles) + 1))
    for row, begin_ns, following in zip(found, begins, [*found[1:], None], strict=True):
        assert row["start_ns"] >= begin_ns
        # The first report fixes the program's start to within its own whole millisecond.
        assert row["start_ns"] - row["error_ns"] <= begin_ns + MS
        assert following is None or row["end_ns"] <= following["start_ns"]
        _check_counts(row, cycles[row["cycle"] - 1], requests)


def _check_counts(row: dict, traced: dict, requests: list[dict]) -> None:
    first_stop = (row["start_ns"], row["start_ns"] + traced["stw_sweep_ns"])
    last_stop = (row["end_ns"] - traced["stw_mark_ns"], row["end_ns"])

    def meets(one: dict, span: tuple[int, int]) -> bool:
        return one["start_ns"] <= span[1] and one["start_ns"] + one["service_ns"] >= span[0]

    whole = (row["start_ns"], row["end_ns"])
    assert row["requests"] == sum(meets(r, whole) for r in requests)
    assert row["in_stop"] == sum(meets(r, first_stop) or meets(r, last_stop) for r in requests)
    assert row["in_mark"] == sum(meets(r, (first_stop[1], last_stop[0])) for r in requests)


def test_requests_of_load_nodes_are_set_on_the_clock_of_the_service(tmp_path: Path) -> None:
    """Their clocks are seconds ahead: the same requests meet the same cycles all the same."""
    numbers = {"gc_cycles": 20, "latency_ns": 100 * MS}
    counts = []
    for load_nodes in (0, 2):
        own = numbers | {"load_nodes": load_nodes, "load_clock_ahead_ns": 3_000 * MS}
        root = write_archive(tmp_path / f"a{load_nodes}", configurations={"default": own}, blocks=1)
        with open_database(root) as database:
            rows = database.query("from requests_during_gc order by cycle").to_pylist()
        counts.append([(r["cycle"], r["requests"], r["latency_p50_ns"]) for r in rows])
        # Half a microsecond of either kind of node at most, as their clocks were compared.
        rounded_ns = 2 * 5_000 + 100_000
        assert {r["error_ns"] for r in rows} == {rounded_ns + (500 if load_nodes else 0)}
    assert counts[0] == counts[1]
    assert sum(requests for _, requests, _ in counts[0]) > 20


def test_the_scavenger_s_reports_add_up(tmp_path: Path) -> None:
    root = write_archive(tmp_path, blocks=1)
    with open_database(root) as database:
        rows = database.query("from scavenges").to_pylist()
    assert [row["released_total_bytes"] for row in rows] == [n * MIB for n in range(1, 21)]


def test_what_the_runtime_says_of_itself_stands_beside_the_trace(tmp_path: Path) -> None:
    """Of 10 CPU seconds 2 were idle and 1 an idle mark worker's; of the rest 0.7 went into GC."""
    root = write_archive(tmp_path, blocks=1)
    (path,) = root.glob("*/trials/*/runtime.arrow")
    rows = []
    for at_ms, share in ((4_100, 0.0), (13_900, 1.0)):
        told = {
            "go_cpu_classes_total_cpu_seconds_total": 5 + 10 * share,
            "go_cpu_classes_idle_cpu_seconds_total": 1 + 2 * share,
            "go_cpu_classes_gc_total_cpu_seconds_total": 0.5 + 1.7 * share,
            "go_cpu_classes_gc_mark_idle_cpu_seconds_total": 0.2 + 1 * share,
            "go_gc_limiter_last_enabled_gc_cycle": 9 * share,
        }
        time_ns = EPOCH_NS + at_ms * MS
        rows += [
            {"time_ns": time_ns, "phase": "measure", "metric": name, "value": value}
            for name, value in told.items()
        ]
    write_table(path, rows)
    reseal(path.parent)
    with open_database(root) as database:
        (found,) = database.query("from gc_overhead").to_pylist()
    assert found["runtime_gc_cpu_share"] == pytest.approx(0.1)
    assert found["limiter_cycle"] == 9
    assert found["assist_cpu_ns"] == 20 * 10 * MS


def test_cycles_end_when_a_real_runtime_says_so(toolchain: Toolchain, tmp_path: Path) -> None:
    """debug.GCStats tells the end of each last stop in UTC; the view must never be before it."""
    built = build_go(toolchain, SERVICE)
    rows: list[dict[str, Any]] = []

    def take(columns: dict[str, list[Any]]) -> None:
        values = zip(*columns.values(), strict=True)
        rows.extend(dict(zip(columns, row, strict=True)) for row in values)

    (output_read, output), (error_read, error) = os.pipe(), os.pipe()
    clock = ClockMap.read()
    reader = StderrReader(
        output_read,
        error_read,
        log_path=tmp_path / "log",
        sink=take,
        phase=lambda: "measure",
        clock=clock,
    )
    reader.start()
    environment = {"GODEBUG": "gctrace=1,scavtrace=1"}
    subprocess.run([built.path], env=environment, stdout=output, stderr=error, check=True)
    os.close(output)
    os.close(error)
    reader.join()
    ends = {int(n): int(end) for n, end in map(str.split, (tmp_path / "log").open())}
    found = joined([KEYS | {"valid": True} | r for r in rows if r["kind"] == "cycle"], [])
    assert len(found) >= 8
    for row in found:
        rounded_ns = row["error_ns"]
        assert row["end_ns"] + rounded_ns + clock.error_ns >= ends[row["cycle"]]
        # Generous, as a busy machine may read every line late.
        assert row["end_ns"] - ends[row["cycle"]] < 100 * MS

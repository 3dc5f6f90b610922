"""Small, real archives with known numbers: what a run leaves on disk, without running one.

Every trial lasts the same: startup 1 s, idle 2 s, warmup 1 s, measure 10 s, cooldown 1 s. What must
not count is there and would be seen if it did: the first half of idle shows half the memory,
warmup has requests a hundred times slower and a GC cycle, and measure has scavenger reports and
idle mark workers.
"""

from __future__ import annotations

import gzip
import itertools
import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from results.files import RUN_FILES, SUMS, write_sums
from results.record import (
    ExitRecord,
    Finding,
    LimitRecord,
    LoadRecord,
    PhasePeak,
    PhaseSpan,
    TrialRecord,
)
from results.schema import SCHEMA_VERSION, TABLES
from results.streams import stream_of, table_of
from results.wire import profile_pb2
from workers.spec import (
    ArrivalsSpec,
    BinarySpec,
    LimitsSpec,
    LoadSpec,
    PhasesSpec,
    ServiceSpec,
    TrialSpec,
    to_plain,
)

SECOND_NS = 10**9
MIB = 2**20
EPOCH_NS = 1_790_000_000 * SECOND_NS
TRIAL_NS = 20 * SECOND_NS
RUN_ID = "20260921-000000-abcd"
SPANS = (
    ("startup", 0, 1),
    ("idle", 1, 3),
    ("warmup", 3, 4),
    ("measure", 4, 14),
    ("cooldown", 14, 15),
)
MEASURE_S = 10
WARMUP_REQUESTS = 10
OFFSET_NS = -40_000
"""The head's clock minus that of the service's node."""


MEMORY_FIELDS = (
    "initial_rss_bytes",
    "peak_rss_bytes",
    "peak_cgroup_bytes",
    "initial_working_set_bytes",
    "peak_working_set_bytes",
    "initial_commit_bytes",
    "peak_commit_bytes",
    "peak_job_bytes",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A group of nodes of one class; its blocks are on its `nodes` in turn."""

    node_class: str = "linux-test"
    os: str = "linux"
    nodes: tuple[str, ...] = ("node-1",)
    wine: str | None = None


LINUX = Place(node_class="linux · AMD EPYC 7B13 · 2 cores · 24 GiB", nodes=("node-1a2b3c4d",))
WINDOWS = Place(
    node_class="windows · AMD EPYC 7B13 · 2 cores · 24 GiB",
    os="windows",
    nodes=("node-5e6f7a8b", "node-9c0d1e2f"),
    wine="8.0",
)
MIXED = {"linux": LINUX, "windows": WINDOWS}


@dataclass(frozen=True, slots=True, kw_only=True)
class Numbers:
    """What one configuration's trials show.

    Latencies are `latency_ns + i * latency_step_ns` for request i, and service times are half of
    that. The last `failed` of `requests` failed. `factors` scales memory and latency block by
    block, in turn; a cycle of the GC costs `gc_cycle_cpu_ns`, a quarter in each of its four parts;
    the reports of `gc_torn` cycles in the midst of measure can't be read.

    On Windows there are working set and commit instead of RSS and cgroup: a mark of None did not
    rise in measure, and the samples stay `MIB` below the greatest value. `load_nodes` share the
    requests with the service's own node, in turn.
    """

    baseline: bool = False
    initial_rss_bytes: int = 100 * MIB
    peak_rss_bytes: int | None = 200 * MIB
    peak_cgroup_bytes: int | None = 210 * MIB
    initial_working_set_bytes: int = 90 * MIB
    peak_working_set_bytes: int = 180 * MIB
    initial_commit_bytes: int = 110 * MIB
    peak_commit_bytes: int = 240 * MIB
    peak_job_bytes: int | None = 250 * MIB
    marks_rose: bool = True
    working_set_max_bytes: int | None = None
    load_nodes: int = 0
    load_clock_ahead_ns: int = 1_000
    cpu_ns: int = 8 * SECOND_NS
    gc_cycles: int = 20
    gc_cycle_cpu_ns: int = 40_000_000
    gc_torn: int = 0
    gc_trace: bool = True
    requests: int = 1_001
    failed: int = 0
    latency_ns: int = 1_000_000
    latency_step_ns: int = 1_000
    binary_bytes: int = 8_000_000
    go_version: str = "go1.23.9"
    build_flags: tuple[str, ...] = ()
    environment: tuple[tuple[str, str], ...] = (("GOGC", "100"),)
    memory_max_bytes: int | None = None
    limit_enforced: bool = True
    factors: tuple[float, ...] = (1.0,)

    def in_block(self, block: int) -> Numbers:
        """The numbers of one block, which are numbered from 1."""
        factor = self.factors[(block - 1) % len(self.factors)]
        scaled = (*MEMORY_FIELDS, "latency_ns")
        values = {name: getattr(self, name) for name in scaled}
        return replace(
            self, **{n: v if v is None else round(v * factor) for n, v in values.items()}
        )


def write_archive(
    root: Path,
    *,
    configurations: Mapping[str, Mapping[str, Any]] | None = None,
    blocks: int = 6,
    run_id: str = RUN_ID,
    workloads: Sequence[str] = ("steady",),
    invalid: Collection[str] = (),
    repeated: Collection[str] = (),
    partial: Collection[str] = (),
    missing: Collection[str] = (),
    comparison: Mapping[str, Any] | None = None,
    node_class: str = "linux-test",
    groups: Mapping[str, Place] | None = None,
) -> Path:
    """Write one run into the archive `root` and return `root`; call again for a second run.

    `configurations` are fields of `Numbers` by name; the first is the baseline unless one says so.
    The others name planned trials (`b01-1-default-steady`): `invalid` ones, `repeated` ones (an
    invalid first attempt and a valid second), `partial` ones (cut off) and `missing` ones.
    `groups` of nodes measure the whole plan each; their trials end in `@group` when there are more.
    """
    numbers = _numbers(configurations or {"default": {}})
    groups = groups or {"linux": Place(node_class=node_class)}
    planned = list(_planned(numbers, blocks, workloads, groups))
    unknown = {*invalid, *repeated, *partial, *missing} - {trial["trial_id"] for trial in planned}
    assert not unknown, f"not planned: {unknown}"
    folder = root / run_id
    (folder / "trials").mkdir(parents=True)
    document = _document(run_id, planned, blocks, numbers, comparison)
    (folder / "run.json").write_text(json.dumps(document, indent=1))
    (folder / "matrix.yaml").write_text("# written by hand\n")
    write_sums(folder, RUN_FILES)
    for index, trial in enumerate(planned):
        if trial["trial_id"] in missing:
            continue
        writer = _Trial(folder / "trials", run_id, trial, numbers[trial["configuration"]], index)
        writer.place = groups[trial["group"]]
        if trial["trial_id"] in partial:
            writer.write_partial()
        else:
            writer.write(attempt=1, valid=trial["trial_id"] not in {*invalid, *repeated})
        if trial["trial_id"] in repeated:
            writer.write(attempt=2, valid=True)
    return root


def _numbers(configurations: Mapping[str, Mapping[str, Any]]) -> dict[str, Numbers]:
    found = {name: Numbers(**fields) for name, fields in configurations.items()}
    if not any(numbers.baseline for numbers in found.values()):
        first = next(iter(found))
        found[first] = replace(found[first], baseline=True)
    return found


def _planned(
    numbers: Mapping[str, Numbers],
    blocks: int,
    workloads: Sequence[str],
    groups: Mapping[str, Place],
) -> Iterator[dict[str, Any]]:
    for block in range(1, blocks + 1):
        for workload, group in itertools.product(workloads, groups):
            end = f"@{group}" if len(groups) > 1 else ""
            for position, (name, own) in enumerate(numbers.items(), 1):
                yield {
                    "trial_id": f"b{block:02}-{position}-{name}-{workload}{end}",
                    "block": block,
                    "position": position,
                    "configuration": name,
                    "baseline": own.baseline,
                    "workload": workload,
                    "os": groups[group].os,
                    "group": group,
                }


def _document(
    run_id: str,
    planned: list[dict[str, Any]],
    blocks: int,
    numbers: Mapping[str, Numbers],
    comparison: Mapping[str, Any] | None,
) -> dict[str, Any]:
    return {
        "schema_version": SCHEMA_VERSION,
        "run_id": run_id,
        "status": "complete",
        "started_ns": EPOCH_NS,
        "finished_ns": EPOCH_NS + len(planned) * TRIAL_NS,
        "heapgate_version": "0.1.0",
        "matrix_path": "/matrices/known.yaml",
        "seed": 1,
        "blocks": blocks,
        "service": "sessioncache",
        "comparison": {
            "confidence": 0.95,
            "primary": ["peak_rss"],
            "margins": {},
            **(comparison or {}),
        },
        "planned": planned,
        "builds": dict(_builds(planned, numbers)),
        "notes": [],
    }


def _builds(
    planned: list[dict[str, Any]], numbers: Mapping[str, Numbers]
) -> Iterator[tuple[str, dict[str, Any]]]:
    systems = sorted({trial["os"] for trial in planned})
    for (name, own), system in itertools.product(numbers.items(), systems):
        key = f"{name}@{system}" if len(systems) > 1 else name
        yield key, {"configuration": name, "os": system, **_build(own)}


def _build(own: Numbers) -> dict[str, Any]:
    return {
        "sha256": f"{own.binary_bytes:064x}",
        "size_bytes": own.binary_bytes,
        "go_version": "go1.23.9",
        "build_info": "sessioncache: go1.23.9",
        "build_flags": ["-trimpath"],
    }


class _Trial:
    """Writes the folder of one planned trial, attempt by attempt."""

    def __init__(
        self, trials: Path, run_id: str, planned: dict[str, Any], numbers: Numbers, index: int
    ) -> None:
        self.place = Place()
        self._trials = trials
        self._run_id = run_id
        self._planned = planned
        self._own = numbers.in_block(planned["block"])
        self._start_ns = EPOCH_NS + index * TRIAL_NS

    def write(self, *, attempt: int, valid: bool) -> None:
        """Write a sealed trial."""
        trial_id = self._planned["trial_id"] + (f"~{attempt}" if attempt > 1 else "")
        folder = self._trials / trial_id
        folder.mkdir()
        rows = self._rows()
        for name, table_rows in rows.items():
            write_table(folder / f"{name}.arrow", table_rows)
        record = self._record(trial_id, attempt, valid, {n: len(r) for n, r in rows.items()})
        (folder / "trial.json").write_text(record.to_json())
        (folder / "service.log").write_text("ready\n")
        write_sums(folder, [path.name for path in folder.iterdir()])

    def write_partial(self) -> None:
        """Write a trial that was cut off: no record, and files without a footer."""
        folder = self._trials / (self._planned["trial_id"] + ".partial")
        folder.mkdir()
        for name, rows in self._rows().items():
            path = folder / f"{name}.arrow"
            write_table(path, rows)
            path.write_bytes(path.read_bytes()[:-64])

    def _at(self, seconds: float) -> int:
        return self._start_ns + round(seconds * SECOND_NS)

    def _rows(self) -> dict[str, list[dict[str, Any]]]:
        return {
            "memory": list(self._memory()),
            **self._request_parts(),
            "gc": list(self._gc()),
            "events": list(self._events()),
            "profile_files": [
                {
                    "time_ns": self._at(14),
                    "phase": "cooldown",
                    "kind": "heap",
                    "reason": "end",
                    "took_ns": 1_000_000,
                    "resident_bytes": self._own.initial_rss_bytes,
                    "content": pprof({("main.main", "main.keep"): self._own.initial_rss_bytes}),
                }
            ],
            "runtime": [
                {
                    "time_ns": self._at(5),
                    "phase": "measure",
                    "metric": "go_goroutines",
                    "value": 7.0,
                }
            ],
        }

    def _request_parts(self) -> dict[str, list[dict[str, Any]]]:
        """The requests, dealt out to as many files as there are load generators."""
        rows, parts = list(self._requests()), self._own.load_nodes + 1
        return {
            stream_of("requests", part): [self._on_clock_of(part, row) for row in rows[part::parts]]
            for part in range(parts)
        }

    def _on_clock_of(self, part: int, row: dict[str, Any]) -> dict[str, Any]:
        """Times as the load node of a part reads them."""
        ahead_ns = OFFSET_NS - self._load_offset_ns(part) if part else 0
        return row | {"start_ns": row["start_ns"] + ahead_ns}

    def _load_offset_ns(self, part: int) -> int:
        return -self._own.load_clock_ahead_ns * part

    def _memory(self) -> Iterator[dict[str, Any]]:
        """Ten samples a second; the CPU clock stands still but in measure."""
        for phase, begin_s, end_s in SPANS:
            count = (end_s - begin_s) * 10
            for i in range(count):
                share = i / (count - 1)
                cpu_ns = round(self._cpu_share(phase, share) * self._own.cpu_ns)
                yield {
                    "time_ns": self._at(begin_s + i / 10),
                    "phase": phase,
                    "processes": 1,
                    "threads": 8,
                    **self._resident(phase, share),
                    "cpu_user_ns": cpu_ns - cpu_ns // 4,
                    "cpu_system_ns": cpu_ns // 4,
                }

    def _cpu_share(self, phase: str, share: float) -> float:
        if phase == "measure":
            return share
        return 1.0 if phase == "cooldown" else 0.0

    def _resident(self, phase: str, share: float) -> dict[str, int]:
        own = self._own
        if self.place.os == "linux":
            peak = own.peak_rss_bytes or own.initial_rss_bytes
            return {"rss_bytes": _level(phase, share, own.initial_rss_bytes, peak)}
        resident = _level(phase, share, own.initial_working_set_bytes, own.peak_working_set_bytes)
        return {
            "working_set_bytes": resident,
            "private_working_set_bytes": resident - 10 * MIB,
            "peak_working_set_bytes": own.peak_working_set_bytes,
            "commit_bytes": _level(phase, share, own.initial_commit_bytes, own.peak_commit_bytes),
            "peak_commit_bytes": own.peak_commit_bytes,
            "job_peak_bytes": own.peak_job_bytes or own.peak_commit_bytes,
            "page_faults": round(1_000 * share),
            "pagefile_used_bytes": 5 * MIB,
            "system_commit_bytes": 6_000 * MIB,
            "system_commit_limit_bytes": 28_000 * MIB,
        }

    def _peak(self) -> PhasePeak:
        own = self._own
        if self.place.os == "linux":
            return PhasePeak("measure", own.peak_rss_bytes, own.peak_cgroup_bytes)
        return PhasePeak(
            "measure",
            None,
            None,
            working_set_bytes=own.peak_working_set_bytes if own.marks_rose else None,
            commit_bytes=own.peak_commit_bytes if own.marks_rose else None,
            job_bytes=own.peak_job_bytes if own.marks_rose else None,
            sampled_working_set_bytes=own.peak_working_set_bytes - MIB,
            sampled_commit_bytes=own.peak_commit_bytes - MIB,
        )

    @property
    def _node_id(self) -> str:
        nodes = self.place.nodes
        return nodes[(self._planned["block"] - 1) % len(nodes)]

    def _requests(self) -> Iterator[dict[str, Any]]:
        slow_ns = 100 * self._own.latency_ns
        for i in range(WARMUP_REQUESTS):
            yield self._request("warmup", 3 + i / WARMUP_REQUESTS, slow_ns, failed=False)
        for i in range(self._own.requests):
            latency_ns = self._own.latency_ns + i * self._own.latency_step_ns
            failed = i >= self._own.requests - self._own.failed
            seconds = 4 + MEASURE_S * i / self._own.requests
            yield self._request("measure", seconds, latency_ns, failed=failed)

    def _request(
        self, phase: str, seconds: float, latency_ns: int, *, failed: bool
    ) -> dict[str, Any]:
        service_ns = latency_ns // 2
        return {
            "start_ns": self._at(seconds) + latency_ns - service_ns,
            "lag_ns": latency_ns - service_ns,
            "phase": phase,
            "service_ns": service_ns,
            "method": "GET",
            "name": "/session",
            "status": 500 if failed else 200,
            "response_bytes": 512,
            "error": "HTTP 500" if failed else None,
        }

    def _gc(self) -> Iterator[dict[str, Any]]:
        yield self._cycle("warmup", 3.5, 1)
        for i in range(self._own.gc_cycles):
            seconds = 4 + MEASURE_S * i / self._own.gc_cycles
            if not 1 <= i <= self._own.gc_torn:
                yield self._cycle("measure", seconds, i + 2)
            yield {
                "time_ns": self._at(seconds),
                "phase": "measure",
                "kind": "scavenge",
                "released_background_bytes": MIB,
            }

    def _cycle(self, phase: str, seconds: float, cycle: int) -> dict[str, Any]:
        part_ns = self._own.gc_cycle_cpu_ns // 4
        return {
            "time_ns": self._at(seconds),
            "phase": phase,
            "kind": "cycle",
            "cycle": cycle,
            "forced": False,
            "stw_sweep_ns": 50_000,
            "concurrent_ns": 1_000_000,
            "stw_mark_ns": 50_000,
            "cpu_stw_sweep_ns": part_ns,
            "cpu_assist_ns": part_ns,
            "cpu_background_ns": part_ns,
            "cpu_stw_mark_ns": part_ns,
            "cpu_idle_ns": 10 * part_ns,
            "procs": 2,
        }

    def _events(self) -> Iterator[dict[str, Any]]:
        for phase, begin_s, _ in SPANS:
            yield {
                "time_ns": self._at(begin_s),
                "phase": phase,
                "kind": "phase",
                "level": "info",
                "message": phase,
            }

    def _record(
        self, trial_id: str, attempt: int, valid: bool, rows: dict[str, int]
    ) -> TrialRecord:
        planned, own = self._planned, self._own
        broken = Finding("generator_saturated", "invalid", "too late", "send less")
        return TrialRecord(
            schema_version=SCHEMA_VERSION,
            run_id=self._run_id,
            trial_id=trial_id,
            block=planned["block"],
            position=planned["position"],
            attempt=attempt,
            configuration=planned["configuration"],
            baseline=planned["baseline"],
            workload=planned["workload"],
            node_id=self._node_id,
            node_class=self.place.node_class,
            started_ns=self._start_ns,
            finished_ns=self._at(15),
            spec=to_plain(_spec(self._run_id, trial_id, attempt, planned, own)),
            node={"os": self.place.os, "cpus": 2, "wine": self.place.wine},
            versions={"heapgate": "0.1.0"},
            clock={"offset_ns": 0, "error_ns": 100},
            phases=[
                PhaseSpan(name, self._at(begin), self._at(end), self._own.cpu_ns)
                for name, begin, end in SPANS
            ],
            peaks=[self._peak()],
            limits=list(_limits(own)),
            load=_load(own),
            exit=ExitRecord(cause="stopped", code=0, signal=None, text="stopped by us"),
            rows=rows,
            findings=[] if valid else [broken],
            clock_offset={"offset_ns": OFFSET_NS, "error_ns": 300, "drift_ns": 2},
            generators=[
                {
                    "part": part,
                    "node_id": f"load-{part}",
                    "sent": len(self._request_parts()[stream_of("requests", part)]),
                    "lag_p99_ns": 2_000,
                    "clock_offset": {"offset_ns": self._load_offset_ns(part), "error_ns": 200},
                }
                for part in range(1, own.load_nodes + 1)
            ],
        )


def _level(phase: str, share: float, initial_bytes: int, peak_bytes: int) -> int:
    """Half in the first half of idle; in measure below the kernel's peak, as samples are."""
    if phase in ("startup", "idle") and share < 0.5:
        return initial_bytes // 2
    return peak_bytes - MIB if phase == "measure" else initial_bytes


def _limits(own: Numbers) -> Iterator[LimitRecord]:
    if own.memory_max_bytes is not None:
        yield LimitRecord(
            name="memory_max_bytes",
            asked=own.memory_max_bytes,
            read_back=own.memory_max_bytes if own.limit_enforced else None,
            enforced=own.limit_enforced,
            mechanism="cgroup v2" if own.limit_enforced else "none",
            reason="" if own.limit_enforced else "no cgroup may be made here",
        )


def _load(own: Numbers) -> LoadRecord:
    sent = own.requests + WARMUP_REQUESTS
    return LoadRecord(
        planned=sent,
        sent=sent,
        measured=own.requests,
        failed=own.failed,
        not_sent=0,
        late=0,
        unrecorded=0,
        lag_p50_ns=1_000,
        lag_p99_ns=2_000,
        lag_max_ns=3_000,
        cpu_share=0.1,
        in_flight_max_reached=False,
        locust_version="2.47.0",
    )


def _spec(
    run_id: str, trial_id: str, attempt: int, planned: dict[str, Any], own: Numbers
) -> TrialSpec:
    binary = BinarySpec(
        argv0="/cache/sessioncache",
        copy=True,
        sha256=f"{own.binary_bytes:064x}",
        size_bytes=own.binary_bytes,
        go_version=own.go_version,
        build_flags=own.build_flags,
    )
    service = ServiceSpec(
        name="sessioncache",
        binary=binary,
        arguments=(),
        environment=own.environment,
        port=None,
        ready_path="/healthz",
        ready_timeout_ns=SECOND_NS,
        stop_timeout_ns=SECOND_NS,
        go_runtime=True,
    )
    return TrialSpec(
        run_id=run_id,
        trial_id=trial_id,
        block=planned["block"],
        position=planned["position"],
        attempt=attempt,
        configuration=planned["configuration"],
        baseline=planned["baseline"],
        workload=planned["workload"],
        os=planned["os"],
        service=service,
        limits=LimitsSpec(
            memory_max_bytes=own.memory_max_bytes,
            working_set_max_bytes=own.working_set_max_bytes if planned["os"] == "windows" else None,
        ),
        load=LoadSpec(
            scenario="cache_mix.py",
            users=None,
            arrivals=ArrivalsSpec(kind="constant", rate_rps=100.0),
            seed=1,
        ),
        phases=PhasesSpec(
            idle_ns=2 * SECOND_NS,
            warmup_ns=SECOND_NS,
            measure_ns=MEASURE_S * SECOND_NS,
            cooldown_ns=SECOND_NS,
        ),
        sampling_interval_ns=SECOND_NS // 10,
        gc_trace=own.gc_trace,
    )


def pprof(
    stacks: Mapping[tuple[str, ...], int], quantity: str = "inuse_space", unit: str = "bytes"
) -> bytes:
    """A profile of these call stacks, outermost function first, and what each of them costs."""
    texts = ["", quantity, unit, "main.go"]
    functions = sorted({function for stack in stacks for function in stack})
    numbers = {function: number for number, function in enumerate(functions, 1)}
    profile = profile_pb2.Profile(
        sample_type=[profile_pb2.ValueType(type=1, unit=2)],
        sample=[
            profile_pb2.Sample(location_id=[numbers[f] for f in reversed(stack)], value=[value])
            for stack, value in stacks.items()
        ],
        location=[
            profile_pb2.Location(id=n, line=[profile_pb2.Line(function_id=n)])
            for n in numbers.values()
        ],
        function=[
            profile_pb2.Function(id=n, name=len(texts) + n - 1, filename=3)
            for n in numbers.values()
        ],
        string_table=[*texts, *functions],
    )
    return gzip.compress(profile.SerializeToString(), mtime=0)


def reseal(trial: Path) -> None:
    """Write the digests of a trial anew: what a test changed in it is as if it had been sealed."""
    write_sums(trial, {path.name for path in trial.iterdir()} - {SUMS})


def write_table(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows as a finished Arrow IPC file in two batches; columns left out are null."""
    schema = TABLES[table_of(path.stem)[0]].arrow
    plain = pa.schema(
        [
            pa.field(f.name, f.type.value_type if pa.types.is_dictionary(f.type) else f.type)
            for f in schema
        ]
    )
    table = pa.Table.from_pylist([dict(row) for row in rows], schema=plain)
    columns = [
        column.combine_chunks().dictionary_encode().cast(field.type)
        if pa.types.is_dictionary(field.type)
        else column
        for column, field in zip(table.columns, schema, strict=True)
    ]
    encoded = pa.Table.from_arrays(columns, schema=schema)
    options = pa.ipc.IpcWriteOptions(emit_dictionary_deltas=True)
    with pa.ipc.new_file(path, schema, options=options) as writer:
        writer.write_table(encoded, max_chunksize=max(1, (len(rows) + 1) // 2))

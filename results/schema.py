"""The Arrow schemas of a trial's tables: every column with its unit and meaning.

A trial has one Arrow IPC file per stream. A stream is a table's name (`memory`), so the run and
the trial are known by path and not repeated in each row. A table may come in parts, as the
requests of several load nodes do (`requests`, `requests-1`, `requests-2` …), and from several
processes of a node (`requests-2.1`): all are one table.
Times are nanoseconds since the Unix epoch in UTC: each process reads its monotonic clock and maps
it to UTC once, when it starts. What an operating system does not offer is null, never 0.

Format history (newest first; old archives stay readable):
  3  2026-11  requests: lag_ns instead of intended_ns and latency_ns, which follow from it and are
              still shown (`results/views/requests.sql`); streams of several processes; sealed files
              are compressed; table profile_files
  2  2026-11  memory: columns of Windows (working set, commit, job); tables in parts; what an
              archive of an older format lacks is null
  1  2026-11  first format
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import pyarrow as pa

SCHEMA_VERSION: Final = 3

PHASES: Final = (
    "build",
    "deploy",
    "startup",
    "idle",
    "warmup",
    "measure",
    "cooldown",
    "teardown",
)
"""The phases of a trial in their order; `build` happens before the first trial, on the head."""

PHASE_TYPE: Final = pa.dictionary(pa.int8(), pa.string())
WORD_TYPE: Final = pa.dictionary(pa.int32(), pa.string())


@dataclass(frozen=True, slots=True)
class Column:
    """One column: its Arrow type, its unit ("" for none) and what it means."""

    name: str
    type: pa.DataType
    unit: str
    meaning: str
    nullable: bool = False
    since: int = 1
    """The version of the format that brought it."""
    until: int | None = None
    """The last version that stored it; since then a view computes it."""

    def is_stored_in(self, version: int) -> bool:
        """Whether a file of this version of the format has it."""
        return self.since <= version <= (self.until or version)


@dataclass(frozen=True, slots=True)
class TableSchema:
    """One table: what a row is (`grain`) and its columns."""

    name: str
    grain: str
    columns: tuple[Column, ...]

    @property
    def arrow(self) -> pa.Schema:
        """The Arrow schema, with units and meanings as field metadata."""
        return self.arrow_of(SCHEMA_VERSION)

    def arrow_of(self, version: int) -> pa.Schema:
        """The Arrow schema as a version of the format had it."""
        return pa.schema(
            [
                pa.field(c.name, c.type, c.nullable, {"unit": c.unit, "meaning": c.meaning})
                for c in self.columns
                if c.is_stored_in(version)
            ],
            metadata={"heapgate.table": self.name, "heapgate.schema": str(version)},
        )

    @property
    def other_form_until(self) -> int:
        """The last version whose files lack what others are computed from; 0 for none."""
        return max((c.until or 0 for c in self.columns), default=0)


def _time(name: str, meaning: str, *, nullable: bool = False) -> Column:
    return Column(name, pa.int64(), "ns since epoch, UTC", meaning, nullable)


def _phase() -> Column:
    return Column("phase", PHASE_TYPE, "", "phase of the trial in which the row happened")


def _count(name: str, meaning: str, unit: str = "", *, since: int = 1) -> Column:
    return Column(name, pa.int64(), unit, meaning, nullable=True, since=since)


def _bytes(name: str, meaning: str, *, since: int = 1) -> Column:
    return _count(name, meaning, "bytes", since=since)


MEMORY: Final = TableSchema(
    "memory",
    "one sample of the service's process tree and its cgroup",
    (
        _time("time_ns", "when the sample was read"),
        _phase(),
        _count("processes", "processes in the service's tree; sums below run over all of them"),
        _count("threads", "threads in the tree"),
        _bytes("rss_bytes", "resident memory (anonymous + file + shared), /proc/PID/status"),
        _bytes("rss_anon_bytes", "resident anonymous memory: heap and stacks, /proc/PID/status"),
        _bytes("rss_file_bytes", "resident file mappings, the binary itself among them"),
        _bytes("swap_bytes", "swapped-out anonymous memory"),
        _bytes("virtual_bytes", "mapped address space (reserved, not used)"),
        _bytes(
            "peak_rss_bytes", "kernel's peak of rss since the phase began (VmHWM), main process"
        ),
        _count("cpu_user_ns", "CPU time in user mode since start", "ns"),
        _count("cpu_system_ns", "CPU time in the kernel since start", "ns"),
        _count("minor_faults", "page faults served without input/output since start"),
        _count("major_faults", "page faults that needed input/output since start"),
        _bytes("working_set_bytes", "resident memory on Windows: the working set", since=2),
        _bytes(
            "private_working_set_bytes",
            "its part that no other process shares, where Windows tells (10 22H2 and later)",
            since=2,
        ),
        _bytes(
            "peak_working_set_bytes",
            "kernel's peak of the main process's working set since start",
            since=2,
        ),
        _bytes("commit_bytes", "memory that Windows has promised to back: private commit", since=2),
        _bytes(
            "peak_commit_bytes", "kernel's peak of the main process's commit since start", since=2
        ),
        _bytes("job_peak_bytes", "kernel's peak of the job object's commit since start", since=2),
        _count(
            "page_faults",
            "page faults of either kind since start (Windows counts no kinds)",
            since=2,
        ),
        _bytes("pagefile_used_bytes", "the whole system's page files in use", since=2),
        _bytes("system_commit_bytes", "commit of the whole system", since=2),
        _bytes("system_commit_limit_bytes", "the most that the system can commit", since=2),
        _bytes("cgroup_usage_bytes", "memory charged to the cgroup, page cache included"),
        _bytes(
            "cgroup_peak_bytes",
            "kernel's peak of cgroup usage since the phase began where it "
            "can be reset, else since the cgroup was made",
        ),
        _bytes("cgroup_anon_bytes", "anonymous memory charged to the cgroup"),
        _bytes("cgroup_file_bytes", "page cache charged to the cgroup"),
        _count("cgroup_limit_hits", "times the hard limit was reached since start"),
        _count("cgroup_oom_kills", "processes killed by the cgroup's OOM killer since start"),
        _count(
            "pressure_some_ns", "time in which some task waited for memory since start (PSI)", "ns"
        ),
        _count(
            "pressure_full_ns", "time in which all tasks waited for memory since start (PSI)", "ns"
        ),
    ),
)

REQUESTS: Final = TableSchema(
    "requests",
    "one request that the load generator sent",
    (
        Column(
            "intended_ns",
            pa.int64(),
            "ns since epoch, UTC",
            "when the schedule wanted it sent; null in a closed loop",
            nullable=True,
            until=2,
        ),
        _time("start_ns", "when it was really sent"),
        _count(
            "lag_ns",
            "from the intended start to the real one; null in a closed loop",
            "ns",
            since=3,
        ),
        _phase(),
        Column(
            "latency_ns",
            pa.int64(),
            "ns",
            "from the intended start to the last byte; in a closed loop the same as service_ns",
            until=2,
        ),
        Column("service_ns", pa.int64(), "ns", "from the real start to the last byte"),
        Column("method", WORD_TYPE, "", "request type, for example GET"),
        Column("name", WORD_TYPE, "", "name of the request in the scenario"),
        Column(
            "status", pa.int16(), "", "HTTP status code; null when no answer came", nullable=True
        ),
        Column("response_bytes", pa.int64(), "bytes", "length of the response body", nullable=True),
        Column("error", WORD_TYPE, "", "why it failed; null when it succeeded", nullable=True),
    ),
)

GC: Final = TableSchema(
    "gc",
    "one garbage collection cycle or one scavenger report of the Go runtime",
    (
        _time("time_ns", "when its trace line was read"),
        _phase(),
        Column("kind", WORD_TYPE, "", "cycle (gctrace) or scavenge (scavtrace)"),
        _count("cycle", "number of the GC cycle since start"),
        Column("forced", pa.bool_(), "", "cycle forced by runtime.GC or a debugger", nullable=True),
        _count("since_start_ns", "runtime's own time since the program started", "ns"),
        Column(
            "gc_cpu_share_since_start",
            pa.float64(),
            "fraction",
            "runtime's own figure: share of available CPU spent in GC since start, whole percents",
            nullable=True,
        ),
        _count("stw_sweep_ns", "wall time of the stop that ends the sweep", "ns"),
        _count("concurrent_ns", "wall time of concurrent mark", "ns"),
        _count("stw_mark_ns", "wall time of the stop that ends the mark", "ns"),
        _count("cpu_stw_sweep_ns", "CPU time of the first stop", "ns"),
        _count(
            "cpu_assist_ns", "CPU time that goroutines spent helping while they allocated", "ns"
        ),
        _count("cpu_background_ns", "CPU time of dedicated and fractional mark workers", "ns"),
        _count("cpu_idle_ns", "CPU time of mark workers on otherwise idle processors", "ns"),
        _count("cpu_stw_mark_ns", "CPU time of the last stop", "ns"),
        _bytes("heap_start_bytes", "heap when the cycle began (whole MiB)"),
        _bytes("heap_end_bytes", "heap when the cycle ended (whole MiB)"),
        _bytes("heap_live_bytes", "heap marked live (whole MiB)"),
        _bytes("heap_goal_bytes", "heap size at which the cycle should end (whole MiB)"),
        _bytes("stacks_bytes", "scannable stacks (whole MiB)"),
        _bytes("globals_bytes", "scannable globals (whole MiB)"),
        _count("procs", "GOMAXPROCS as the runtime sees it"),
        _bytes(
            "released_background_bytes", "returned by the background scavenger since last report"
        ),
        _bytes("released_eager_bytes", "returned by allocating goroutines since last report"),
        _bytes("released_now_bytes", "memory that is returned to the system at this time"),
        Column(
            "heap_utilisation",
            pa.float64(),
            "fraction",
            "scavenger's own figure: in-use share of unscavenged heap",
            nullable=True,
        ),
    ),
)

EVENTS: Final = TableSchema(
    "events",
    "one thing that happened in a trial: phase began, warning, death, drop",
    (
        _time("time_ns", "when it happened"),
        _phase(),
        Column("kind", WORD_TYPE, "", "phase, ready, sample_gap, listener_failed, exit …"),
        Column("level", WORD_TYPE, "", "info, warning or error"),
        Column("message", pa.string(), "", "what happened, for a person"),
        Column("value", pa.float64(), "", "a figure that belongs to the event", nullable=True),
    ),
)

RUNTIME: Final = TableSchema(
    "runtime",
    "one value read from the service's metrics endpoint (Prometheus or expvar)",
    (
        _time("time_ns", "when the endpoint answered"),
        _phase(),
        Column("metric", WORD_TYPE, "", "name as the endpoint gives it, labels included"),
        Column("value", pa.float64(), "", "value as the endpoint gives it"),
    ),
)

PROFILE_FILES: Final = TableSchema(
    "profile_files",
    "one profile or execution trace that the service gave of itself, when the matrix asks for it",
    (
        _time("time_ns", "when it was asked for"),
        _phase(),
        Column("kind", WORD_TYPE, "", "heap, goroutine, allocs, mutex, block, or trace"),
        Column(
            "reason", WORD_TYPE, "", "end: measure had ended; memory_over: memory passed that size"
        ),
        Column("took_ns", pa.int64(), "ns", "from asking to the last byte"),
        _bytes("resident_bytes", "resident memory, or working set, in the last sample before"),
        Column(
            "content",
            pa.binary(),
            "",
            "the file: a pprof profile, compressed, or an execution trace for `go tool trace`",
        ),
    ),
)

TABLES: Final = {t.name: t for t in (MEMORY, REQUESTS, GC, EVENTS, RUNTIME, PROFILE_FILES)}

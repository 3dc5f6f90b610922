"""All that a node is told about one trial: frozen, plain data that travels as JSON.

Base units only: bytes, nanoseconds, requests per second. The matrix converts at the door.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class BinarySpec:
    """The program to run, and what is known of how it was built.

    `argv0` is an absolute path (a built or given binary, copied on deploy) or, when `copy` is
    false, a command found on the node. `build_info` is the text of `go version -m`; `commit` that
    of its source in git, `-dirty` after it when files differed, None where it is in none.
    """

    argv0: str
    copy: bool
    sha256: str
    size_bytes: int
    go_version: str | None = None
    build_info: str | None = None
    toolchain_sha256: str | None = None
    build_flags: tuple[str, ...] = ()
    commit: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointSpec:
    """A metrics endpoint of the service: its form, its path and how often it is read.

    `port` None means the service's own.
    """

    kind: Literal["prometheus", "expvar"]
    path: str
    interval_ns: int
    port: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfilesSpec:
    """Profiles that are taken of the service: when, which, and where it gives them.

    `at` "end" is after measure (but for a trace, which ends with it), "peak" as soon as memory is
    sampled above `memory_over_bytes` in measure. `trace_ns` is an execution trace's length, None
    for none. `port` None means the service's own.
    """

    at: Literal["end", "peak"]
    memory_over_bytes: int | None
    kinds: tuple[str, ...]
    trace_ns: int | None
    path: str
    port: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceSpec:
    """How to start the service and know that it is ready.

    `arguments` may hold `{port}` and `{host}`. `environment` is the whole block, padding included:
    every configuration of a run has the same length. `port` None means: any free one.
    """

    name: str
    binary: BinarySpec
    arguments: tuple[str, ...]
    environment: tuple[tuple[str, str], ...]
    port: int | None
    ready_path: str | None
    ready_timeout_ns: int
    stop_timeout_ns: int
    go_runtime: bool
    metrics: EndpointSpec | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitsSpec:
    """Limits asked for; what is really in force is read back and recorded.

    `working_set_max_bytes` is for Windows alone: it trims what is resident, not what is committed.
    """

    memory_max_bytes: int | None = None
    memory_high_bytes: int | None = None
    cpus: float | None = None
    working_set_max_bytes: int | None = None

    @property
    def asked(self) -> bool:
        """Whether anything at all is limited."""
        values = dataclasses.astuple(self)
        return any(v is not None for v in values)


@dataclass(frozen=True, slots=True, kw_only=True)
class RateSpec:
    """A piece of a rate over time: for so long, from one rate in a straight line to another."""

    for_ns: int
    from_rps: float
    to_rps: float

    @property
    def arrivals(self) -> float:
        """How many are expected in it."""
        return self.for_ns * (self.from_rps + self.to_rps) / 2e9


@dataclass(frozen=True, slots=True, kw_only=True)
class ArrivalsSpec:
    """Open loop: when requests are meant to start, whatever the service does.

    `rates` is the shape over measure, without gaps; it is empty when the rate stays what it is.
    `rate_rps` is the mean over measure. `spacing` is that of a shape; constant arrivals are even
    and poisson ones random by their nature. `in_flight_max` bounds how many may wait for an answer
    at one time; what has to wait for a free place keeps its intended start, so the wait is part of
    its latency.
    """

    kind: Literal["constant", "poisson", "ramp", "steps", "spikes", "replay"]
    rate_rps: float
    in_flight_max: int = 256
    spacing: Literal["random", "even"] | None = None
    rates: tuple[RateSpec, ...] = ()

    @property
    def evenly(self) -> bool:
        """Whether arrivals are evenly spaced, not random."""
        return self.kind == "constant" or self.spacing == "even"

    @property
    def first_rps(self) -> float:
        """The rate at the start of measure, and of all of warmup."""
        return self.rates[0].from_rps if self.rates else self.rate_rps

    @property
    def peak_rps(self) -> float:
        """The highest rate of measure."""
        ends = (rate for piece in self.rates for rate in (piece.from_rps, piece.to_rps))
        return max(ends, default=self.rate_rps)


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadSpec:
    """What traffic a trial gets: exactly one of `users` (closed loop) and `arrivals` (open loop).

    `scenario` is the path of a locustfile; with a `bundle_sha256` it counts from the root of that
    parcel, a ZIP archive of the locustfile's folder. `processes` are the generators of each node
    that makes load: they share the arrivals or users. `seed` is the same for all configurations of
    a block.
    """

    scenario: str
    users: int | None
    arrivals: ArrivalsSpec | None
    seed: int
    processes: int = 1
    bundle_sha256: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PhasesSpec:
    """How long each timed phase lasts."""

    idle_ns: int
    warmup_ns: int
    measure_ns: int
    cooldown_ns: int

    @property
    def total_ns(self) -> int:
        """Sum of the configured phases: what is beyond it in a trial is overhead."""
        return self.idle_ns + self.warmup_ns + self.measure_ns + self.cooldown_ns


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialSpec:
    """One trial: one configuration under one workload, once, in a fresh process."""

    run_id: str
    trial_id: str
    block: int
    position: int
    attempt: int
    configuration: str
    baseline: bool
    workload: str
    os: Literal["linux", "windows"]
    service: ServiceSpec
    limits: LimitsSpec
    load: LoadSpec
    phases: PhasesSpec
    sampling_interval_ns: int
    gc_trace: bool
    profiles: ProfilesSpec | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeOrder:
    """What a joined node is told when a run begins there; all else it knows itself.

    `cpus_max` is the most processors that any configuration may use, None when one is not limited.
    """

    run_id: str
    collector: str
    token: str
    launcher_sha256: str | None
    cpus_max: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeSettings:
    """All that a node works with in a run: its folders, its cores, its collector.

    `node_id`, `tls_folder` and `parcel_root` are those of a joined node. `address` is where others
    reach it. `claim` marks its processes and control groups (`workers/leases.py`).
    """

    run_id: str
    claim: str
    work_root: str
    spool_root: str
    log_folder: str
    launcher: str
    collector: str
    token_file: str
    service_cores: tuple[int, ...]
    other_cores: tuple[int, ...]
    node_id: str | None = None
    address: str = "127.0.0.1"
    tls_folder: str | None = None
    parcel_root: str | None = None


def to_plain(value: Any) -> Any:
    """A spec as dicts, lists, strings and numbers, ready for JSON."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: to_plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, (list, tuple)):
        return [to_plain(v) for v in value]
    return value


def from_plain(kind: type[T], plain: Any) -> T:
    """The inverse of `to_plain`; raises TypeError or ValueError on any other shape."""
    return typing.cast(T, _build(kind, plain))


def _build(kind: Any, plain: Any) -> Any:
    origin = typing.get_origin(kind)
    if origin in (types.UnionType, typing.Union):
        if plain is None:
            return None
        return _build(next(a for a in typing.get_args(kind) if a is not type(None)), plain)
    if origin is tuple:
        inner = typing.get_args(kind)
        kinds = [inner[0]] * len(plain) if inner[-1] is Ellipsis else inner
        return tuple(_build(k, v) for k, v in zip(kinds, plain, strict=True))
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        hints = typing.get_type_hints(kind)
        return kind(**{name: _build(hints[name], v) for name, v in plain.items()})
    return plain

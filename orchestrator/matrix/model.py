"""The matrix as typed data: what may be written, what each key means, and its defaults.

The descriptions become `docs/matrix.md` and the JSON Schema for editors. Values are kept in base
units: nanoseconds, bytes, requests per second.
"""

from __future__ import annotations

import datetime
import difflib
import typing
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    WithJsonSchema,
    model_validator,
)
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from orchestrator.matrix import values

NAME = r"^[a-z0-9](?:[a-z0-9._-]{0,40}[a-z0-9])?$"


def _text(parse: Callable[[Any], Any], example: str) -> tuple[BeforeValidator, WithJsonSchema]:
    schema = {"type": "string", "examples": [example]}
    return BeforeValidator(parse), WithJsonSchema(schema)


class WrittenDefaults(GenerateJsonSchema):
    """A JSON Schema whose defaults are as one writes them: `30s`, not nanoseconds."""

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> JsonSchemaValue:
        """The schema of a value with a default."""
        found = super().default_schema(schema)
        example, default = found.get("examples", [""])[0], found.get("default")
        if example.endswith("/s") and default is not None:
            found["default"] = f"{default:g}/s"
        elif example.endswith("s") and default is not None:
            found["default"] = values.duration_text(default)
        return found


def _zero_or_more(value: Any) -> int:
    return values.duration_ns(value, zero=True)


def _rate_or_zero(value: Any) -> float:
    return values.rate_rps(value, zero=True)


_D, _DS = _text(values.duration_ns, "30s")
_Z, _ZS = _text(_zero_or_more, "5s")
_R, _RS = _text(values.rate_rps, "400/s")
_RZ, _RZS = _text(_rate_or_zero, "100/s")
_S, _SS = _text(values.size_bytes, "4GiB")
_P, _PS = _text(values.share, "2%")
_G, _GS = _text(values.go_version, "1.23")
Duration = Annotated[int, _D, _DS]
DurationOrZero = Annotated[int, _Z, _ZS]
Rate = Annotated[float, _R, _RS]
RateOrZero = Annotated[float, _RZ, _RZS]
Size = Annotated[int, _S, _SS]
Share = Annotated[float, _P, _PS]
GoVersion = Annotated[str, _G, _GS]
_WHOLE = BeforeValidator(values.whole_number)
_NUMBER = BeforeValidator(values.number)
Name = Annotated[str, Field(pattern=NAME)]
Port = Annotated[int, Field(ge=1, le=65535), _WHOLE]
Variable = Annotated[
    str, BeforeValidator(values.environment_value), WithJsonSchema({"type": ["string", "number"]})
]
Environment = dict[str, Variable]


def _as_text(value: Any) -> Any:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


Argument = Annotated[str, BeforeValidator(_as_text)]


class Section(BaseModel):
    """A mapping of known keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=False)


class GoSource(Section):
    """A Go program that is built for every configuration."""

    source: str = Field(description="folder of the Go module, relative to this file")
    package: str = Field(".", description="package in it that is the program, such as ./cmd/server")


class Ready(Section):
    """How to know that the service can take load."""

    http: str | None = Field(None, description="path that answers 2xx when the service is ready")
    tcp: bool = Field(False, description="an open port is enough")
    timeout: Duration = Field(30 * 10**9, description="how long it may take")

    @model_validator(mode="after")
    def _one_way(self) -> Ready:
        if (self.http is None) == (not self.tcp):
            raise ValueError("write either `http: /path` or `tcp: true`")
        if self.http is not None and not self.http.startswith("/"):
            raise ValueError(f"path {self.http!r} must begin with /")
        return self


class Metrics(Section):
    """A metrics endpoint of the service, read while it is measured."""

    prometheus: str | None = Field(None, description="path of a Prometheus text endpoint")
    expvar: str | None = Field(None, description="path of an expvar endpoint")
    every: Duration = Field(10**9, description="how often it is read")
    port: Port | None = Field(None, description="where it is, if not on the service's own port")

    @model_validator(mode="after")
    def _one_kind(self) -> Metrics:
        if (self.prometheus is None) == (self.expvar is None):
            raise ValueError("write either `prometheus: /metrics` or `expvar: /debug/vars`")
        return self


class Service(Section):
    """The program under test: exactly one of `go`, `binary` and `command`."""

    name: Name | None = Field(None, description="its name in tables; else that of its folder")
    go: GoSource | None = Field(None, description="a Go program that is built")
    binary: str | None = Field(None, description="a finished program, relative to this file")
    command: list[Argument] | None = Field(
        None, description="any command of the node", min_length=1
    )
    arguments: list[Argument] = Field(
        [], description="arguments of all configurations; {host} and {port} are filled in"
    )
    port: Port | None = Field(
        None, description="where it listens; left out, a free port is chosen for each trial"
    )
    ready: Ready = Field(
        default_factory=lambda: Ready(tcp=True),
        description="how to know that it is ready; left out: `tcp: true`",
    )
    stop_timeout: Duration = Field(
        10 * 10**9, description="from SIGTERM to SIGKILL at the end of a trial"
    )
    env: Environment = Field({}, description="variables of all configurations")
    metrics: Metrics | None = Field(None, description="a metrics endpoint that is read meanwhile")

    @model_validator(mode="after")
    def _one_kind(self) -> Service:
        kinds = [k for k in ("go", "binary", "command") if getattr(self, k) is not None]
        if len(kinds) != 1:
            said = f"there are {' and '.join(kinds)}" if kinds else "there is none"
            raise ValueError(f"exactly one of go, binary and command is wanted; {said}")
        return self


class Build(Section):
    """Flags of `go build`."""

    ldflags: str = Field("", description='for the linker, such as "-s -w"')
    trimpath: bool = Field(False, description="leave the source's place out of the binary")
    tags: list[str] = Field([], description="build tags")
    gcflags: str = Field("", description="for the compiler")
    cgo: bool = Field(False, description="link C code")
    race: bool = Field(False, description="with the race detector; needs cgo")
    pgo: str | None = Field(None, description="auto, off, or a profile's path")
    experiment: list[str] = Field([], description="names for GOEXPERIMENT")


class Limits(Section):
    """Limits of the service's process tree; what is really in force is recorded."""

    memory_max: Size | None = Field(None, description="hard limit: beyond it the kernel kills")
    memory_high: Size | None = Field(None, description="soft limit: beyond it the kernel presses")
    cpus: Annotated[float, Field(gt=0), _NUMBER] | None = Field(
        None, description="processors it may use"
    )


class WindowsSettings(Section):
    """What only Windows has; elsewhere it means nothing."""

    working_set_max: Size | None = Field(
        None, description="trims resident memory to this; what is committed stays committed"
    )


class Configuration(Section):
    """One way to build and run the service."""

    baseline: bool = Field(False, description="what the others are compared with; exactly one is")
    go: GoVersion | None = Field(None, description="Go release that builds it")
    git: Argument | None = Field(
        None,
        description="revision of the source's git repository that is built, such as v1.2 or "
        "HEAD~3; left out, the source as it lies there",
    )
    env: Environment = Field({}, description="variables, GOGC and GOMEMLIMIT among them")
    build: Build = Field(default_factory=Build, description="flags of go build")
    limits: Limits | None = Field(None, description="instead of the matrix's own limits")
    arguments: list[Argument] = Field([], description="appended to the service's arguments")
    windows: WindowsSettings = Field(
        default_factory=WindowsSettings, description="on Windows nodes only"
    )


class Ramp(Section):
    """A rate that changes in a straight line over the whole of measure."""

    from_: RateOrZero = Field(alias="from", description="rate when measure begins")
    to: RateOrZero = Field(description="rate when measure ends")


class Step(Section):
    """A rate that is held; `200/s` alone is short for `{rate: 200/s}`."""

    rate: RateOrZero = Field(description="the rate")
    for_: Duration | None = Field(
        None,
        alias="for",
        description="how long; steps without it share what the others leave of measure",
    )


def _step(value: Any) -> Any:
    return value if isinstance(value, dict) else {"rate": value}


class Spikes(Section):
    """A rate that shoots up again and again, in the middle of each `every`."""

    base: RateOrZero = Field(description="rate between spikes")
    peak: Rate = Field(description="rate in a spike")
    every: Duration = Field(description="from one spike to the next")
    for_: Duration = Field(alias="for", description="how long a spike lasts")

    @model_validator(mode="after")
    def _spikes_stand_out(self) -> Spikes:
        if self.peak <= self.base:
            raise ValueError(f"peak {self.peak:g}/s must be above base {self.base:g}/s")
        if self.for_ >= self.every:
            long, apart = values.duration_text(self.for_), values.duration_text(self.every)
            raise ValueError(f"a spike of {long} every {apart} never ends: `for` must be shorter")
        return self


class Replay(Section):
    """A recorded rate, from its beginning: each value holds until the next one."""

    file: str = Field(
        description="CSV with a header, Parquet, or Arrow (Feather), relative to this file"
    )
    column: str = Field("rate_rps", description="its column with the rate in requests per second")
    time: str | None = Field(
        None, description="its column with the time: timestamps, or seconds; ascending"
    )
    every: Duration | None = Field(
        None, description="without a time column: how far apart the values are"
    )
    scale: Annotated[float, Field(gt=0), _NUMBER] = Field(1.0, description="factor on the rates")

    @model_validator(mode="after")
    def _one_clock(self) -> Replay:
        if (self.time is None) == (self.every is None):
            raise ValueError("write either `time: COLUMN` or `every: 1s`, how far apart values are")
        return self


ARRIVAL_KINDS = ("constant", "poisson", "ramp", "steps", "spikes", "replay")


class Arrivals(Section):
    """Open loop: requests start when the schedule says, whatever the service does.

    Exactly one of constant, poisson, ramp, steps, spikes and replay. The last four are shapes of
    measure: warmup has their first rate.
    """

    constant: Rate | None = Field(None, description="evenly spaced")
    poisson: Rate | None = Field(None, description="at random, independent of each other")
    ramp: Ramp | None = Field(None, description="from one rate to another in a straight line")
    steps: (
        list[Annotated[Step, BeforeValidator(_step, json_schema_input_type=str | Step)]] | None
    ) = Field(None, description="one rate after the other", min_length=1)
    spikes: Spikes | None = Field(None, description="a low rate with short high ones in it")
    replay: Replay | None = Field(None, description="a recorded rate")
    spacing: Literal["random", "even"] | None = Field(
        None,
        description="of a shape: `random` (a Poisson process of that rate; so when left out) or "
        "`even`",
    )
    in_flight_max: Annotated[int, Field(ge=1, le=10_000), _WHOLE] = Field(
        256, description="requests that may wait for an answer at one time"
    )

    @property
    def kind(self) -> str:
        """Which of them it is."""
        return next(kind for kind in ARRIVAL_KINDS if getattr(self, kind) is not None)

    @model_validator(mode="after")
    def _one_kind(self) -> Arrivals:
        kinds = [kind for kind in ARRIVAL_KINDS if getattr(self, kind) is not None]
        if len(kinds) != 1:
            said = f"there are {' and '.join(kinds)}" if kinds else "there is none"
            wanted = f"exactly one of {', '.join(ARRIVAL_KINDS)} is wanted"
            raise ValueError(f"{wanted}, such as `poisson: 400/s`; {said}")
        if self.spacing and kinds[0] in ("constant", "poisson"):
            raise ValueError(
                "`spacing` is for ramp, steps, spikes and replay: constant arrivals are even and "
                "poisson ones random by their nature"
            )
        return self


class Workload(Section):
    """What traffic the service gets, and for how long."""

    scenario: str = Field(description="a shipped scenario's name, or a locustfile's path")
    arrivals: Arrivals | None = Field(None, description="open loop")
    users: Annotated[int, Field(ge=1, le=100_000), _WHOLE] | None = Field(
        None, description="closed loop: users that wait for each answer"
    )
    processes: Annotated[int, Field(ge=1, le=64), _WHOLE] = Field(
        1, description="load generators on each node that makes load, one core each; they share it"
    )
    idle: DurationOrZero = Field(5 * 10**9, description="rest after start; gives initial memory")
    warmup: DurationOrZero = Field(10 * 10**9, description="load that is not compared")
    measure: Duration = Field(60 * 10**9, description="load that is compared")
    cooldown: DurationOrZero = Field(2 * 10**9, description="rest after the load")

    @model_validator(mode="after")
    def _one_loop(self) -> Workload:
        if (self.arrivals is None) == (self.users is None):
            raise ValueError("write either `arrivals:` (open loop) or `users:` (closed loop)")
        return self


Labels = dict[Name, Argument]


class LoadNodes(Section):
    """Nodes that make the load for a service which runs on another one."""

    nodes: Annotated[int, Field(ge=1, le=64), _WHOLE] = Field(
        1, description="how many; they share the arrivals among them"
    )
    os: Literal["linux", "windows"] | None = Field(None, description="only of this system")
    labels: Labels = Field({}, description="only with these labels")


class NodeGroup(Section):
    """Nodes of one class, on which the whole plan is measured: each block on one of them."""

    os: Literal["linux", "windows"] | None = Field(
        None, description="their system; left out, the group's name says it, else linux"
    )
    count: Annotated[int, Field(ge=1, le=1000), _WHOLE] = Field(
        1, description="how many of them share the blocks"
    )
    labels: Labels = Field({}, description="only nodes that joined with these labels")
    node_class: str | None = Field(
        None, alias="class", description="only nodes whose class holds this text"
    )
    load: LoadNodes | None = Field(
        None, description="load from other nodes; left out, it comes from the service's own"
    )


def _node_group(value: Any) -> Any:
    """`linux: 2` is short for `linux: {count: 2}`."""
    return {"count": value} if isinstance(value, int) and not isinstance(value, bool) else value


def _sampling_rate(rate_rps: float) -> float:
    if not 1 <= rate_rps <= 100:
        raise ValueError("the sampling rate must be between 1/s and 100/s")
    return rate_rps


class Sampling(Section):
    """How often the service is looked at."""

    rate: Annotated[Rate, AfterValidator(_sampling_rate)] = Field(
        10.0, description="memory samples, from 1/s to 100/s"
    )


class Profiles(Section):
    """Profiles that a Go service gives through net/http/pprof; without this key none are taken."""

    at: Literal["end", "peak"] = Field(
        "end",
        description="`end`: when measure is over; `peak`: in measure, as soon as memory is above "
        "`memory_over`, which disturbs what is measured",
    )
    memory_over: Size | None = Field(None, description="resident memory at which `peak` is reached")
    kinds: list[Literal["heap", "goroutine", "allocs", "mutex", "block"]] = Field(
        ["heap", "goroutine"],
        description="which: `heap`, `goroutine`, `allocs`, `mutex`, `block`",
        min_length=1,
    )
    trace: Duration | None = Field(
        None,
        description="length of an execution trace too: it ends with measure, or begins at the "
        "peak, and disturbs what is measured",
    )
    path: str = Field("/debug/pprof", description="where the service serves net/http/pprof")
    port: Port | None = Field(None, description="where it is, if not on the service's own port")

    @model_validator(mode="after")
    def _one_moment(self) -> Profiles:
        if (self.at == "peak") != (self.memory_over is not None):
            raise ValueError("`at: peak` and `memory_over: 800MiB` belong together")
        if not self.path.startswith("/"):
            raise ValueError(f"path {self.path!r} must begin with /")
        return self


def _known_metric(name: str) -> str:
    from results.metrics import METRICS

    if name in METRICS:
        return name
    near = difflib.get_close_matches(name, METRICS, 1, 0.4)
    hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(METRICS)}"
    raise ValueError(f"there is no metric {name!r}; {hint}")


Metric = Annotated[str, AfterValidator(_known_metric)]


class Comparison(Section):
    """How configurations are compared."""

    confidence: Annotated[float, Field(gt=0.5, lt=1), _NUMBER] = Field(
        0.95, description="of the intervals; the error level of verdicts is one minus it"
    )
    primary: list[Metric] = Field(
        ["peak_rss"], description="metrics that decide; corrected together", min_length=1
    )
    margins: dict[Metric, Share] = Field(
        {}, description="per metric: a change within it counts as equivalent"
    )


def _objective_text(value: Any) -> str:
    from results.signoff.language import parse_objective

    return parse_objective(value).text


def _objective_alone(value: Any) -> Any:
    """`peak_rss <= 1GiB` is short for `{require: "peak_rss <= 1GiB"}`."""
    return value if isinstance(value, dict) else {"require": value}


class ObjectiveItem(Section):
    """One thing that a release must hold; its text alone is short for `{require: TEXT}`."""

    require: Annotated[str, BeforeValidator(_objective_text)] = Field(
        description="such as `peak_rss <= 1.3GiB`, `p99 <= 40ms`, `peak_rss better by >= 30%`, "
        "`p99 not worse by > 5%`, `headroom >= 20%`, `capacity >= 800/s` or `no_leak over 24h`"
    )
    severity: Literal["block", "warn"] = Field(
        "block", description="whether it stands in the way of a release, or is only told"
    )
    configurations: list[Name] = Field(
        [], description="for which ones; left out: all but the baseline"
    )
    workloads: list[Name] = Field([], description="under which ones; left out: all")


def _day(value: Any) -> str:
    try:
        return datetime.date.fromisoformat(str(value)).isoformat()
    except ValueError:
        text = values.shortened(value)
        raise ValueError(f"{text} is not a day; write for example 2027-01-31") from None


def _words(value: Any) -> Any:
    if isinstance(value, str) and not value.strip():
        raise ValueError("a waiver says who answers for it and why")
    return value


class WaiverItem(Section):
    """Somebody answers for an objective that does not hold, until a day."""

    objective: Annotated[str, BeforeValidator(_objective_text)] = Field(
        description="the objective, as it is written there"
    )
    owner: Annotated[str, BeforeValidator(_words)] = Field(description="who answers for it")
    reason: Annotated[str, BeforeValidator(_words)] = Field(description="why it may be shipped")
    expires: Annotated[str, BeforeValidator(_day), WithJsonSchema({"type": "string"})] = Field(
        description="the last day on which it holds, such as 2027-01-31 (UTC)"
    )
    configurations: list[Name] = Field([], description="for which ones; left out: all")
    workloads: list[Name] = Field([], description="under which ones; left out: all")


Objectives = list[
    Annotated[ObjectiveItem, BeforeValidator(_objective_alone, json_schema_input_type=str)]
]


class PolicyDocument(Section):
    """A policy file: what several services must hold."""

    objectives: Objectives = Field([], description="what a release must hold")
    waivers: list[WaiverItem] = Field([], description="of objectives that do not hold yet")


class MatrixDocument(Section):
    """The whole file."""

    service: Service = Field(description="the program under test")
    configurations: dict[Name, Configuration] = Field(
        description="ways to build and run it, by name", min_length=1
    )
    axes: dict[str, Any] = Field(
        {},
        description="cartesian products: a setting such as env.GOGC with a list of values makes "
        "one configuration of each combination, on top of the baseline; `exclude` and `include` "
        "are lists of combinations",
    )
    limits: Limits = Field(default_factory=Limits, description="of all configurations")
    workloads: dict[Name, Workload] = Field(description="traffic, by name", min_length=1)
    nodes: dict[Name, Annotated[NodeGroup, BeforeValidator(_node_group)]] = Field(
        {},
        description="groups of the cluster's nodes, by name; left out, this machine measures. "
        "`linux: 2` is short for `linux: {count: 2}`",
    )
    trials: Annotated[int, Field(ge=1, le=1_000_000), _WHOLE] = Field(
        6, description="blocks: each has one trial of every configuration"
    )
    seed: Annotated[int, Field(ge=0, lt=2**63), _WHOLE] = Field(
        1, description="of the order of trials and the arrivals"
    )
    stop_early: bool = Field(
        False,
        description="end a run as soon as each blocking objective is decided, whatever the trials "
        "that are left would show",
    )
    sampling: Sampling = Field(default_factory=Sampling, description="of memory")
    gc_trace: bool = Field(True, description="let the Go runtime report every collection")
    profiles: Profiles | None = Field(None, description="of a Go service, once in each trial")
    comparison: Comparison = Field(default_factory=Comparison, description="what decides and how")
    objectives: Objectives = Field([], description="what a release must hold, for `bench signoff`")
    waivers: list[WaiverItem] = Field([], description="of objectives that do not hold yet")
    policy: str | None = Field(
        None, description="file with objectives and waivers of several services, beside those here"
    )


def known_keys(path: Sequence[str | int], document: type[BaseModel] = MatrixDocument) -> list[str]:
    """The keys that the section at a path of a document may have."""
    section = document
    parts = iter(path)
    for part in parts:
        field = section.model_fields.get(str(part))
        if field is not None:
            section = _section_in(field.annotation) or section
            if typing.get_origin(field.annotation) is dict:
                next(parts, None)  # the name of a configuration or workload
    return [field.alias or name for name, field in section.model_fields.items()]


def _section_in(annotation: Any) -> type[BaseModel] | None:
    """The section within an annotation such as `Limits | None` or `dict[Name, Workload]`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    found = (_section_in(inner) for inner in typing.get_args(annotation))
    return next((section for section in found if section), None)

"""`trial.json`: what a trial was, how it ran, and whether its numbers can be used.

The node fills a `TrialRecord`; the collector adds its own account of the rows when it seals the
trial. Everything is plain data, so an archive can be read without Heapgate.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

Level = Literal["invalid", "warning", "note"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing to know about a trial before believing it.

    `invalid` takes the trial out of every comparison; `warning` stands beside its numbers;
    `note` is only told. `code` is from a closed vocabulary (`results/judging/validity.py` documents
    it), `remedy` says what would help.
    """

    code: str
    level: Level
    text: str
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class PhaseSpan:
    """When a phase began and ended, in nanoseconds since the epoch (UTC).

    `cpu_ns` is the processor time that the service's tree used meanwhile, read at both ends.
    """

    name: str
    start_ns: int
    end_ns: int
    cpu_ns: int | None = None


@dataclass(frozen=True, slots=True)
class PhasePeak:
    """The kernel's own high-water marks for one phase; null where there is none.

    `rss_bytes` is the main process's, `sampled_rss_bytes` the largest sample of the whole tree,
    `others_rss_bytes` the largest sample of that tree without its main process. On Windows there
    are `working_set_bytes`, `commit_bytes` and `job_bytes` instead: its marks can't be reset, so
    one that did not rise in the phase is not the phase's and stays null, and
    `sampled_working_set_bytes` and `sampled_commit_bytes` are lower bounds.
    """

    phase: str
    rss_bytes: int | None
    cgroup_bytes: int | None
    sampled_rss_bytes: int | None = None
    others_rss_bytes: int | None = None
    working_set_bytes: int | None = None
    commit_bytes: int | None = None
    job_bytes: int | None = None
    sampled_working_set_bytes: int | None = None
    sampled_commit_bytes: int | None = None

    @property
    def working_set(self) -> tuple[int | None, str | None]:
        """Windows: peak bytes, and what they are from: the kernel's mark or the samples."""
        return _mark_or_sample(self.working_set_bytes, self.sampled_working_set_bytes)

    @property
    def commit(self) -> tuple[int | None, str | None]:
        """Windows: peak bytes of commit, and what they are from, as for the working set."""
        return _mark_or_sample(self.commit_bytes, self.sampled_commit_bytes)


def _mark_or_sample(mark: int | None, sampled: int | None) -> tuple[int | None, str | None]:
    """A mark that did not rise in the phase is None: then the greatest sample is a lower bound."""
    if mark is not None:
        return mark, "kernel"
    return sampled, None if sampled is None else "samples"


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitRecord:
    """One limit as asked for and as read back from the system after it was set."""

    name: Literal["memory_max_bytes", "memory_high_bytes", "cpus", "working_set_max_bytes"]
    asked: float
    read_back: float | None
    enforced: bool
    mechanism: str
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExitRecord:
    """How the service ended and why: `cause` is one of stopped, killed, exited, crashed,
    oom_kill, commit_refused, go_out_of_memory, access_violation, never_ready, start_failed.
    """

    cause: str
    code: int | None
    signal: int | None
    text: str
    max_rss_bytes: int | None = None
    leaked_processes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadRecord:
    """The generator's own account: what was planned, what was sent, and how well it kept time.

    `lag` is the generator's own delay: from the later of (intended start, a free place) to the
    real start. `unrecorded` counts requests that were made but did not become a row, `unanswered`
    those that had no answer when the generator ended: rows with an error. `waiting_before` and
    `waiting_after` are the arrivals without an answer when measure began and when it ended.
    `loop_lag` is how late the generator's own loop got to what was due, and so to an answer.
    `exhausted` counts requests for which it had no port or file left, `lost` rows that waited too
    long for a disk. `costly_users` names Locust's own kinds of users in the scenario.
    """

    planned: int | None
    sent: int
    measured: int
    failed: int
    not_sent: int
    late: int
    unrecorded: int
    lag_p50_ns: int | None
    lag_p99_ns: int | None
    lag_max_ns: int | None
    cpu_share: float
    in_flight_max_reached: bool
    locust_version: str
    unanswered: int = 0
    waiting_before: int | None = None
    waiting_after: int | None = None
    loop_lag_p99_ns: int | None = None
    loop_lag_max_ns: int | None = None
    exhausted: int = 0
    costly_users: list[str] = field(default_factory=list)
    lost: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class SeriesTrend:
    """What one series of a trial did over measure (`results/judging/steady.py`).

    `points` are its values, `independent` about how many of them are independent, `level` their
    median. Slopes are in `unit` per second, their bounds at 99.5 %; `late_slope_per_s` is that of
    measure's second half. `step` is the most likely change of level, at `step_at_s` seconds into
    measure, `step_p` its p-value. What too few points don't tell is None.
    """

    series: str
    unit: str
    seconds: float
    points: int
    level: float
    verdict: str
    independent: float | None = None
    slope_per_s: float | None = None
    slope_low_per_s: float | None = None
    slope_high_per_s: float | None = None
    late_slope_per_s: float | None = None
    step: float | None = None
    step_at_s: float | None = None
    step_p: float | None = None


def planned_id(trial_id: str) -> str:
    """The planned trial of an attempt: `b01-1-default-steady~2` is its second."""
    return trial_id.partition("~")[0]


def group_of(trial_id: str) -> str:
    """The group of nodes that measured it: `b01-1-default-steady@windows`; empty with only one."""
    return planned_id(trial_id).rpartition("@")[2] if "@" in trial_id else ""


@dataclass(slots=True, kw_only=True)
class TrialRecord:
    """The whole of `trial.json`. `spec` is the TrialSpec as plain data, `node` the node's facts.

    `clock_offset` is the head's clock minus the node's: `offset_ns`, `error_ns` (its bound) and
    `drift_ns` (how far it moved over the trial); None when it is not known. It is stored and not
    applied: every time in a trial's tables is the clock's that read it. `generators` has one entry
    for each load node: `part` (which of the parts of `requests` is its), `node_id`, `sent`,
    `lag_p99_ns` and its own `clock_offset`. `steady` is what its series did over measure; None when
    that was not tested.
    """

    schema_version: int
    run_id: str
    trial_id: str
    block: int
    position: int
    attempt: int
    configuration: str
    baseline: bool
    workload: str
    node_id: str
    node_class: str
    started_ns: int
    finished_ns: int
    spec: dict[str, Any]
    node: dict[str, Any]
    versions: dict[str, str]
    clock: dict[str, int]
    phases: list[PhaseSpan] = field(default_factory=list)
    peaks: list[PhasePeak] = field(default_factory=list)
    limits: list[LimitRecord] = field(default_factory=list)
    applied: dict[str, Any] = field(default_factory=dict)
    load: LoadRecord | None = None
    exit: ExitRecord | None = None
    rows: dict[str, int] = field(default_factory=dict)
    digests: dict[str, str] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)
    clock_offset: dict[str, float | int] | None = None
    generators: list[dict[str, Any]] = field(default_factory=list)
    steady: list[SeriesTrend] | None = None

    @property
    def os(self) -> str:
        """The system that it was measured on: linux or windows."""
        return str(self.node.get("os") or self.spec.get("os") or "linux")

    def clock_behind_ns(self, part: int) -> int:
        """The service's node's clock minus that of the load node of a part; 0 when not known.

        For the bounds of a phase, which only the service's node tells. Rows keep their own times.
        """
        told = next((g for g in self.generators if g.get("part") == part), None)
        theirs = (told or {}).get("clock_offset")
        if not part or not theirs or not self.clock_offset:
            return 0
        return int(theirs["offset_ns"] - self.clock_offset["offset_ns"])

    @property
    def load_clock_error_ns(self) -> int | None:
        """Bound of the error of `clock_behind_ns`, the greatest of all parts; None: not known."""
        theirs = [g.get("clock_offset") for g in self.generators if g.get("part")]
        if not theirs:
            return 0
        if not self.clock_offset or not all(theirs):
            return None
        own_ns = int(self.clock_offset["error_ns"])
        return max(int(told["error_ns"]) for told in theirs if told) + own_ns

    @property
    def wine(self) -> str | None:
        """The version of Wine where that took Windows's place; its name where it tells none."""
        found = self.node.get("wine")
        return (found if isinstance(found, str) else "Wine") if found else None

    @property
    def valid(self) -> bool:
        """Whether the trial may enter a comparison."""
        return not any(f.level == "invalid" for f in self.findings)

    def to_json(self) -> str:
        """The text of `trial.json`; `valid` is written too, for readers without this class."""
        return json.dumps(dataclasses.asdict(self) | {"valid": self.valid}, indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes) -> TrialRecord:
        """Read `trial.json`. Raises ValueError on JSON that is none, TypeError on other shapes."""
        plain = json.loads(text)
        plain.pop("valid", None)
        plain["phases"] = [PhaseSpan(**p) for p in plain["phases"]]
        plain["peaks"] = [PhasePeak(**p) for p in plain["peaks"]]
        plain["limits"] = [LimitRecord(**p) for p in plain["limits"]]
        plain["findings"] = [Finding(**p) for p in plain["findings"]]
        plain["load"] = LoadRecord(**plain["load"]) if plain["load"] else None
        if plain.get("steady") is not None:
            plain["steady"] = [SeriesTrend(**p) for p in plain["steady"]]
        plain["exit"] = ExitRecord(**plain["exit"]) if plain["exit"] else None
        return cls(**plain)

    @classmethod
    def read(cls, path: Path) -> TrialRecord:
        """Read a `trial.json` file."""
        return cls.from_json(path.read_bytes())

"""`bench bisect`: which commit of the service's repository changed a metric.

Each commit is measured against the good revision in paired blocks of one run, and its side told by
the interval of the change: wholly beyond the threshold is bad, wholly before it good; one that
holds the threshold is measured again, up to a bound. Every run stays in the archive with what it
was made for, so that the same bisection, asked for again, measures only what is missing.
"""

from __future__ import annotations

import copy
import hashlib
import json
import math
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from rich.console import Console

from orchestrator.bisect.bisection import Outcome, Side, Tried, search, steps_at_most
from orchestrator.bisect.revisions import SHORT, Commit, Repository, required_repository
from orchestrator.builds import toolchains
from orchestrator.builds.binaries import flags_of
from orchestrator.builds.builds import build_go
from orchestrator.matrix import axes, values
from orchestrator.matrix.arrivals import recordings
from orchestrator.matrix.matrix import Matrix, load_matrix
from orchestrator.plan import estimate_ns
from orchestrator.progress import PlainProgress, format_seconds
from orchestrator.runseries import RunSeries, chosen, resumable, write_matrix
from orchestrator.systems import require_linux
from results.comparing.compare import Row
from results.comparing.history import known_metrics
from results.errors import RunIncomplete, UserError
from results.files import file_digest
from results.metrics import METRICS, counted, named_on
from results.statistics.interval import Interval
from results.statistics.paired import blocks_at_least

GOOD: Final = "good"
TRIED: Final = "tried"
"""The two configurations of each run."""

NOT_ITS_OWN: Final = ("axes", "objectives", "policy", "waivers", "stop_early")
"""Sections of a matrix that its runs have no use for: what they name goes by other names here."""

ROUNDS_MAX: Final = 4
"""A commit that can't be told is measured so many times the trials at most."""

FRUITLESS_MAX: Final = 2
"""After so many runs without a valid pair of trials a commit is left."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What the command line says. `worse_by` None: half of what lies between good and bad."""

    good: str
    bad: str
    metric: str
    configuration: str | None = None
    workload: str | None = None
    worse_by: float | None = None
    trials: int | None = None


@dataclass(frozen=True, slots=True)
class Threshold:
    """How much worse a bad commit is: of log ratios when `relative`, else in the metric's unit."""

    size: float
    relative: bool


def bisect(matrix_path: Path, asked: Asked, archive: Path, console: Console) -> Outcome:
    """Find the commit. Raises UserError for what can't be meant, RunIncomplete when good and bad
    can't be told apart, Interrupted when the user stops it.
    """
    require_linux("a bisection")
    with resumable(matrix_path, archive, console) as series:
        return _Bisection(matrix_path, asked, series).outcome()


class _Bisection:
    """One bisection while it goes on."""

    def __init__(self, matrix_path: Path, asked: Asked, series: RunSeries) -> None:
        self._asked = asked
        self._series = series
        self._archive = series.archive
        self._progress = PlainProgress(series.console)
        self._written = load_matrix(matrix_path)
        self._repository = _repository(self._written)
        self._good = self._repository.resolve(asked.good)
        bad = self._repository.resolve(asked.bad)
        self._commits = self._repository.first_parents(self._good, bad)
        self._trials = _trials(self._written, asked)
        self._system = _one_system(self._written)
        (self._metric, *_) = (
            METRICS[name] for name in named_on(self._system, known_metrics([asked.metric]))
        )
        if self._metric.direction == "none":
            raise UserError(f"{self._metric.name} has no worse: it can't be bisected")
        self._threshold: Threshold | None = None
        self._binaries: dict[str, Tried] = {}
        self._good_binary = self._built(self._good)
        self._key = self._key_of_all()

    def outcome(self) -> Outcome:
        """Measure good against bad, then halve what lies between."""
        commits = self._commits
        per_commit_ns = estimate_ns(self._matrix_for(commits[-1].sha, 0))
        steps = steps_at_most(len(commits))
        self._say(
            f"{counted(len(commits), 'commit')} after {self._good[:SHORT]} up to "
            f"{commits[-1].short}: at least {counted(steps + 1, 'run')} of "
            f"{counted(self._trials, 'block')}, {format_seconds(per_commit_ns / 1e9)} each"
        )
        bad = self._judge_bad(commits[-1])
        return search(commits, bad, self._judge)

    def _say(self, text: str) -> None:
        self._progress.done(f"bisect: {text}")

    # What is built

    def _built(self, commit: str) -> str:
        """Digest of the program of a commit. Raises UserError when it does not build."""
        matrix = self._written
        service, configuration = matrix.document.service, self._configuration()
        assert service.go
        self._series.stop.check()
        written = matrix.configurations[configuration]
        build = written.build.model_copy(update={"trimpath": True})
        toolchain = toolchains.ensure(written.go or "", progress=self._progress.step)
        with self._series.stop.breaks_off():
            return build_go(
                toolchain,
                self._repository.source(commit),
                package=service.go.package,
                flags=flags_of(matrix, build),
                goos=self._system,
            ).sha256

    def _configuration(self) -> str:
        return chosen(
            "configuration", self._asked.configuration, list(self._written.configurations),
            self._written.baseline,
        )  # fmt: skip

    def _workload(self) -> str:
        return chosen("workload", self._asked.workload, list(self._written.workloads))

    # What is measured

    def _document(self, commit: str, number: int) -> dict[str, Any]:
        """The matrix of one commit against the good one; `number` counts its runs."""
        written = copy.deepcopy(axes.expand(self._written.source))
        for key in NOT_ITS_OWN:
            written.pop(key, None)
        own = written["configurations"][self._configuration()]
        own = {key: value for key, value in own.items() if key not in ("baseline", "git")}
        # Equal programs are then equal byte for byte, wherever their source lay.
        own["build"] = (own.get("build") or {}) | {"trimpath": True}
        workload = self._workload()
        return written | {
            "configurations": {
                GOOD: copy.deepcopy(own) | {"baseline": True, "git": self._good},
                TRIED: copy.deepcopy(own) | {"git": commit},
            },
            "workloads": {workload: written["workloads"][workload]},
            "comparison": {
                "primary": [self._metric.name],
                "confidence": str(self._written.document.comparison.confidence),
            },
            "trials": self._trials,
            "seed": self._written.seed + number,
        }

    def _matrix_for(self, commit: str, number: int) -> Matrix:
        path = write_matrix(self._document(commit, number), self._series.folder)
        return load_matrix(path, relative_to=self._series.matrix_path.parent)

    def _key_of_all(self) -> str:
        """What all runs of this bisection have in common, and no other's."""
        document = self._document("", 0)
        for key in ("trials", "seed", "comparison"):
            document.pop(key)
        matrix = self._written
        traffic = [matrix.scenario(self._workload()), *recordings(matrix)]
        parts = [document, self._good_binary, [file_digest(p) for p in traffic],
                 version("heapgate")]  # fmt: skip
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    def _runs(self, commit: str) -> list[str]:
        """The archived runs of a commit that are this bisection's."""
        mark = self._mark(commit)
        return [r.run_id for r in self._archive.runs() if r.document.get("bisect") == mark]

    def _mark(self, commit: str) -> dict[str, str]:
        return {"key": self._key, "good": self._good, "commit": commit}

    def _measure(self, commit: Commit) -> None:
        """One more run of a commit. Raises what ends the whole bisection."""
        self._series.stop.check()
        document = self._document(commit.sha, len(self._runs(commit.sha)))
        self._series.run(document, {"bisect": self._mark(commit.sha)})

    def _row(self, runs: list[str]) -> Row | None:
        """What runs show of the metric together; None when no trial was valid."""
        from results.sql.database import open_database

        if not runs:
            return None
        with open_database(self._archive.path, runs) as database:
            tables = database.comparison().tables
        rows = [row for table in tables if (row := table.row(self._metric.name))]
        return max(rows, key=lambda row: row.pairs, default=None)

    # What is judged

    def _judge_bad(self, commit: Commit) -> Tried:
        """The bad revision must be worse, or there is nothing to look for."""
        found = self._judge(commit)
        if found.side != Side.bad:
            raise RunIncomplete(
                f"between {self._good[:SHORT]} and {commit.short} nothing is shown that could be "
                f"bisected: {self.told(found)}"
            )
        if self._asked.worse_by is None:
            worse = self._worse(found.change, relative=found.relative)
            self._threshold = Threshold(worse.estimate / 2, found.relative)
        return found

    def _judge(self, commit: Commit) -> Tried:
        self._say(f"{commit.short} of {commit.date}, {commit.subject}")
        found = self._tried(commit)
        self._say(f"{commit.short} {self.told(found)}")
        return found

    def _tried(self, commit: Commit) -> Tried:
        try:
            binary = self._built(commit.sha)
        except UserError as error:
            return Tried(commit, Side.unbuilt, str(error).splitlines()[-1].strip())
        if binary == self._good_binary:
            return Tried(commit, Side.good, "the same program as the good revision's")
        if same := self._binaries.get(binary):
            return Tried(commit, same.side, f"the same program as {same.commit.short}'s",
                         same.change, same.relative, same.pairs, same.runs)  # fmt: skip
        found = self._measured(commit)
        self._binaries[binary] = found
        return found

    def _measured(self, commit: Commit) -> Tried:
        """Measure until the side can be told, at most `ROUNDS_MAX` times."""
        while True:
            runs = self._runs(commit.sha)
            row = self._row(runs)
            side = self._side(row)
            if side != Side.unknown or self._enough(runs, row):
                break
            self._measure(commit)
        if row is None or row.change is None:
            return Tried(commit, side, "no two trials of a block were valid", runs=tuple(runs))
        return Tried(commit, side, "", row.change, row.relative, row.pairs, tuple(runs))

    def _enough(self, runs: list[str], row: Row | None) -> bool:
        """Whether another run would be in vain: none is valid, or the bound is reached."""
        finished = [r for r in runs if self._archive.run(r).status in ("complete", "incomplete")]
        if row is None or not row.pairs:
            return len(finished) >= FRUITLESS_MAX
        return len(finished) >= ROUNDS_MAX or row.pairs >= ROUNDS_MAX * self._trials

    def _side(self, row: Row | None) -> Side:
        if row is None or row.change is None:
            return Side.unknown
        worse = self._worse(row.change, relative=row.relative)
        asked = self._asked.worse_by
        threshold = self._threshold
        if threshold is None:
            size = 0.0 if asked is None else asked
            threshold = Threshold(math.log1p(size) if row.relative else size, row.relative)
        if threshold.relative != row.relative:
            return Side.unknown
        if worse.low > threshold.size:
            return Side.bad
        return Side.good if worse.high < threshold.size else Side.unknown

    def _worse(self, change: Interval | None, *, relative: bool) -> Interval:
        """A change as what is worse: log ratios when relative, above zero for worse."""
        assert change
        bounds = (change.estimate, change.low, change.high)
        estimate, low, high = (_log1p(v) if relative else v for v in bounds)
        if self._metric.direction == "higher":
            return Interval(-estimate, -high, -low)
        return Interval(estimate, low, high)

    def told(self, tried: Tried) -> str:
        """As in `bad: peak RSS +12.3 % (+11.0 … +13.5 %) in 6 blocks`."""
        from results.metrics import format_value

        if tried.change is None:
            return f"{tried.side}: {tried.reason}"

        def text(value: float) -> str:
            if tried.relative:
                return f"{value * 100:+.1f} %"
            return ("+" if value > 0 else "−") + format_value(self._metric, abs(value))

        change = tried.change
        bounds = f" ({text(change.low)} … {text(change.high)})" if tried.pairs > 5 else ""
        same = f", {tried.reason}" if tried.reason else ""
        return (
            f"{tried.side}: {self._metric.label} {text(change.estimate)}{bounds} in "
            f"{counted(tried.pairs, 'block')}{same}"
        )


def share_of(text: str) -> float:
    """`5%` → 0.05. Raises UserError."""
    try:
        return values.share(text)
    except ValueError as error:
        raise UserError(f"--worse-by: {error}") from error


def _log1p(value: float) -> float:
    return math.log1p(value) if value > -1 else -math.inf


def _repository(matrix: Matrix) -> Repository:
    service = matrix.document.service
    if service.go is None:
        raise matrix.error(("service",), "only a service with `go:` has commits to bisect")
    return required_repository(matrix.path(service.go.source))


def _trials(matrix: Matrix, asked: Asked) -> int:
    least = blocks_at_least(matrix.document.comparison.confidence, 1)
    return max(least, asked.trials or matrix.trials)


def _one_system(matrix: Matrix) -> str:
    if len(matrix.groups) > 1:
        raise UserError("a bisection measures on one group of nodes; leave the others out")
    return matrix.systems[0]

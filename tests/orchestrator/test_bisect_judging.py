"""How `bench bisect` judges: a real repository, and archives whose numbers are known."""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console

from orchestrator import runseries
from orchestrator.bisect import bisect as module
from orchestrator.bisect.bisect import FRUITLESS_MAX, ROUNDS_MAX, Asked
from orchestrator.bisect.bisection import Outcome
from orchestrator.interrupt import Stop
from orchestrator.runseries import Order
from results.errors import Interrupted, RunIncomplete
from tests.orchestrator.gitservice import GitService, seven_commits
from tests.results.archives import MIB, write_archive

CONFIGURATIONS = """\
  default: {baseline: true, go: "1.23"}
  tuned: {go: "1.23", env: {GOGC: 50}}"""
# A bisection has configurations of its own: what a release asks of these is nothing to it.
OBJECTIVES = """\
objectives: [{require: peak_rss <= 1GiB, configurations: [tuned]}]
stop_early: true
"""
GROWN = {"hoards": 1.2, "four": 1.2, "five": 1.2, "six": 1.2}
QUIET = (1.0, 1.01, 0.99, 1.005, 0.995, 1.0)
NOISY = (0.8, 1.25, 0.85, 1.2, 0.9, 1.1)


@dataclass
class Machine:
    """Measures what it is told to: how large a commit's peak is beside that of the good one."""

    service: GitService
    sizes: Mapping[str, float]
    noise: dict[str, list[tuple[float, ...]]] = field(default_factory=dict)
    broken: frozenset[str] = frozenset()
    runs: list[str] = field(default_factory=list)
    stops_at: int | None = None

    def __call__(self, order: Order, folder: Path, stop: Stop, _progress: object) -> None:
        if self.stops_at == len(self.runs):
            stop.set()
            raise Interrupted("stopped")
        matrix = yaml.safe_load(Path(order.text_path).read_text())
        commit = matrix["configurations"]["tried"]["git"]
        subject = next(s for s, sha in self.service.commits.items() if sha == commit)
        number = self.runs.count(subject)
        self.runs.append(subject)
        noise = self.noise.get(subject, [QUIET])
        peak = 200 * MIB
        already = len(list(Path(order.archive).glob("*/run.json")))
        run_id = f"20261128-{already:06d}-{number:04x}"
        trials = [f"b{block:02}-2-tried-steady" for block in range(1, 7)]
        write_archive(
            Path(order.archive),
            run_id=run_id,
            configurations={
                "good": {"peak_rss_bytes": peak},
                "tried": {
                    "peak_rss_bytes": round(peak * self.sizes.get(subject, 1.0)),
                    "factors": noise[min(number, len(noise) - 1)],
                },
            },
            invalid=trials if subject in self.broken else (),
        )
        path = Path(order.archive) / run_id / "run.json"
        document: dict[str, Any] = json.loads(path.read_text())
        path.write_text(json.dumps(document | order.more))


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> GitService:
    return seven_commits(tmp_path_factory.mktemp("service") / "repo")


@pytest.fixture
def bisected(service: GitService, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Bisect with a machine; the same archive each time."""
    matrix = service.matrix(tmp_path, CONFIGURATIONS, OBJECTIVES)

    def call(machine: Machine, worse_by: float | None = None) -> Outcome:
        monkeypatch.setattr(runseries, "run_in_process", machine)
        asked = Asked(service.commits["first"], "main", "peak_rss", worse_by=worse_by)
        return module.bisect(matrix, asked, tmp_path / "archive", Console(file=io.StringIO()))

    return call


def test_the_commit_is_found_and_nothing_is_measured_twice(
    bisected: Any, service: GitService
) -> None:
    machine = Machine(service, GROWN)
    outcome = bisected(machine)
    assert outcome.found.subject == "hoards"
    # `explains` builds to the good program, `breaks` not at all.
    assert machine.runs == ["six", "hoards"]
    assert [t.commit.subject for t in outcome.tried] == ["explains", "hoards", "breaks", "six"]
    later = Machine(service, {})
    assert bisected(later) == outcome
    assert later.runs == []


def test_an_interrupted_bisection_goes_on_where_it_was(bisected: Any, service: GitService) -> None:
    with pytest.raises(Interrupted, match="the same command goes on"):
        bisected(Machine(service, GROWN, stops_at=1))
    machine = Machine(service, GROWN)
    assert bisected(machine).found.subject == "hoards"
    assert machine.runs == ["hoards"]


def test_what_can_not_be_told_is_measured_again(bisected: Any, service: GitService) -> None:
    machine = Machine(service, GROWN, noise={"hoards": [NOISY, QUIET]})
    outcome = bisected(machine)
    assert outcome.found.subject == "hoards"
    assert 2 <= machine.runs.count("hoards") <= ROUNDS_MAX
    (hoards,) = (t for t in outcome.tried if t.commit.subject == "hoards")
    assert hoards.pairs == 6 * machine.runs.count("hoards")


def test_what_can_never_be_told_leaves_a_range(bisected: Any, service: GitService) -> None:
    sizes = GROWN | {"hoards": 1.1}  # just at the threshold
    machine = Machine(service, sizes, noise={"hoards": [NOISY]})
    outcome = bisected(machine)
    assert outcome.found is None
    assert [c.subject for c in outcome.remaining] == ["hoards", "breaks", "four"]
    assert Counter(machine.runs) == {"six": 1, "hoards": ROUNDS_MAX, "four": 1}


def test_a_commit_whose_trials_are_invalid_is_left(bisected: Any, service: GitService) -> None:
    machine = Machine(service, GROWN, broken=frozenset({"hoards"}))
    outcome = bisected(machine)
    assert [c.subject for c in outcome.remaining] == ["hoards", "breaks", "four"]
    assert machine.runs.count("hoards") == FRUITLESS_MAX
    (hoards,) = (t for t in outcome.tried if t.commit.subject == "hoards")
    assert (hoards.side, hoards.change) == ("can't tell", None)


@pytest.mark.parametrize(
    ("sizes", "worse_by"), [({}, None), ({"six": 0.8}, None), (GROWN, 0.3)], ids=str
)
def test_where_bad_is_not_shown_to_be_worse_there_is_nothing_to_look_for(
    bisected: Any, service: GitService, sizes: dict[str, float], worse_by: float | None
) -> None:
    machine = Machine(service, sizes)
    with pytest.raises(RunIncomplete, match="nothing is shown that could be bisected"):
        bisected(machine, worse_by)
    assert set(machine.runs) == {"six"}


def test_a_creep_is_found_where_it_crosses_the_threshold(
    bisected: Any, service: GitService
) -> None:
    sizes = {"hoards": 1.02, "four": 1.03, "five": 1.12, "six": 1.2}
    assert bisected(Machine(service, sizes), 0.05).found.subject == "five"

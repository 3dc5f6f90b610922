"""What a cluster adds to a trial: the same run on this machine alone and on a joined node.

`python -m tests.benchmarks.trialcost FILE ARGUMENT …` is `bench` itself, which notes in FILE when
each trial is ordered and how long each node takes to begin. When a trial began is in its record.
"""

from __future__ import annotations

import functools
import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from tests.benchmarks.figures import Figure
from tests.cluster.lan import Lan, lan

AREA = "cluster"
ROOT = Path(__file__).resolve().parents[2]
TRIALS = 8
MATRIX = f"""\
service:
  go: {{source: {ROOT}/workloads/services/sessioncache}}
  arguments: [-addr, "{{host}}:{{port}}", -live, 8MiB, -object, 4KiB]
  ready: {{http: /healthz, timeout: 30s}}
configurations:
  default: {{baseline: true, go: "1.23"}}
  optimised: {{go: "1.23", env: {{GOGC: 30}}, build: {{ldflags: -s -w}}}}
workloads:
  steady:
    {{scenario: cache_mix, arrivals: {{constant: 50/s}}, idle: 200ms, warmup: 200ms,
      measure: 500ms, cooldown: 100ms}}
trials: {TRIALS}
"""


def trial_cost(folder: Path) -> Iterator[Figure]:
    """One run on this machine alone, then two on a node: its first, and one with all sent."""
    folder.mkdir()
    folder.chmod(0o755)
    with lan(folder, {"n1": ()}) as whole:
        alone = _run(whole, folder / "alone", MATRIX)
        first = _run(whole, folder / "first", MATRIX + "nodes: {linux: 1}\n")
        again = _run(whole, folder / "again", MATRIX + "nodes: {linux: 1}\n")
    name = "placement and shipping of a trial, all cached"
    yield Figure.at_most(AREA, f"{name}: order to begin", again.order_s, "s", 0.3)
    yield Figure.told(AREA, "the same, on this machine alone", alone.order_s, "s")
    added_s = again.overhead_s - alone.overhead_s
    yield Figure.at_most(AREA, "overhead of a trial: what a cluster adds", added_s, "s", 0.3)
    yield Figure.told(AREA, "overhead of a trial on a joined node", again.overhead_s, "s")
    yield Figure.told(AREA, "a node begins a run, nothing sent yet", first.begin_s, "s")
    yield Figure.told(AREA, "a node begins a run, all cached", again.begin_s, "s")


@dataclass(frozen=True, slots=True)
class Cost:
    """Medians over the trials of one run, and how long its node took to begin, which is once."""

    order_s: float
    overhead_s: float
    begin_s: float


def _run(whole: Lan, folder: Path, matrix: str) -> Cost:
    folder.mkdir()
    folder.chmod(0o755)
    (folder / "matrix.yaml").write_text(matrix, encoding="utf-8")
    notes, archive = folder / "notes.jsonl", folder / "archive"
    subprocess.run(
        [sys.executable, "-m", "tests.benchmarks.trialcost", notes,
         "run", "matrix.yaml", "--archive", archive],
        env=whole.head.environment | {"PYTHONPATH": str(ROOT)},
        cwd=folder,
        stdout=subprocess.DEVNULL,
        check=False,  # a busy machine makes trials invalid: they are timed all the same
    )  # fmt: skip
    trials = [json.loads(path.read_text()) for path in archive.glob("*/trials/*/trial.json")]
    trials.sort(key=lambda trial: trial["started_ns"])
    noted = [json.loads(line) for line in notes.read_text().splitlines()]
    ordered = {note["trial"]: note["began_ns"] for note in noted if note["what"] == "start_trial"}
    took_s = {note["what"]: note["took_ns"] / 1e9 for note in noted}
    assert len(trials) >= 2 * TRIALS, f"only {len(trials)} trials"
    return Cost(
        order_s=median((t["started_ns"] - ordered[t["trial_id"]]) / 1e9 for t in trials),
        overhead_s=median(
            (after["started_ns"] - before["started_ns"]) / 1e9 - _configured_s(before)
            for before, after in itertools.pairwise(trials)
        ),
        begin_s=took_s["start_node"],
    )


def _configured_s(trial: dict[str, Any]) -> float:
    return sum(trial["spec"]["phases"].values()) / 1e9


def main() -> None:
    """Be `bench`, and note what its driver does."""
    from orchestrator import cluster
    from orchestrator.cli import main as bench

    notes, sys.argv = Path(sys.argv[1]), ["bench", *sys.argv[2:]]
    for owner, name in (
        (cluster.Node, "start_trial"),
        (cluster.EmbeddedCluster, "start_node"),
        (cluster.JoinedCluster, "start_node"),
    ):
        setattr(owner, name, _noted(getattr(owner, name), notes))
    bench()


def _noted(method: Callable[..., Any], notes: Path) -> Callable[..., Any]:
    @functools.wraps(method)
    def noting(*arguments: Any, **named: Any) -> Any:
        began_ns = time.time_ns()
        answer = method(*arguments, **named)
        note = {
            "what": method.__name__,
            "trial": getattr(arguments[1], "trial_id", ""),
            "began_ns": began_ns,
            "took_ns": time.time_ns() - began_ns,
        }
        with notes.open("a", encoding="utf-8") as file:
            file.write(json.dumps(note) + os.linesep)
        return answer

    return noting


if __name__ == "__main__":
    main()

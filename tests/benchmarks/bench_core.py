"""The main job's own cost: what Heapgate adds to a trial, and how long one waits for it."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

from tests.benchmarks.figures import Figure

AREA = "core"
ROOT = Path(__file__).resolve().parents[2]
BENCH = Path(sys.executable).with_name("bench")

SMALL_RUN = f"""\
service:
  go: {{source: {ROOT}/workloads/services/sessioncache}}
  arguments: [-addr, "{{host}}:{{port}}", -live, 8MiB, -object, 4KiB]
  ready: {{http: /healthz, timeout: 30s}}
configurations:
  default: {{baseline: true, go: "1.23"}}
  optimised: {{go: "1.23", env: {{GOGC: 30}}}}
workloads:
  steady:
    {{scenario: cache_mix, arrivals: {{constant: 100/s}}, idle: 500ms, warmup: 500ms,
      measure: 1s, cooldown: 100ms}}
trials: 6
"""


def figures() -> Iterator[Figure]:
    """Every figure of the area."""
    yield Figure.at_most(AREA, "bench --help", _help_ms(), "ms", 250)
    with tempfile.TemporaryDirectory() as folder:
        yield from _matrix_figures(Path(folder))
        yield from _run_figures(Path(folder))


def _help_ms() -> float:
    return (
        median(
            _seconds(
                lambda: subprocess.run([BENCH, "--help"], stdout=subprocess.DEVNULL, check=True)
            )
            for _ in range(9)
        )
        * 1e3
    )


def _seconds(work: Callable[[], object]) -> float:
    began_s = time.perf_counter()
    work()
    return time.perf_counter() - began_s


def _matrix_figures(folder: Path) -> Iterator[Figure]:
    from orchestrator.matrix.matrix import load_matrix
    from orchestrator.plan import make_plan

    small = _write(folder, "small.yaml", SMALL_RUN)
    load_matrix(small)
    long = _write(folder, "long.yaml", _many_configurations(5_000 - SMALL_RUN.count("\n")))
    lines = long.read_text().count("\n")
    took_s = _seconds(lambda: load_matrix(long))
    yield Figure.at_most(AREA, f"validating {lines:,} lines", took_s, "s", 1.0)
    matrix = load_matrix(small).with_overrides(trials=50_000, seed=None)
    took_s = _seconds(lambda: make_plan(matrix))
    yield Figure.at_most(AREA, "planning 100,000 trials", took_s, "s", 2.0)


def _many_configurations(lines: int) -> str:
    head, rest = SMALL_RUN.split("workloads:\n")
    block = "  c{}:\n    go: '1.23'\n    env:\n      GOGC: {}\n    build:\n      trimpath: true\n"
    added = "".join(block.format(n, 20 + n) for n in range(lines // block.count("\n")))
    return f"{head}{added}workloads:\n{rest}"


def _write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def _run_figures(folder: Path) -> Iterator[Figure]:
    matrix = _write(folder, "run.yaml", SMALL_RUN)
    archive = folder / "archive"
    subprocess.run(
        [BENCH, "run", matrix, "--archive", archive],
        env=os.environ | {"HEAPGATE_STATE": str(folder / "state")},
        stdout=subprocess.DEVNULL,
        check=True,
    )
    trials = [json.loads(path.read_text()) for path in archive.glob("*/trials/*/trial.json")]
    trials.sort(key=lambda trial: trial["started_ns"])
    (document,) = (json.loads(path.read_text()) for path in archive.glob("*/run.json"))
    wait_s = (trials[0]["started_ns"] - document["cluster_started_ns"]) / 1e9
    yield Figure.at_most(AREA, "Ray start to first trial", wait_s, "s", 8.0)
    overhead_s = median(
        (after["started_ns"] - before["started_ns"]) / 1e9 - _configured_s(before)
        for before, after in itertools.pairwise(trials)
    )
    yield Figure.at_most(AREA, "overhead per trial", overhead_s, "s", 1.0)


def _configured_s(trial: dict[str, Any]) -> float:
    return sum(trial["spec"]["phases"].values()) / 1e9

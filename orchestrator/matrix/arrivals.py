"""The arrivals of every workload, worked out when a matrix is loaded."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.matrix.model import Workload
from orchestrator.matrix.shapes import Pieces, ShapeError, arrivals_spec
from orchestrator.matrix.source import Path_
from workers.spec import ArrivalsSpec

if TYPE_CHECKING:
    from orchestrator.matrix.matrix import Matrix


def planned_arrivals(matrix: Matrix) -> tuple[dict[str, ArrivalsSpec], list[tuple[Path_, str]]]:
    """Workload → its arrivals, for those in an open loop; and what is wrong with the others."""
    found: dict[str, ArrivalsSpec] = {}
    wrong: list[tuple[Path_, str]] = []
    for name, workload in matrix.workloads.items():
        if workload.arrivals is None:
            continue
        try:
            recorded = _recorded(matrix, workload)
            found[name] = arrivals_spec(
                workload.arrivals, workload.warmup, workload.measure, recorded
            )
        except ShapeError as error:
            wrong.append((("workloads", name, "arrivals", *error.at), str(error)))
    return found, wrong


def _recorded(matrix: Matrix, workload: Workload) -> Pieces:
    replay = workload.arrivals.replay if workload.arrivals else None
    if replay is None:
        return ()
    from orchestrator.matrix.recorded import recorded_rate

    return recorded_rate(replay, matrix.path(replay.file), workload.measure)


def recordings(matrix: Matrix) -> list[Path]:
    """The files of recorded rates."""
    replays = (w.arrivals.replay for w in matrix.workloads.values() if w.arrivals)
    return sorted({matrix.path(replay.file) for replay in replays if replay})

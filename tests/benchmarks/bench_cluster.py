"""A cluster's own cost: trials on joined nodes, lost nodes, many agents, clocks, a Windows node.

It needs root (network namespaces) and, for the Windows figures, Wine; it takes about ten minutes.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.benchmarks.clockerror import clock_error
from tests.benchmarks.controlplane import control_plane
from tests.benchmarks.figures import Figure
from tests.benchmarks.lostnodes import lost_nodes
from tests.benchmarks.trialcost import trial_cost
from tests.benchmarks.windows_sampler import windows_sampler

AREA = "cluster"


def figures() -> Iterator[Figure]:
    """Every figure of the area."""
    with tempfile.TemporaryDirectory(prefix="hgbench-") as name:
        folder = Path(name)
        folder.chmod(0o755)  # the unprivileged service must get through
        yield from trial_cost(folder / "cost")
        yield from clock_error(folder / "clock")
        yield from windows_sampler()
        yield from lost_nodes(folder / "lost")
        yield from control_plane(folder / "agents")

"""The Ray actor of a node: it only translates; the life of a trial is in `workers/trial.py`.

One actor a node, never restarted by Ray: whether a trial is repeated is for the run to decide.
Only dicts, strings and numbers cross: a node may run another Python on another system.
"""

from __future__ import annotations

from typing import Any

import ray

from workers.runtime import NodeRuntime
from workers.spec import NodeSettings, TrialSpec, from_plain

OPTIONS: dict[str, Any] = {
    "num_cpus": 0,
    "max_restarts": 0,
    "max_task_retries": 0,
    "max_concurrency": 4,
}
"""How the actor is made; four calls at a time, one of which may be a trial."""


@ray.remote
class NodeActor:
    """One node. `run_trial` blocks for a trial; the other calls answer meanwhile."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self._runtime = NodeRuntime(from_plain(NodeSettings, settings))

    def identity(self) -> dict[str, Any]:
        """Who this node is: id, class, facts."""
        return self._runtime.identity()

    def run_trial(self, spec: dict[str, Any]) -> dict[str, Any]:
        """Run one trial to its end, whatever that is, and tell its outcome."""
        return self._runtime.run_trial(from_plain(TrialSpec, spec))

    def snapshot(self) -> dict[str, Any]:
        """What is going on, for the progress display."""
        return self._runtime.snapshot()

    def stop_trial(self) -> None:
        """End the running trial early."""
        self._runtime.stop_trial()

    def close(self) -> None:
        """End the agent; nothing of this node keeps running."""
        self._runtime.close()

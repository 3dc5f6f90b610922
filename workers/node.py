"""The Ray actor of a node: it only translates; the life of a trial is in `workers/trial.py`.

One actor a node, never restarted by Ray: whether a trial is repeated is for the run to decide.
Only dicts, strings, numbers and bytes cross: a node may run another Python on another system.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import ray

from results.errors import HeapgateError
from workers.affinity import pin_process
from workers.joined import JoinedPlace
from workers.load.remote import PeerLost
from workers.parcels import own_parcels
from workers.runtime import NodeRuntime
from workers.spec import NodeOrder, NodeSettings, TrialSpec, from_plain

OPTIONS: dict[str, Any] = {
    "num_cpus": 0,
    "max_restarts": 0,
    "max_task_retries": 0,
    "max_concurrency": 4,
}
"""How the actor is made; four calls at a time, one of which may be a trial."""


class RayPeer:
    """A load node, as the service's node sees it (`workers.load.remote.LoadPeer`)."""

    def __init__(self, node_id: str, actor: Any) -> None:
        self.node_id = node_id
        self._actor = actor

    def call(self, method: str, *arguments: Any, timeout_s: float = 30.0) -> Any:
        """Call a method of its `LoadHost`. Raises PeerLost, or the error that happened there."""
        try:
            return ray.get(self._actor.load.remote(method, list(arguments)), timeout=timeout_s)
        except ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, HeapgateError):
                raise error.cause from None
            raise
        except ray.exceptions.RayError as error:
            raise PeerLost(why_lost(error)) from error


def why_lost(error: Exception) -> str:
    """What Ray's error means, without its words for its own parts."""
    if isinstance(error, ray.exceptions.GetTimeoutError):
        return "it did not answer in time"
    if isinstance(error, ray.exceptions.ActorUnavailableError):
        return "it can't be reached"
    if isinstance(error, (ray.exceptions.ActorDiedError, ray.exceptions.ActorUnschedulableError)):
        return "its worker, or the whole node, is gone"
    return str(error).strip().splitlines()[0]


@ray.remote
class NodeActor:
    """One node for one run. `run_trial` blocks for a trial; the other calls answer meanwhile."""

    def __init__(self) -> None:
        self._runtime: NodeRuntime
        self._place: JoinedPlace | None = None
        self._pinned = ExitStack()

    def missing(self, digests: list[str]) -> list[str]:
        """Those of the parcels that this node has not been sent yet."""
        return own_parcels().missing(digests)

    def store(self, digest: str, name: str, data: bytes) -> None:
        """Take a parcel."""
        own_parcels().store(digest, name, data)

    def begin(self, settings: dict[str, Any]) -> dict[str, Any]:
        """Begin a run on the machine of its driver, in folders that the driver made."""
        self._runtime = NodeRuntime(from_plain(NodeSettings, settings))
        return self._runtime.identity()

    def join(self, order: dict[str, Any]) -> dict[str, Any]:
        """Begin a run on a joined node, in folders of its own."""
        self._place = JoinedPlace(from_plain(NodeOrder, order))
        settings = self._place.settings
        # For good: this process is for one run.
        self._pinned.enter_context(pin_process(settings.other_cores))
        self._runtime = NodeRuntime(settings)
        return self._runtime.identity()

    def run_trial(self, spec: dict[str, Any], peers: list[tuple[str, Any]]) -> dict[str, Any]:
        """Run one trial to its end, whatever that is, and tell its outcome.

        `peers` are the ids and actors of the nodes that make its load; none: this one does.
        """
        load = [RayPeer(node_id, actor) for node_id, actor in peers]
        return self._runtime.run_trial(from_plain(TrialSpec, spec), load)

    def load(self, method: str, arguments: list[Any]) -> Any:
        """Call a method of this node's `LoadHost`."""
        return getattr(self._runtime.load, method)(*arguments)

    def snapshot(self) -> dict[str, Any]:
        """What is going on, for the progress display."""
        return self._runtime.snapshot()

    def stop_trial(self) -> None:
        """End the running trial early."""
        self._runtime.stop_trial()

    def close(self) -> dict[str, str]:
        """End the agent; nothing of this node keeps running. The texts of its logs by name."""
        self._runtime.close()
        if self._place is None:
            return {}
        logs = self._place.logs()
        self._place.release()
        return logs

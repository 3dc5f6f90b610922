"""Ray: start an embedded cluster or use the joined one, reach its nodes, run trials on them.

The only file of the orchestrator that imports Ray. Ray reads most of its settings when it is
imported, so they are set first. Embedded, everything listens on loopback behind a token made for
this run. Nothing that Ray prints reaches the user's terminal.
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from results.errors import EnvironmentLacks, HeapgateError, RunIncomplete
from workers.spec import NodeOrder, NodeSettings, TrialSpec, to_plain

NODE_LABEL = "heapgate-node"
"""Label of a joined node in Ray: its id."""

OBJECT_STORE_BYTES = 80 * 2**20
"""Ray's shared memory: only small messages travel through it here."""


@contextlib.contextmanager
def quiet_standard_error(log: Path) -> Iterator[None]:
    """Send file descriptor 2 to `log`; Python's own `sys.stderr` still reaches the user.

    Ray's processes inherit the descriptor and write their last words to it.
    """
    sys.stderr.flush()
    kept = os.dup(2)
    python_stderr = sys.stderr
    target = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(target, 2)
    os.close(target)
    sys.stderr = os.fdopen(os.dup(kept), "w", buffering=1, encoding="utf-8", errors="replace")
    try:
        yield
    finally:
        sys.stderr.close()
        sys.stderr = python_stderr
        os.dup2(kept, 2)
        os.close(kept)


def _configure_environment(temp: Path) -> None:
    os.environ |= {
        # Without it Ray takes an outer address of this machine, whatever it is told, and listens
        # on all; with it, nodes on other machines are ruled out and it stays on loopback.
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_prestart_worker_first_driver": "0",
        "RAY_enable_metrics_collection": "0",
        "RAY_event_stats": "0",
        "RAY_NUM_REDIS_GET_RETRIES": "1",
        "RAY_TMPDIR": str(temp),
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
        # By default everything a node starts, the service too, would be 15 nicer than others.
        "RAY_worker_niceness": "0",
    }


def _quiet_ray() -> Any:
    """Ray, imported, without what it would do in the user's own process."""
    import ray

    # Ray prints to standard output whatever befalls a worker; that is told here, in our words.
    ray._private.worker.print_to_stdstream = _do_nothing
    # It answers SIGTERM with sys.exit, wherever that happens to be raised; runs stop otherwise.
    ray._private.utils.set_sigterm_handler = _do_nothing
    # It keeps the command line with the job, and there may be an address to notify in it.
    ray._private.utils.get_entrypoint_name = lambda: "bench"
    return ray


def _do_nothing(*_: Any, **__: Any) -> None:
    """Instead of what Ray would do."""


class EmbeddedCluster:
    """Ray on this machine alone, for the length of one run."""

    def __init__(self, temp: Path, log_folder: Path) -> None:
        self._temp = temp / "ray"
        self._logs = log_folder / "ray"
        self._nodes: list[Node] = []

    def start(self) -> None:
        """Start Ray. Raises EnvironmentLacks with the place of its logs when it can't."""
        self._temp.mkdir(parents=True)
        _configure_environment(self._temp)
        ray = _quiet_ray()
        try:
            ray.init(
                address="local",
                num_cpus=1,
                num_gpus=0,
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.ERROR,
                configure_logging=False,
                object_store_memory=OBJECT_STORE_BYTES,
                _node_ip_address="127.0.0.1",
                _temp_dir=str(self._temp),
            )
        except Exception as error:
            self.stop()
            raise EnvironmentLacks(
                f"Ray did not start: {error}\nits logs are in {self._logs}"
            ) from error

    def start_node(self, settings: NodeSettings) -> Node:
        """Start this machine's node actor and ask it for its facts."""
        node = Node(_actor())
        self._nodes.append(node)
        node.begin(settings)
        return node

    def stop(self) -> None:
        """Stop the node actors and Ray, and keep Ray's logs in the run's folder."""
        import ray

        for node in self._nodes:
            node.close()
        self._nodes.clear()
        ray.shutdown()
        for session in self._temp.glob("session_2*"):
            with contextlib.suppress(OSError):  # a full disk: no reason for a run to fail
                shutil.copytree(
                    session / "logs", self._logs, dirs_exist_ok=True, ignore_dangling_symlinks=True
                )
        shutil.rmtree(self._temp, ignore_errors=True)


class JoinedCluster:
    """The cluster whose head is this machine (`bench node head`), used for the length of a run."""

    def __init__(self, ray_address: str, ray_environment: Mapping[str, str], logs: Path) -> None:
        self._address = ray_address
        self._environment = dict(ray_environment)
        self._logs = logs
        self._nodes: list[Node] = []
        self._sent: dict[str, Any] = {}

    def start(self) -> None:
        """Connect. Raises EnvironmentLacks when the head does not answer."""
        os.environ |= self._environment | {
            # After that time without its head Ray ends this process, without a word. The run looks
            # after the head itself, and has to end in order.
            "RAY_gcs_rpc_server_reconnect_timeout_s": "600",
        }
        ray = _quiet_ray()
        try:
            ray.init(
                address=self._address,
                log_to_driver=False,
                logging_level=logging.ERROR,
                configure_logging=False,
            )
        except Exception as error:
            raise EnvironmentLacks(
                f"the cluster's head {self._address} does not answer: {error}\n"
                "`bench node ls` shows its state, `bench node head` starts it again"
            ) from error

    def start_node(self, node_id: str, order: NodeOrder, parcels: Mapping[str, Path]) -> Node:
        """Start the actor of a joined node, send it what it lacks, and ask it for its facts.

        `parcels` are files by SHA-256. Raises NodeLost when the node is gone.
        """
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        places = {
            entry["Labels"].get(NODE_LABEL): entry["NodeID"]
            for entry in ray.nodes()  # type: ignore[no-untyped-call]
            if entry["Alive"]
        }
        if node_id not in places:
            raise NodeLost("Ray does not know it (any more)")
        # Not by a label selector: with the node gone, that one would wait for ever.
        place = NodeAffinitySchedulingStrategy(places[node_id], soft=False)
        node = Node(_actor(scheduling_strategy=place))
        try:
            node.send(parcels, self._stored)
            node.join(order)
        except BaseException:
            ray.kill(node._actor)  # it has begun nothing that would have to end in order
            raise
        self._nodes.append(node)
        return node

    def _stored(self, digest: str, path: Path) -> Any:
        """A parcel in Ray's object store: put there once, fetched by each node that lacks it."""
        import ray

        if digest not in self._sent:
            self._sent[digest] = ray.put(path.read_bytes())
        return self._sent[digest]

    def stop(self) -> None:
        """End the node actors, keep their logs in the run's folder, and disconnect."""
        import ray

        for node in list(self._nodes):
            self.end_node(node)
        self._sent.clear()
        ray.shutdown()

    def end_node(self, node: Node) -> None:
        """End a node's actor, and keep its logs in the run's folder."""
        self._nodes.remove(node)
        logs = node.close()
        folder = self._logs / (node.node_id or "unknown")
        with contextlib.suppress(OSError):  # a full disk: no reason for a run to fail
            folder.mkdir(parents=True, exist_ok=True)
            for name, text in logs.items():
                (folder / Path(name).name).write_text(text, encoding="utf-8")


def _actor(**options: Any) -> Any:
    from workers.node import OPTIONS, NodeActor

    actor: Any = NodeActor  # Ray's decorator makes another type of it
    return actor.options(**OPTIONS, **options).remote()


class NodeLost(Exception):
    """The node's actor died: its trial is lost and must be repeated."""


class Node:
    """The driver's side of one node actor."""

    def __init__(self, actor: Any) -> None:
        self._actor = actor
        self._trial: Any = None
        self.node_id = self.node_class = ""
        self.facts: dict[str, Any] = {}
        self.last_snapshot: dict[str, Any] = {}
        self.trial_started_ns = 0

    def begin(self, settings: NodeSettings) -> None:
        """Begin a run on this very machine."""
        self._take(self._get(self._actor.begin.remote(to_plain(settings)), timeout_s=60.0))

    def join(self, order: NodeOrder) -> None:
        """Begin a run on a joined node."""
        self._take(self._get(self._actor.join.remote(to_plain(order)), timeout_s=60.0))

    def _take(self, identity: dict[str, Any]) -> None:
        self.node_id = identity["node_id"]
        self.node_class = identity["node_class"]
        self.facts = identity["facts"]

    @property
    def machine(self) -> str:
        """The same for nodes that share one machine, and so disturb each other."""
        return self.facts.get("machine") or self.node_id

    def send(self, parcels: Mapping[str, Path], stored: Callable[[str, Path], Any]) -> None:
        """Send the parcels that the node lacks. Raises EnvironmentLacks when it can't keep them."""
        missing = self._get(self._actor.missing.remote(list(parcels)), timeout_s=60.0)
        for digest in missing:
            path = parcels[digest]
            arrived = self._actor.store.remote(digest, path.name, stored(digest, path))
            self._get(arrived, timeout_s=600.0)

    def start_trial(self, spec: TrialSpec, load: Sequence[Node] = ()) -> None:
        """Begin a trial, one at a time on a node, always. `load` are the nodes that load it."""
        self.last_snapshot, self.trial_started_ns = {}, time.time_ns()
        peers = [(node.node_id, node._actor) for node in load]
        self._trial = self._actor.run_trial.remote(to_plain(spec), peers)

    def wait_trial(self, timeout_s: float) -> dict[str, Any] | None:
        """The trial's outcome, or None when it is not over after `timeout_s`.

        Raises NodeLost when the actor died.
        """
        import ray

        done, _ = ray.wait([self._trial], timeout=timeout_s)
        return self._get(self._trial, timeout_s=30.0) if done else None

    def snapshot(self) -> dict[str, Any]:
        """What the node is doing now: phase, time left, live memory and request rate."""
        self.last_snapshot = dict(self._get(self._actor.snapshot.remote(), timeout_s=10.0))
        return self.last_snapshot

    def stop_trial(self) -> None:
        """Ask the running trial to end early, keeping what was measured."""
        self._actor.stop_trial.remote()

    def close(self) -> dict[str, str]:
        """End the node's agent and the actor; the texts of a joined node's logs."""
        import ray

        logs: dict[str, str] = {}
        with contextlib.suppress(NodeLost):
            logs = self._get(self._actor.close.remote(), timeout_s=15.0)
        ray.kill(self._actor)
        return logs

    def _get(self, reference: Any, *, timeout_s: float) -> Any:
        import ray

        try:
            return ray.get(reference, timeout=timeout_s)
        except ray.exceptions.RayError as error:
            cause = getattr(error, "cause", None)
            if isinstance(cause, HeapgateError):
                raise cause from None
            lines = str(error).strip().splitlines() or [type(error).__name__]
            if isinstance(error, ray.exceptions.RayTaskError):
                # What was raised there comes with its traceback: the last line says what it was.
                raise RunIncomplete(f"node {self.node_id} failed: {lines[-1]}") from error
            from workers.node import why_lost

            raise NodeLost(why_lost(error)) from error

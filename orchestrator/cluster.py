"""Ray: start an embedded cluster on this machine, find its nodes, run trials on them.

The only file of the orchestrator that imports Ray. Ray reads most of its settings when it is
imported, so they are set first. Everything listens on loopback behind a token made for this run,
and nothing that Ray prints reaches the user's terminal.
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from results.errors import EnvironmentLacks
from workers.spec import NodeSettings, TrialSpec, to_plain

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
    }


def _do_nothing(*_: Any, **__: Any) -> None:
    """Instead of what Ray would do in the user's own process."""


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
        import ray

        # Ray prints to standard output whatever befalls a worker; that is told here, in our words.
        ray._private.worker.print_to_stdstream = _do_nothing
        # It answers SIGTERM with sys.exit, wherever that happens to be raised; runs stop otherwise.
        ray._private.utils.set_sigterm_handler = _do_nothing
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
        from workers.node import OPTIONS, NodeActor

        actor: Any = NodeActor  # Ray's decorator makes another type of it
        node = Node(actor.options(**OPTIONS).remote(to_plain(settings)))
        self._nodes.append(node)
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


class NodeLost(Exception):
    """The node's actor died: its trial is lost and must be repeated."""


class Node:
    """The driver's side of one node actor."""

    def __init__(self, actor: Any) -> None:
        self._actor = actor
        self._trial: Any = None
        identity = self._get(actor.identity.remote(), timeout_s=60.0)
        self.node_id: str = identity["node_id"]
        self.node_class: str = identity["node_class"]
        self.facts: dict[str, Any] = identity["facts"]

    def start_trial(self, spec: TrialSpec) -> None:
        """Begin a trial; one at a time on a node, always."""
        self._trial = self._actor.run_trial.remote(to_plain(spec))

    def wait_trial(self, timeout_s: float) -> dict[str, Any] | None:
        """The trial's outcome, or None when it is not over after `timeout_s`.

        Raises NodeLost when the actor died.
        """
        import ray

        done, _ = ray.wait([self._trial], timeout=timeout_s)
        return self._get(self._trial, timeout_s=30.0) if done else None

    def snapshot(self) -> dict[str, Any]:
        """What the node is doing now: phase, time left, live memory and request rate."""
        return dict(self._get(self._actor.snapshot.remote(), timeout_s=10.0))

    def stop_trial(self) -> None:
        """Ask the running trial to end early, keeping what was measured."""
        self._actor.stop_trial.remote()

    def close(self) -> None:
        """End the node's agent and the actor."""
        import ray

        with contextlib.suppress(NodeLost):
            self._get(self._actor.close.remote(), timeout_s=15.0)
        ray.kill(self._actor)

    def _get(self, reference: Any, *, timeout_s: float) -> Any:
        import ray

        try:
            return ray.get(reference, timeout=timeout_s)
        except ray.exceptions.RayError as error:
            # What was raised on the node comes with its traceback: the last line says what it was.
            raised = isinstance(error, ray.exceptions.RayTaskError)
            raise NodeLost(str(error).strip().splitlines()[-1 if raised else 0]) from error

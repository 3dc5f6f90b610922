"""Keeps Ray's node on this machine: starts it, starts it again when it dies or the head is new."""

from __future__ import annotations

import threading
import time

import tenacity

from orchestrator.membership.nodestate import NodeState
from orchestrator.membership.raynode import RayProcesses
from results.collecting.secure import say
from results.errors import EnvironmentLacks
from workers.facts import node_facts

_LOOK_EVERY_S = 0.2
_STEADY_AFTER_S = 30.0
"""A node that lived for so long is started again at once; one that dies sooner, less and less
often."""

_RETRY_WAIT_MAX_S = 10.0


class RayWatch:
    """Ray's node of a joined machine. `want` tells where its head is; `run` keeps it there."""

    def __init__(self, state: NodeState, stop: threading.Event) -> None:
        self._state = state
        self._stop = stop
        self._wanted = ("", "")
        self._changed = threading.Event()
        self._ray: RayProcesses | None = None
        self._started = threading.Event()
        self.session = ""
        self.problem = ""

    def want(self, session: str, ray_address: str) -> None:
        """The head says where Ray is and which session it is in; empty: nowhere now."""
        if ray_address and (session, ray_address) != self._wanted:
            self._wanted = session, ray_address
            self._changed.set()

    def anew(self) -> None:
        """Start Ray's node again, with the certificate that the folder holds now."""
        self._wanted = "", ""

    def wait_started(self) -> None:
        """Return when Ray's node works for the first time, or everything is to stop."""
        while not self._stop.is_set() and not self._started.wait(_LOOK_EVERY_S):
            pass

    def run(self) -> None:
        """Keep it until told to stop."""
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(EnvironmentLacks),
            wait=tenacity.wait_random_exponential(multiplier=0.5, max=_RETRY_WAIT_MAX_S),
            sleep=self._pause,
            before_sleep=self._told,
        )
        while not self._stop.is_set():
            retrying(self._one_life)
        self.end()

    def _pause(self, seconds: float) -> None:
        self._stop.wait(seconds)

    def _told(self, state: tenacity.RetryCallState) -> None:
        self.problem = str(state.outcome.exception()) if state.outcome else ""
        say(self.problem)

    def _one_life(self) -> None:
        """Start it and watch it. Raises EnvironmentLacks when it did not last."""
        while not self._changed.wait(_LOOK_EVERY_S):
            if self._stop.is_set():
                return
        session, address = self._wanted
        began_s = time.monotonic()
        self._start(session, address)
        if self._wanted[0] != session:
            self.end()  # it would have waited for a head that has ended meanwhile
            return
        self.session, self.problem = session, ""
        say(f"Ray's node works, at the head {address}")
        self._started.set()
        while not self._stop.wait(_LOOK_EVERY_S):
            if self._wanted[0] != session:
                say("the head is a new one: Ray's node joins it anew")
                self.end()
                return
            if self._ray is None or not self._ray.alive:
                self.end()
                self._short_life(began_s)
                return

    def _short_life(self, began_s: float) -> None:
        lived_s = time.monotonic() - began_s
        text = f"Ray's node ended after {lived_s:.0f} s, or lost its head; it is started again"
        if lived_s < _STEADY_AFTER_S:
            raise EnvironmentLacks(text)
        say(text)

    def _start(self, session: str, address: str) -> None:
        identity = self._state.identity()
        labels = identity.labels | {
            "os": node_facts()["os"],
            "heapgate-node": identity.node_id,
        }
        listed = ",".join(f"{key}={value}" for key, value in labels.items())
        self._ray = RayProcesses(
            [
                *(f"--address={address}", f"--node-ip-address={identity.address}"),
                *("--num-cpus=1", f"--labels={listed}"),
            ],
            self._state.ray_environment(),
            self._state.folder / "ray.log",
        )
        self._ray.wait_started(
            lambda seconds: self._stop.wait(seconds) or self._wanted[0] != session
        )

    def end(self) -> None:
        """End Ray's node and all that it started."""
        self.session = ""
        if self._ray:
            self._ray.stop()
            self._ray = None

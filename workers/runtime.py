"""What a node keeps between trials: its facts, its agent, and the one trial that is running.

Plain Python without Ray, so that it can be tested and used without a cluster.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from results.errors import EnvironmentLacks
from workers.affinity import CoreSplit
from workers.agent import AgentProcess, wait_delivered
from workers.clockwatch import ClockWatch
from workers.facts import node_class, node_facts, node_id
from workers.load.host import LoadHost
from workers.load.remote import LoadPeer
from workers.parcels import Parcels
from workers.spec import NodeSettings, TrialSpec
from workers.trial import NodeContext, Trial

DELIVERY_TIMEOUT_S = 60.0
"""How long a finished trial waits for the collector's word that it is sealed."""


class NodeRuntime:
    """One node for one run. `run_trial` may be called by one thread at a time."""

    def __init__(self, settings: NodeSettings) -> None:
        """Collect the node's facts and start its agent."""
        self._settings = settings
        service, other = settings.service_cores, settings.other_cores
        cores = CoreSplit(service, other, shared=not set(service).isdisjoint(other))
        facts = node_facts(cores)
        self._parcels = Parcels(Path(settings.parcel_root)) if settings.parcel_root else None
        self._context = NodeContext(
            node_id=settings.node_id or node_id(),
            node_class=node_class(facts),
            facts=facts,
            claim=settings.claim,
            address=settings.address,
            launcher=Path(settings.launcher),
            work_root=Path(settings.work_root),
            spool_root=Path(settings.spool_root),
            cores=cores,
        )
        self._stop = threading.Event()
        self._trial: Trial | None = None
        self._tls_folder = Path(settings.tls_folder) if settings.tls_folder else None
        self._agent = AgentProcess.start(
            spool=Path(settings.spool_root),
            collector=settings.collector,
            token_file=Path(settings.token_file),
            log=Path(settings.log_folder) / "agent.log",
            tls=self._tls_folder,
        )
        self.load = LoadHost(settings, self._parcels, self._deliver, self._offset)

    def identity(self) -> dict[str, Any]:
        """Who this node is."""
        context = self._context
        return {
            "node_id": context.node_id,
            "node_class": context.node_class,
            "facts": context.facts,
        }

    def run_trial(self, spec: TrialSpec, peers: Sequence[LoadPeer] = ()) -> dict[str, Any]:
        """Run a trial and wait until the collector has sealed it; `peers` make its load if any.

        The outcome: `record` (JSON text of trial.json as the node knows it), `differences` (what
        the collector says is not as sent), `lost_load_node` (the id of one that does not answer any
        more) or None, and `abort` (text and exit code of an error that every further trial would
        meet too) or None.
        """
        self._stop.clear()
        try:
            local = self._parcels.resolve(spec) if self._parcels else spec
            trial = Trial(local, self._context, self._stop, peers, self._clock_watch(), told=spec)
        except (OSError, EnvironmentLacks) as error:
            return _aborted(EnvironmentLacks(f"can't prepare a trial on this node: {error}"))
        self._trial = trial
        try:
            record = trial.run()
            differences = self._deliver(spec.trial_id)
        except OSError as error:
            text = f"what was measured in trial {spec.trial_id} could not be kept: {error}"
            return _aborted(EnvironmentLacks(f"{text}; make room, then: bench resume"))
        finally:
            self._trial = None
        outcome: dict[str, Any] = {
            "record": record.to_json(),
            "differences": differences,
            "lost_load_node": trial.lost_load_node,
            "abort": None,
        }
        if trial.abort:
            outcome["abort"] = {"text": str(trial.abort), "exit_code": trial.abort.exit_code}
        return outcome

    def _clock_watch(self) -> ClockWatch | None:
        """Follows the head's clock through a trial; None on the machine of the driver itself."""
        if self._tls_folder is None:
            return None
        return ClockWatch(self._settings.collector, self._tls_folder)

    def _offset(self) -> dict[str, Any] | None:
        watch = self._clock_watch()
        return watch.told() if watch else None

    def _deliver(self, trial_id: str) -> list[str]:
        root = Path(self._settings.spool_root)
        return wait_delivered(root, trial_id, DELIVERY_TIMEOUT_S, self._agent)

    def snapshot(self) -> dict[str, Any]:
        """The running trial's state, or an empty dict between trials.

        Asked often, so it is also when a dead agent is noticed: what is measured shall not wait on
        this node for the trial's end.
        """
        trial = self._trial
        if trial:
            self._agent.ensure_alive()
        return trial.snapshot() if trial else {}

    def stop_trial(self) -> None:
        """End the running trial early, keeping what was measured."""
        self._stop.set()

    def close(self) -> None:
        """Stop the agent; what it has not delivered stays in the spool."""
        self.stop_trial()
        self.load.close_load()
        self._agent.stop()


def _aborted(error: EnvironmentLacks) -> dict[str, Any]:
    return {
        "record": None,
        "differences": [],
        "lost_load_node": None,
        "abort": {"text": str(error), "exit_code": error.exit_code},
    }

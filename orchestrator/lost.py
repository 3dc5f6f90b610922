"""A trial whose node was lost: sealed with what had arrived, and marked for what it is."""

from __future__ import annotations

import time
from contextlib import suppress

from orchestrator.cluster import Node
from orchestrator.ongoing import Run
from results import validity
from results.errors import HeapgateError
from results.record import TrialRecord
from results.schema import SCHEMA_VERSION
from workers.spec import TrialSpec, to_plain


def seal_lost(run: Run, node: Node, spec: TrialSpec, why: str) -> TrialRecord:
    """Seal the trial that was running on a lost node with what the collector has of it.

    The record's load is not known, as its account died with the node: what the node last told of
    it is the least that had been sent.
    """
    record = _record(run, node, spec)
    told = int(node.last_snapshot.get("sent") or 0)
    if run.collector:
        from results.control import abandon_trial

        with suppress(HeapgateError):  # a dead collector: its partial files stay readable
            return abandon_trial(run.collector, record, why=why, sent_at_least=told)
    record.findings.append(validity.node_lost(why, sent_at_least=told, archived=0))
    return record


def _record(run: Run, node: Node, spec: TrialSpec) -> TrialRecord:
    return TrialRecord(
        schema_version=SCHEMA_VERSION,
        run_id=run.run_id,
        trial_id=spec.trial_id,
        block=spec.block,
        position=spec.position,
        attempt=spec.attempt,
        configuration=spec.configuration,
        baseline=spec.baseline,
        workload=spec.workload,
        node_id=node.node_id,
        node_class=node.node_class,
        started_ns=node.trial_started_ns,
        finished_ns=time.time_ns(),
        spec=to_plain(spec),
        node=node.facts,
        versions={},
        clock={},
    )

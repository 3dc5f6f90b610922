"""A trial whose node was lost: sealed with what had arrived, and marked for what it is."""

from __future__ import annotations

import time

from orchestrator.cluster import Node
from orchestrator.ongoing import Run
from results.collecting.control import abandon_trial
from results.errors import HeapgateError
from results.judging import validity
from results.record import TrialRecord
from results.schema import SCHEMA_VERSION
from workers.spec import TrialSpec, to_plain


def seal_lost(run: Run, node: Node, spec: TrialSpec, why: str) -> TrialRecord:
    """Seal the trial that was running on a lost node with what the collector has of it.

    Its load's account died with the node: what the node last told is the least that had been sent.
    Where the node had finished the trial after all, its own record is the answer.
    """
    record = _record(run, node, spec)
    told = int(node.last_snapshot.get("sent") or 0)
    try:
        assert run.collector
        return abandon_trial(run.collector, record, why=why, sent_at_least=told)
    except HeapgateError as error:  # what the collector has is on disk, as a partial trial
        text = f"{why}; {error}"
        record.findings.append(validity.node_lost(text, sent_at_least=told, archived=0))
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

"""Is anything left to learn? A run may end when the trials that it still plans can't change a word.

Exact curtailment: each objective is decided twice as if the run had gone to its end, once with the
trials that were not measured at their most favourable, once at their least. Where even the best of
them gives no PASS, the objective can no longer be met; where even the worst leaves it at PASS, it
surely is. Nothing is estimated of trials that were not run, so the run says PASS exactly where the
whole one would have, and its error rate is that of the whole one (deterministic curtailment: K.
Lan, R. Simon, M. Halperin, Stochastically curtailed tests in long-term clinical trials,
Communications in Statistics C 1, 1982; C. Jennison, B. Turnbull, Group Sequential Methods with
Applications to Clinical Trials, 2000, chapter 10).

A decision is monotone in each value, so the two extremes stand for all. They stand for trials that
end up without a value too: with fewer values an interval is no narrower. Not foreseen is a service
that dies or hangs in a trial that was not run.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

from results.comparing.compare import Measurement, Settings, compare
from results.metrics import METRICS, counted, named_on
from results.record import TrialRecord, planned_id
from results.signoff.objectives import (
    CANT_TELL,
    FAIL,
    PASS,
    Cell,
    Decision,
    Evidence,
    Objective,
    Word,
    cell_of,
    decide_in,
    decisions_in,
)

Outlook = Literal["surely met", "can't be met", "open"]
MET: Final = "surely met"
LOST: Final = "can't be met"
OPEN: Final = "open"

FAR: Final = 1e200
"""A ratio and a difference beyond all that is measured, whose sums still are numbers."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a blocking objective in a cell before all trials were run."""

    objective: str
    cell: Cell
    outlook: Outlook

    def to_plain(self) -> dict[str, Any]:
        """As JSON, for a run's document."""
        return {
            "objective": self.objective,
            "configuration": self.cell.configuration,
            "workload": self.cell.workload,
            "node_class": self.cell.node_class,
            "outlook": self.outlook,
        }


def counts(objective: Objective) -> bool:
    """Whether it can hold up a run's end: what only warns can't, nor what other runs decide."""
    return objective.severity == "block" and objective.kind != "capacity"


def settled(objectives: Sequence[Objective], evidence: Evidence) -> list[Outcome] | None:
    """What became of each blocking objective; None while one is open, or none is there.

    A cell in which nothing was measured yet may still be anything: all planned ones must be known.
    """
    own = [objective for objective in objectives if counts(objective)]
    if not own or not _all_begun(evidence):
        return None
    found = []
    for decision in decisions_in(own, evidence):
        outlook = outlook_of(decision, evidence)
        if outlook == OPEN:
            return None
        found.append(Outcome(decision.objective.text, decision.cell, outlook))
    return found


def outlook_of(decision: Decision, evidence: Evidence) -> Outlook:
    """What the trials that are still planned may make of a decision."""
    if decision.objective.kind == "no_leak":
        return LOST if decision.word == FAIL else OPEN
    words = _words(decision, evidence)
    if PASS not in words:
        return LOST
    # One that the service itself spoiled, say, keeps what all figures would let pass from it.
    return MET if words == {PASS} and decision.word == PASS else OPEN


def at_the_end(decision: Decision, evidence: Evidence) -> Decision:
    """The decision in a run that was ended early: what the whole run would have said, surely.

    Never a PASS by less than the whole run needs: what is not sure is CAN'T TELL.
    """
    if decision.objective.kind == "capacity":
        return decision
    if decision.objective.kind == "no_leak":
        if decision.word != PASS:
            return decision
        told = f"{decision.reason}; the run was ended early"
        return replace(decision, word=CANT_TELL, reason=told)
    words = _words(decision, evidence)
    if words == {PASS}:
        return decision  # Or, where the service spoiled a trial, what that makes of it.
    if words == {FAIL}:
        return replace(decision, word=FAIL, trials_needed=None)
    if PASS in words:
        told = "the run was ended early, before this was decided"
    else:
        left = _left(decision, evidence)
        told = f"it can't be met any more, whatever {counted(left, 'more trial')} had shown"
    told = f"{decision.reason}; {told}"
    return replace(decision, word=CANT_TELL, reason=told, trials_needed=None)


def _words(decision: Decision, evidence: Evidence) -> set[Word]:
    """The words that the whole run may end with, by the extremes of what is not measured."""
    futures = _futures(decision, evidence)
    return {decide_in(decision.objective, decision.cell, future).word for future in futures}


def _left(decision: Decision, evidence: Evidence) -> int:
    if decision.objective.kind == "change":
        return len(_open_pairs(decision.cell, evidence))
    return len(_open_trials(decision.cell, evidence))


def _futures(decision: Decision, evidence: Evidence) -> Iterator[Evidence]:
    if decision.objective.kind == "change":
        yield from _changes(decision, evidence)
        return
    left = sorted(_open_trials(decision.cell, evidence))
    for value in (-math.inf, math.inf):
        added = [_measured(decision, block, decision.cell.configuration, value) for block in left]
        yield replace(evidence, measurements=[*evidence.measurements, *added])


def _changes(decision: Decision, evidence: Evidence) -> Iterator[Evidence]:
    """Pairs at the extremes; where a value may be zero, also those of which no ratio is made."""
    cell, baseline = decision.cell, evidence.baseline
    metrics = named_on(cell.os, [decision.objective.metric])[:1]
    left = sorted(_open_pairs(cell, evidence))
    own = [
        m
        for m in evidence.measurements
        if (m.os, m.node_class, m.workload) == (cell.os, cell.node_class, cell.workload)
        and m.configuration in (cell.configuration, baseline)
        and m.metric in metrics
    ]
    extremes = [(1.0, FAR), (FAR, 1.0)]
    if any(METRICS[metric].unit not in ("bytes", "ns") for metric in metrics):
        extremes += [(0.0, FAR), (FAR, 0.0)]
    for before, after in extremes:
        added = [
            replace(_measured(decision, block, name, value), metric=metric)
            for block in left
            for name, value in ((baseline, before), (cell.configuration, after))
            for metric in metrics
        ]
        settings = Settings(baseline, evidence.confidence, primary=())
        yield replace(evidence, tables=compare([*own, *added], settings))


def _measured(
    decision: Decision, block: tuple[str, int, str], configuration: str, value: float
) -> Measurement:
    """A trial that was not run, at a node that nobody knows."""
    run_id, number, group = block
    cell = decision.cell
    return Measurement(
        block=(run_id, number),
        node_class=cell.node_class,
        workload=cell.workload,
        configuration=configuration,
        metric=decision.objective.metric,
        value=value,
        place=(group, "not run"),
        os=cell.os,
    )


Block = tuple[str, int, str]
"""Run, number and group of nodes."""


def _open_trials(cell: Cell, evidence: Evidence) -> set[Block]:
    """The blocks without a valid trial of a cell's configuration."""
    planned = _planned(cell, evidence)
    return {block for block, trials in planned.items() if not trials[cell.configuration]}


def _open_pairs(cell: Cell, evidence: Evidence) -> set[Block]:
    """The blocks in which no node has a valid trial of both sides."""
    planned, baseline = _planned(cell, evidence), evidence.baseline
    return {
        block
        for block, trials in planned.items()
        if not trials[cell.configuration] & trials[baseline]
    }


def _planned(cell: Cell, evidence: Evidence) -> dict[Block, Mapping[str, set[str]]]:
    """The planned blocks of a cell → configuration → the nodes that have a valid trial of it."""
    records = _by_planned(evidence.records)
    groups = _groups(evidence)
    found: dict[Block, Mapping[str, set[str]]] = {}
    for document in evidence.documents:
        run_id = str(document["run_id"])
        for trial in document["planned"]:
            group = str(trial.get("group", ""))
            if trial["workload"] != cell.workload:
                continue
            if (cell.os, cell.node_class) not in groups[run_id, group]:
                continue
            block = (run_id, int(trial["block"]), group)
            nodes = found.setdefault(block, defaultdict(set))
            own = records.get((run_id, str(trial["trial_id"])), ())
            nodes[trial["configuration"]].update(r.node_id for r in own if r.valid)
    return found


def _groups(evidence: Evidence) -> Mapping[tuple[str, str], set[tuple[str, str]]]:
    """Run and group of nodes → the systems and classes of the nodes that measured for it."""
    records = _by_planned(evidence.records)
    found: dict[tuple[str, str], set[tuple[str, str]]] = defaultdict(set)
    for document in evidence.documents:
        run_id = str(document["run_id"])
        for trial in document["planned"]:
            for record in records.get((run_id, str(trial["trial_id"])), ()):
                cell = cell_of(record)
                found[run_id, str(trial.get("group", ""))].add((cell.os, cell.node_class))
    return found


def _by_planned(records: Sequence[TrialRecord]) -> dict[tuple[str, str], list[TrialRecord]]:
    found: dict[tuple[str, str], list[TrialRecord]] = defaultdict(list)
    for record in records:
        found[record.run_id, planned_id(record.trial_id)].append(record)
    return found


def _all_begun(evidence: Evidence) -> bool:
    """Whether each planned cell was measured, and each group of nodes is of one class."""
    if any(len(classes) != 1 for classes in _groups(evidence).values()):
        return False
    records = _by_planned(evidence.records)
    cells: dict[tuple[str, ...], bool] = {}
    for document in evidence.documents:
        run_id = str(document["run_id"])
        for trial in document["planned"]:
            cell = (run_id, trial["configuration"], trial["workload"], str(trial.get("group", "")))
            begun = (run_id, str(trial["trial_id"])) in records
            cells[cell] = cells.get(cell, False) or begun
    return all(cells.values())

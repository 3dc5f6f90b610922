"""Whether a configuration carries a rate: by the searches of its capacity in the same archive.

Only a search counts that tried this build with these settings under this workload on this node
class, and whose trials had to hold all that the sign-off's own limits ask. Of several the newest
that was not broken off decides; where all were, the newest.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from results.capacity.archived import subject_of
from results.capacity.holds import is_asked
from results.signoff.objectives import CANT_TELL, FAIL, PASS, Decision, Evidence, Objective, Word

if TYPE_CHECKING:
    from results.capacity.archived import Searched

SEARCH = "bench capacity matrix.yaml"


def decide_capacity(
    undecided: Decision, evidence: Evidence, objectives: Sequence[Objective]
) -> Decision:
    """PASS at or above the bound with the whole interval, FAIL below it with the whole.

    A rate at which no fresh process held is no PASS, whatever the interval says: one signs what was
    seen to hold.
    """
    own = [s for s in evidence.searches if s.cell == undecided.cell]
    if not own:
        return replace(undecided, reason=f"no capacity was searched: {SEARCH}")
    wrong = [(searched, _other(searched, undecided, evidence, objectives)) for searched in own]
    right = [searched for searched, why in wrong if not why]
    if not right:
        return replace(undecided, reason=f"{wrong[0][1]}: {SEARCH}")
    searched = next((s for s in right if s.whole), right[0])
    interval, bound = searched.interval, undecided.objective.bound
    word: Word = CANT_TELL
    if searched.doubts or not searched.answers:
        doubt = next(iter(searched.doubts), "no trial of the search said anything")
        told = f"{_told(searched)}; {doubt}"
    else:
        word = PASS if interval.low >= bound else FAIL if interval.high < bound else CANT_TELL
        told = _told(searched)
        if word == PASS and searched.unconfirmed:
            word, told = CANT_TELL, f"{told}; not confirmed: {searched.unconfirmed}"
        elif word == PASS and searched.confirmed_rps < bound:
            word, told = CANT_TELL, f"{told}; confirmed only at {searched.confirmed_rps:,.0f}/s"
    return replace(
        undecided,
        word=word,
        reason=told,
        trials=searched.answers,
        interval=interval,
        rests_on=searched,
    )


def _other(
    searched: Searched, undecided: Decision, evidence: Evidence, objectives: Sequence[Objective]
) -> str:
    """Why a search says nothing of this decision; empty when it does."""
    documents = {str(document.get("run_id")): document for document in evidence.documents}
    subjects = {
        subject_of(documents.get(record.run_id, {}), record)
        for record in evidence.records
        if undecided.cell.is_of(record)
    }
    if searched.subjects != subjects:
        builds = [{s.partition("\n")[0] for s in own} for own in (searched.subjects, subjects)]
        what = "another build" if builds[0] != builds[1] else "other settings"
        return f"the capacity that was searched is of {what}"
    asked = [
        objective
        for objective in objectives
        if is_asked(objective, undecided.cell.configuration, undecided.cell.workload)
    ]
    missing = next((a for a in asked if not _is_held(a, searched.limits)), None)
    return f"the search of the capacity did not ask for {missing.text}" if missing else ""


def _is_held(asked: Objective, limits: Sequence[Objective]) -> bool:
    """Whether one of these limits asks for as much or more."""
    return any(
        limit.metric == asked.metric
        and limit.at_most == asked.at_most
        and (limit.bound <= asked.bound if asked.at_most else limit.bound >= asked.bound)
        for limit in limits
    )


def _told(searched: Searched) -> str:
    interval = searched.interval
    limits = ", ".join(limit.text for limit in searched.limits)
    if math.isinf(interval.high):
        found = f"at least {interval.low:,.0f}/s"
    elif not interval.low:
        found = f"at most {interval.high:,.0f}/s"
    else:
        found = f"{interval.estimate:,.0f}/s ({interval.low:,.0f} … {interval.high:,.0f}/s)"
    return f"{found} with {limits}"

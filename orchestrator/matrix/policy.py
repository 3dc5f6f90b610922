"""What a release must hold: the matrix's own objectives and those of its policy file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from orchestrator.matrix.model import ObjectiveItem, PolicyDocument, WaiverItem
from orchestrator.matrix.sentences import FoundAt, joined, validation_errors
from orchestrator.matrix.source import read_source
from results.signoff.language import objective_from_plain, parse_objective
from results.signoff.objectives import Objective
from results.signoff.waivers import Waiver


@dataclass(frozen=True, slots=True)
class Policy:
    """All objectives and waivers that count."""

    objectives: tuple[Objective, ...] = ()
    waivers: tuple[Waiver, ...] = ()

    def __add__(self, other: Policy) -> Policy:
        """Both, each thing once."""
        return Policy(
            tuple(dict.fromkeys((*self.objectives, *other.objectives))),
            tuple(dict.fromkeys((*self.waivers, *other.waivers))),
        )

    def to_plain(self) -> dict[str, Any]:
        """As JSON, for a run's document."""
        return {
            "objectives": [objective.to_plain() for objective in self.objectives],
            "waivers": [waiver.to_plain() for waiver in self.waivers],
        }

    @classmethod
    def from_plain(cls, document: dict[str, Any]) -> Policy:
        """That of a run, from its document. Raises ValueError for what is none."""
        return cls(
            tuple(map(objective_from_plain, document.get("objectives", ()))),
            tuple(map(Waiver.from_plain, document.get("waivers", ()))),
        )


def load_policy(path: Path) -> Policy:
    """Read a policy file. Raises MatrixError with all that is wrong with it, and where."""
    source = read_source(path)
    try:
        document = PolicyDocument.model_validate(source.data)
    except ValidationError as error:
        raise joined(source, validation_errors(error, PolicyDocument)) from error
    policy = policy_of(document.objectives, document.waivers)
    wrong: list[FoundAt] = [
        (("objectives", number), text, False) for number, text in contradictions(policy.objectives)
    ]
    if wrong:
        raise joined(source, wrong)
    return policy


def policy_of(objectives: Sequence[ObjectiveItem], waivers: Sequence[WaiverItem]) -> Policy:
    """From what was written and checked."""
    return Policy(
        tuple(
            parse_objective(
                item.require,
                severity=item.severity,
                configurations=tuple(item.configurations),
                workloads=tuple(item.workloads),
            )
            for item in objectives
        ),
        tuple(
            Waiver(
                item.objective,
                item.owner,
                item.reason,
                date.fromisoformat(item.expires),
                tuple(item.configurations),
                tuple(item.workloads),
            )
            for item in waivers
        ),
    )


def contradictions(objectives: Sequence[Objective]) -> Iterator[tuple[int, str]]:
    """Limits from above that lie under one from below, of the same figure in the same place.

    By number, with what is wrong. Where one names configurations and the other none, only a matrix
    knows whether they meet: it names them all (`meaning.py`).
    """
    for number, one in enumerate(objectives):
        for other in objectives[:number]:
            same = one.kind == other.kind == "limit" and one.metric == other.metric
            if same and one.at_most != other.at_most and _meet(one, other):
                most, least = (one, other) if one.at_most else (other, one)
                if most.bound < least.bound:
                    yield number, f"{one.text!r} and {other.text!r} can't both hold"


def _meet(one: Objective, other: Objective) -> bool:
    configurations = set(one.configurations) & set(other.configurations)
    everywhere = not one.configurations and not other.configurations
    workloads = set(one.workloads) & set(other.workloads)
    always = not one.workloads or not other.workloads
    return bool((configurations or everywhere) and (workloads or always))

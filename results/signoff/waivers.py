"""A waiver: somebody answers for an objective that does not hold, for a reason and until a day."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from typing import Any

from results.signoff.objectives import PASS, Decision


@dataclass(frozen=True, slots=True)
class Waiver:
    """It covers the objective with exactly this text, to the end of the day `expires` (UTC).

    Empty `configurations` and `workloads` mean every one.
    """

    objective: str
    owner: str
    reason: str
    expires: date
    configurations: tuple[str, ...] = ()
    workloads: tuple[str, ...] = ()

    def to_plain(self) -> dict[str, Any]:
        """As JSON; for every workload it is what it was before there were `workloads`."""
        plain = asdict(self) | {"expires": self.expires.isoformat()}
        if not self.workloads:
            del plain["workloads"]
        return plain

    @classmethod
    def from_plain(cls, data: Mapping[str, Any]) -> Waiver:
        """From JSON. Raises TypeError or ValueError for what is none."""
        names = {key: tuple(data.get(key, ())) for key in ("configurations", "workloads")}
        expires = date.fromisoformat(str(data["expires"]))
        return cls(**{**data, "expires": expires, **names})

    def covers(self, decision: Decision) -> bool:
        """Whether it is about this decision, today or not."""
        cell = decision.cell
        named = not self.configurations or cell.configuration in self.configurations
        here = not self.workloads or cell.workload in self.workloads
        return self.objective == decision.objective.text and named and here

    def holds(self, day: date) -> bool:
        """Whether it is still good on a day."""
        return day <= self.expires


def under(waiver: Mapping[str, Any]) -> str:
    """The workloads of a waiver's JSON in words; empty when it is for every one."""
    names = waiver.get("workloads")
    return f" under {', '.join(names)}" if names else ""


def waiver_of(decision: Decision, waivers: Iterable[Waiver], day: date) -> Waiver | None:
    """The waiver that lets a decision pass on this day; None when it needs none or has none."""
    if decision.word == PASS:
        return None
    return next((w for w in waivers if w.covers(decision) and w.holds(day)), None)


def remarks(decisions: Sequence[Decision], waivers: Iterable[Waiver], day: date) -> list[str]:
    """What is wrong with waivers: run out, about nothing, or about what holds anyway."""
    found = []
    for waiver in waivers:
        about = [d for d in decisions if waiver.covers(d)]
        named = f"the waiver of {waiver.objective!r}{under(waiver.to_plain())} by {waiver.owner}"
        if not about:
            found.append(f"{named} is about no objective here")
        elif not waiver.holds(day):
            found.append(f"{named} ended on {waiver.expires.isoformat()}")
        elif all(d.word == PASS for d in about):
            found.append(f"{named} is not needed: the objective holds")
    return found

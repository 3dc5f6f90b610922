"""What was measured of a machine itself, kept in the user's state folder for machines of its kind.

A calibration holds for the hardware that it was made on and for no other: it is found by that
hardware's facts. A newer kernel, another release of Heapgate or three months make it old: it is
still used, and `bench doctor` says so.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from results.comparing.noise import Noise
from results.errors import EnvironmentLacks
from results.files import write_whole
from workers.leases import state_folder
from workers.spec import from_plain

FORMAT = 1
OLD_AFTER_DAYS = 90
HARDWARE = ("os", "wine", "architecture", "cpu_model", "hypervisor", "threads_per_core")


@dataclass(frozen=True, slots=True, kw_only=True)
class Ceiling:
    """How many requests a second one kind of user could make against the null server.

    `valid_rps` is the highest rate of a trial that was valid, None when none was. Beyond it lies
    `invalid_rps`, the lowest rate (in a closed loop: the rate reached) of a trial that was not,
    because of `limit`. `users` is how many there were in a closed loop. `server_bound`: the null
    server itself had no processor time left.
    """

    user: str
    loop: str
    processes: int
    users: int | None
    valid_rps: float | None
    invalid_rps: float | None
    limit: str
    trials: int
    server_bound: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """What one machine can make, and how noisy it is.

    `measure_ns` is the length of measure in the A/A comparison. `left_out` says what there was no
    time for.
    """

    made_ns: int
    heapgate: str
    node_class: str
    kernel: str
    hardware: dict[str, Any]
    quick: bool
    blocks: int
    confidence: float
    measure_ns: int
    ceilings: tuple[Ceiling, ...] = ()
    noise: tuple[Noise, ...] = ()
    left_out: tuple[str, ...] = ()

    def noise_in(self, metric: str) -> Noise | None:
        """The noise of a metric, if it was measured."""
        return next((noise for noise in self.noise if noise.metric == metric), None)

    @property
    def made(self) -> str:
        """The day on which it was made."""
        return f"{datetime.fromtimestamp(self.made_ns / 1e9, UTC):%Y-%m-%d}"

    @property
    def open_rps(self) -> float | None:
        """The highest rate of a valid open loop, by any user."""
        rates = [c.valid_rps for c in self.ceilings if c.loop == "open" and c.valid_rps]
        return max(rates, default=None)

    @property
    def alarms(self) -> list[str]:
        """Metrics that were taken to differ though nothing did."""
        return [noise.metric for noise in self.noise if noise.alarm]

    def age(self, kernel: str, now_ns: int) -> str:
        """Why it is old; empty when it is not."""
        days = (now_ns - self.made_ns) / 86_400e9
        if self.heapgate != version("heapgate"):
            return f"by Heapgate {self.heapgate}, this is {version('heapgate')}"
        if self.kernel != kernel:
            return f"under kernel {self.kernel}, this is {kernel}"
        return f"{days:.0f} days ago" if days > OLD_AFTER_DAYS else ""

    def to_plain(self) -> dict[str, Any]:
        """As JSON."""
        return {"format": FORMAT} | dataclasses.asdict(self)

    @classmethod
    def from_json(cls, text: str) -> Calibration:
        """Read it again. Raises ValueError for what is none, or of another format."""
        try:
            plain = json.loads(text)
            if plain.pop("format") != FORMAT:
                raise ValueError("it is of another format")
            return from_plain(cls, plain)
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"it is no calibration: {error}") from error


def hardware_of(facts: dict[str, Any]) -> dict[str, Any]:
    """The facts of a node that make its speed and its noise."""
    told = {name: facts.get(name) for name in HARDWARE}
    gibibytes = round((facts.get("memory_bytes") or 0) / 2**30)
    return told | {"cores": len(facts["cores_allowed"]), "memory_gib": gibibytes}


def calibrations_folder() -> Path:
    """Where calibrations are kept."""
    return state_folder() / "calibrations"


def _path(hardware: dict[str, Any]) -> Path:
    text = json.dumps(hardware, sort_keys=True)
    return calibrations_folder() / f"{hashlib.sha256(text.encode()).hexdigest()[:16]}.json"


def keep(calibration: Calibration) -> Path:
    """Write it down, in the place of an earlier one of the same hardware."""
    path = _path(calibration.hardware)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, json.dumps(calibration.to_plain(), indent=1) + "\n")
    except OSError as error:
        raise EnvironmentLacks(
            f"{path} can't be written to ({error.strerror}): make it writable, or set "
            "HEAPGATE_STATE to a folder elsewhere"
        ) from error
    return path


def kept_for(hardware: dict[str, Any]) -> Calibration | None:
    """The calibration of this hardware. One that can't be read counts as none."""
    try:
        found = Calibration.from_json(_path(hardware).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if found.hardware == hardware else None


@dataclass(frozen=True, slots=True)
class Standing:
    """How this machine stands: its calibration, why that is old, and how many others there are."""

    calibration: Calibration | None
    age: str
    others: int


def standing_here() -> Standing:
    """This machine's calibration, if there is one."""
    from workers.facts import node_facts

    facts = node_facts()
    hardware = hardware_of(facts)
    found = kept_for(hardware)
    own = {_path(hardware)} if found else set()
    others = len(set(calibrations_folder().glob("*.json")) - own)
    age = found.age(str(facts.get("kernel")), time.time_ns()) if found else ""
    return Standing(found, age, others)

"""A scenario's folder, driven by real load generator processes; what became of it."""

from __future__ import annotations

import os
import textwrap
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa

from results.clock import ClockMap
from results.record import LoadRecord
from workers.load.process import Generator, generator_document
from workers.spec import ArrivalsSpec, LoadSpec

MS = 1_000_000
LEAD_NS = 100 * MS
SEED = 11


def constant(rate_rps: float, in_flight_max: int = 32) -> ArrivalsSpec:
    return ArrivalsSpec(kind="constant", rate_rps=rate_rps, in_flight_max=in_flight_max)


@dataclass
class Driven:
    """A load that has ended: its account, its events and its rows, where `lag_ns` is the wait."""

    load: LoadRecord
    events: list[str]
    rows: list[dict[str, Any]]
    log: str

    def named(self, name: str) -> list[dict[str, Any]]:
        return [row for row in self.rows if row["name"] == name]


class Drive:
    """Starts one generator for a folder, a process of its own with its own spool."""

    def __init__(
        self,
        folder: Path,
        base_url: str,
        *,
        users: int | None = None,
        arrivals: ArrivalsSpec | None = None,
        warmup_ms: int = 0,
        measure_ms: int = 600,
        stripe: tuple[int, int] = (0, 1),
    ) -> None:
        self._clock = ClockMap.read()
        self._own = folder / f"generator-{stripe[0]}"
        self._own.mkdir()
        load = LoadSpec(
            scenario=str(folder / "locustfile.py"), users=users, arrivals=arrivals, seed=SEED
        )
        document = generator_document(
            load=load, base_url=base_url, spool_root=self._own, run_id="run", trial_id="trial",
            clock=self._clock, warmup_ns=warmup_ms * MS, measure_ns=measure_ms * MS,
        )  # fmt: skip
        document["stripe"] = stripe
        self.generator = Generator(document, self._own / "log", (min(os.sched_getaffinity(0)),))

    def prepare(self) -> None:
        self.generator.wait_ready(timeout_s=30)
        self.generator.prepare(timeout_s=30)

    def go(self) -> None:
        self.generator.go(time.monotonic_ns() + LEAD_NS)

    def outcome(self) -> Driven:
        load, events = self.generator.wait_done(lambda: False)
        log = (self._own / "log").read_text()
        assert load is not None, log
        told = [event["message"][0] for event in events]
        rows: list[dict[str, Any]] = []
        for path in sorted(self._own.glob("**/*.arrow")):
            with pa.ipc.open_stream(path.read_bytes()) as reader:
                rows += reader.read_all().to_pylist()
        return Driven(load, told, rows, log)


def scenario(folder: Path, text: str) -> Path:
    """Write the locustfile of a folder."""
    path = folder / "locustfile.py"
    path.write_text(textwrap.dedent(text))
    return path


@contextmanager
def driving(folder: Path, base_url: str, **how: Any) -> Iterator[Drive]:
    """A generator that is ready to go, and that is gone afterwards."""
    before = set(psutil.Process().children(recursive=True))
    drive = Drive(folder, base_url, **how)
    try:
        drive.prepare()
        yield drive
    finally:
        drive.generator.close()
        assert set(psutil.Process().children(recursive=True)) <= before


def driven(folder: Path, text: str, base_url: str, **how: Any) -> Driven:
    """A whole load of this locustfile, from its start to its end."""
    scenario(folder, text)
    with driving(folder, base_url, **how) as drive:
        drive.go()
        return drive.outcome()

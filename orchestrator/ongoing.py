"""One run while it goes on: what all its steps and nodes share."""

from __future__ import annotations

import shutil
import threading
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from orchestrator.interrupt import Stop
from orchestrator.matrix.matrix import Matrix
from orchestrator.plan import Plan
from orchestrator.workplace import temp_root
from results.archive.archive import Archive
from results.collecting.process import CollectorProcess
from results.errors import EnvironmentLacks, Interrupted

FREE_SPACE_BYTES = 64 * 2**20
"""A trial is not begun with less than this free where the archive or the spool lies."""


@dataclass(slots=True)
class Run:
    """One run while it goes on. Nodes work side by side: `lock` guards what they count."""

    run_id: str
    matrix: Matrix
    plan: Plan
    archive: Archive
    folder: Path
    document: dict[str, Any]
    stop: Stop = field(default_factory=Stop)
    lock: threading.RLock = field(default_factory=threading.RLock)
    not_ready: Counter[str] = field(default_factory=Counter)
    attempts: Counter[str] = field(default_factory=Counter)
    spoiled_repetitions: int = 0
    collector: CollectorProcess | None = None
    durations_s: list[float] = field(default_factory=list)

    def check_stop(self) -> None:
        """Raises Interrupted once the user has asked for the end."""
        if self.stop.is_set():
            raise self.stopped()

    def stopped(self) -> Interrupted:
        """The error of a run that the user ended."""
        return Interrupted(f"stopped; go on with: bench resume {self.run_id}")

    def check_space(self) -> None:
        """Raises EnvironmentLacks where a trial would fill a disk."""
        for place in (self.folder, temp_root()):
            free = shutil.disk_usage(place).free
            if free < FREE_SPACE_BYTES:
                raise EnvironmentLacks(
                    f"only {free / 2**20:.0f} MiB are free where {place} lies, a trial is not "
                    f"begun with less than {FREE_SPACE_BYTES / 2**20:.0f} MiB; make room, then: "
                    f"bench resume {self.run_id}"
                )

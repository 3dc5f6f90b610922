"""A load node's side of a trial whose service runs elsewhere: one generator and its spool."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from results.clock import ClockMap
from results.errors import HeapgateError
from workers.load.accounts import Account
from workers.load.group import GeneratorGroup
from workers.parcels import Parcels
from workers.spec import LoadSpec, NodeSettings, from_plain
from workers.spool import Spool

Delivery = Callable[[str], list[str]]
"""Waits until a trial's spool is delivered; what the collector says differs."""

Offset = Callable[[], dict[str, Any] | None]
"""This node's clock against the head's: `offset_ns`, `error_ns`."""


class LoadHost:
    """The load of one trial at a time. All arguments and answers are plain data."""

    def __init__(
        self, settings: NodeSettings, parcels: Parcels | None, deliver: Delivery, offset: Offset
    ) -> None:
        self._settings = settings
        self._parcels = parcels
        self._deliver = deliver
        self._measure_offset = offset
        self._generator: GeneratorGroup | None = None

    def start_load(self, document: dict[str, Any]) -> None:
        """Start a generator; `document` says what for."""
        self.close_load()
        load = from_plain(LoadSpec, document["load"])
        if self._parcels and load.bundle_sha256:
            folder = self._parcels.unpacked(load.bundle_sha256)
            document["load"]["scenario"] = str(folder / load.scenario)
        self._trial_id, self._part = document["trial_id"], document["part"]
        self._clock, self._offset = ClockMap.read(), self._measure_offset()
        self._account: Account | None = None
        self._folder = Path(tempfile.mkdtemp(prefix="load-", dir=self._settings.work_root))
        root = Path(self._settings.spool_root)
        self._spool = Spool(root, self._settings.run_id, self._trial_id, self._part)
        own = {"spool_root": str(root), "clock": asdict(self._clock)}
        self._generator = GeneratorGroup(
            document | own, self._folder / "generator.log", self._settings.other_cores
        )

    @property
    def _running(self) -> GeneratorGroup:
        if self._generator is None:
            raise HeapgateError("this node makes no load now")
        return self._generator

    def wait_load_ready(self, timeout_s: float) -> None:
        """Wait until the scenario is imported. Raises UserError with its place when it raised."""
        self._running.wait_ready(timeout_s=timeout_s)

    def prepare_load(self, timeout_s: float) -> None:
        """Make the users."""
        self._running.prepare(timeout_s=timeout_s)

    def go_load(self, start_head_ns: int) -> None:
        """Begin at an instant of the head's clock."""
        ahead_ns = int((self._offset or {}).get("offset_ns", 0))
        # offset = head's clock minus ours.
        self._running.go(start_head_ns - ahead_ns - self._clock.offset_ns)

    def load_lost(self) -> bool:
        """Whether the generator ended in the middle of the load."""
        return self._running.lost

    def load_live(self) -> dict[str, Any] | None:
        """What the generator told last."""
        live = self._running.live()
        return asdict(live) if live else None

    def load_done(self) -> bool:
        """Whether the load is over, or can't be any more."""
        return self._running.done

    def stop_load(self) -> None:
        """End the load now."""
        self._account = self._running.stop()

    def finish_load(self) -> dict[str, Any]:
        """Deliver this part's rows, and tell the account."""
        load, events = self._account or self._running.stop()
        self._running.close()
        rows = sum(self._spool.row_counts().values())
        self._spool.finish("", None)
        return {
            "node_id": self._settings.node_id,
            "clock_offset": self._offset,
            "load": asdict(load) if load else None,
            "events": events,
            "rows": rows,
            "differences": self._deliver(self._trial_id),
        }

    def close_load(self) -> None:
        """End what still runs."""
        if self._generator is None:
            return
        self._generator.close()
        self._generator = None
        shutil.rmtree(self._folder, ignore_errors=True)

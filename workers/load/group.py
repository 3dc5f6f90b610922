"""The load generators of one node: several processes that share the arrivals, or one alone.

They need not talk to each other: each takes its own stripe of the same schedule and begins at the
same instant.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from workers.load.accounts import Account, Live, merged, together
from workers.load.process import POLL_S, Generator


class GeneratorGroup:
    """As many processes as the workload asks for, with the words of a single one."""

    lead_ns = Generator.lead_ns

    def __init__(self, document: dict[str, Any], log_path: Path, cpus: tuple[int, ...]) -> None:
        """Start them (see `generator_document`); they import the scenario meanwhile."""
        count = int(document["load"]["processes"])
        index, stripes = document.get("stripe", (0, 1))
        self._members = [
            Generator(
                document | {"process": k, "stripe": (index * count + k, stripes * count)},
                log_path.with_stem(f"{log_path.stem}-{k}") if k else log_path,
                cpus,
            )
            for k in range(count)
        ]
        self._pool = ThreadPoolExecutor(count, thread_name_prefix="generators")

    def wait_ready(self, *, timeout_s: float) -> None:
        """Wait until every one has imported the scenario. Raises as `Generator.wait_ready`."""
        for member in self._members:
            member.wait_ready(timeout_s=timeout_s)

    def prepare(self, *, timeout_s: float) -> None:
        """Make the users of an open loop. Raises as `Generator.prepare`."""
        list(self._pool.map(lambda member: member.prepare(timeout_s=timeout_s), self._members))

    def go(self, start_monotonic_ns: int, start_utc_ns: int = 0) -> None:
        """Begin the load at an instant of the monotonic clock."""
        for member in self._members:
            member.go(start_monotonic_ns, start_utc_ns)

    @property
    def why_lost(self) -> str:
        """What happened to the first that was lost."""
        return next((m.why_lost for m in self._members if m.lost), Generator.why_lost)

    @property
    def lost(self) -> bool:
        """Whether any of them ended in the middle of the load, without an account."""
        return any(member.lost for member in self._members)

    @property
    def done(self) -> bool:
        """Whether all have given their accounts, or ended without one."""
        return all(member.done for member in self._members)

    def live(self) -> Live | None:
        """What they told last, summed; None before the load began."""
        return together([live for member in self._members if (live := member.live())])

    def wait_done(self, should_end: Callable[[], bool]) -> Account:
        """Wait for all accounts; when `should_end` says so, all are stopped early."""
        while not self.done:
            if should_end():
                break
            time.sleep(POLL_S)
        return self.stop()

    def stop(self) -> Account:
        """End the load now. The account is None when one of them can't give its own."""
        accounts = list(self._pool.map(Generator.stop, self._members))
        events = [event for _, found in accounts for event in found]
        records = [record for record, _ in accounts if record]
        return (merged(records) if len(records) == len(self._members) else None), events

    def close(self) -> None:
        """End the processes; may be called again."""
        for member in self._members:
            member.close()
        self._pool.shutdown()

"""Load from other nodes: the trial's side of it, with the same words as a local generator.

The arrivals of one schedule are striped over the load nodes, which start at an agreed instant and
need not talk to each other meanwhile.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from typing import Any, Protocol

from results.errors import HeapgateError
from results.record import LoadRecord
from workers.load.process import Account, Live, LoadLost

POLL_S = 0.05


class PeerLost(Exception):
    """A load node does not answer any more."""


class LoadPeer(Protocol):
    """One load node; every call may raise PeerLost, or the HeapgateError that happened there."""

    node_id: str

    def call(self, method: str, *arguments: Any, timeout_s: float = 30.0) -> Any:
        """Call a method of its `LoadHost` and wait for the answer."""


class RemoteLoad:
    """The generators of one trial on its load nodes."""

    lead_ns = 1_000_000_000
    """From the order to start to the agreed instant: every node must have heard of it by then."""

    def __init__(
        self, peers: Sequence[LoadPeer], document: Mapping[str, Any], head_offset_ns: int
    ) -> None:
        """Start a generator on each peer; `document` is that of a local generator.

        `head_offset_ns` is the head's clock minus this node's.
        """
        self._peers = list(peers)
        self._head_offset_ns = head_offset_ns
        self._pool = ThreadPoolExecutor(len(self._peers), thread_name_prefix="load")
        self._accounts: list[dict[str, Any]] | None = None
        self._went = self._lost = False
        self.told: list[dict[str, Any]] = []
        self.rows = 0
        for index, peer in enumerate(self._peers):
            own = dict(document) | {"part": index + 1, "stripe": [index, len(self._peers)]}
            self._call(peer, "start_load", own)

    @property
    def parts(self) -> list[int]:
        """The parts of the trial that its load nodes deliver."""
        return [index + 1 for index in range(len(self._peers))]

    def _call(self, peer: LoadPeer, method: str, *arguments: Any, timeout_s: float = 30.0) -> Any:
        try:
            return peer.call(method, *arguments, timeout_s=timeout_s)
        except PeerLost as error:
            self._lost = True
            raise LoadLost(f"load node {peer.node_id} was lost: {error}") from error

    def _all(self, method: str, *arguments: Any, timeout_s: float = 30.0) -> list[Any]:
        """Call a method of every peer at the same time."""
        started = [
            self._pool.submit(self._call, peer, method, *arguments, timeout_s=timeout_s)
            for peer in self._peers
        ]
        return [future.result() for future in started]

    def wait_ready(self, *, timeout_s: float) -> None:
        """Wait until every generator has imported the scenario."""
        self._all("wait_load_ready", timeout_s, timeout_s=timeout_s + 10)

    def prepare(self, *, timeout_s: float) -> None:
        """Let every generator make its users."""
        self._all("prepare_load", timeout_s, timeout_s=timeout_s + 10)

    def go(self, _start_monotonic_ns: int, start_utc_ns: int) -> None:
        """Begin the load at an instant of this node's UTC, told to all by the head's clock."""
        self._all("go_load", start_utc_ns + self._head_offset_ns)
        self._went = True

    @property
    def lost(self) -> bool:
        """Whether a load node or its generator was lost in the middle of the load."""
        if self._went and self._accounts is None and not self._lost:
            try:
                self._lost = any(self._all("load_lost", timeout_s=5.0))
            except LoadLost:
                self._lost = True
        return self._lost

    def live(self) -> Live | None:
        """What all generators told last, summed."""
        try:
            found = [Live(**live) for live in self._all("load_live", timeout_s=5.0) if live]
        except HeapgateError:  # lost, or closed meanwhile
            return None
        if not found:
            return None
        return Live(
            sum(live.rate_rps for live in found),
            sum(live.sent for live in found),
            sum(live.failed for live in found),
        )

    def wait_done(self, should_end: Callable[[], bool]) -> Account:
        """Wait for all accounts; when `should_end` says so, the generators are stopped early."""
        while not all(self._all("load_done")):
            if should_end():
                return self.stop()
            time.sleep(POLL_S)
        return self._collect()

    def stop(self) -> Account:
        """End the load now; the account is None when a load node can't give its own any more."""
        try:
            self._all("stop_load", timeout_s=30.0)
            return self._collect()
        except LoadLost:
            return None, []

    def _collect(self) -> Account:
        """Let every peer deliver its rows, and add up their accounts."""
        if self._accounts is None:
            self._accounts = self._all("finish_load", timeout_s=90.0)
            self.told = [
                {key: account[key] for key in ("node_id", "clock_offset", "differences")}
                | {"part": part, "sent": (account["load"] or {}).get("sent", 0)}
                | {"lag_p99_ns": (account["load"] or {}).get("lag_p99_ns")}
                for part, account in zip(self.parts, self._accounts, strict=True)
            ]
            self.rows = sum(account["rows"] for account in self._accounts)
        if any(account["load"] is None for account in self._accounts):
            return None, []
        records = [LoadRecord(**account["load"]) for account in self._accounts]
        events = [event for account in self._accounts for event in account["events"]]
        return merged(records), events

    def close(self) -> None:
        """End what still runs on the load nodes that answer."""
        for peer in self._peers:
            try:
                peer.call("close_load", timeout_s=15.0)
            except PeerLost:
                continue


def merged(records: Sequence[LoadRecord]) -> LoadRecord:
    """One account of several generators: counts added, the worst of what can't be added."""
    plain = [asdict(record) for record in records]
    added = ("sent", "measured", "failed", "not_sent", "late", "unrecorded", "unanswered")
    may_lack = ("planned", "waiting_before", "waiting_after")
    worst = ("lag_p50_ns", "lag_p99_ns", "lag_max_ns")
    total: dict[str, Any] = {name: sum(p[name] for p in plain) for name in added}
    for name in may_lack:
        values = [p[name] for p in plain]
        total[name] = None if None in values else sum(values)
    for name in worst:
        values = [p[name] for p in plain if p[name] is not None]
        total[name] = max(values) if values else None
    return LoadRecord(
        **total,
        cpu_share=max(p["cpu_share"] for p in plain),
        in_flight_max_reached=any(p["in_flight_max_reached"] for p in plain),
        locust_version=plain[0]["locust_version"],
    )

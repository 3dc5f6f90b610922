"""Load from other nodes: the trial's side of it, with the same words as a local generator.

The arrivals of one schedule are striped over the load nodes, which start at an agreed instant and
need not talk to each other meanwhile.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

from results.errors import HeapgateError
from results.record import LoadRecord
from workers.load.accounts import Account, Live, LoadLost, merged, together

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
        """`document` is that of a local generator.

        `head_offset_ns` is the head's clock minus this node's.
        """
        self._peers = list(peers)
        self._head_offset_ns = head_offset_ns
        self._pool = ThreadPoolExecutor(len(self._peers), thread_name_prefix="load")
        self._accounts: list[dict[str, Any] | None] | None = None
        self._live: dict[str, Live] = {}
        self._went = False
        self.lost_nodes: set[str] = set()
        self.why_lost = ""
        """Empty while nothing is lost."""
        self.told: list[dict[str, Any]] = []
        self.rows = 0
        self._document = dict(document)

    def start(self) -> None:
        """Start a generator on each peer."""
        for index, peer in enumerate(self._peers):
            stripe = {"part": index + 1, "stripe": [index, len(self._peers)]}
            self._call(peer, "start_load", self._document | stripe)

    @property
    def parts(self) -> list[int]:
        """The parts of the trial that its load nodes deliver."""
        return [index + 1 for index in range(len(self._peers))]

    def _call(self, peer: LoadPeer, method: str, *arguments: Any, timeout_s: float = 30.0) -> Any:
        try:
            return peer.call(method, *arguments, timeout_s=timeout_s)
        except PeerLost as error:
            self.lost_nodes.add(peer.node_id)
            self.why_lost = f"load node {peer.node_id} was lost ({error})"
            raise LoadLost(self.why_lost) from error

    def _all(self, method: str, *arguments: Any, timeout_s: float = 30.0) -> list[Any]:
        """Call a method of every peer at the same time."""
        started = [
            self._pool.submit(self._call, peer, method, *arguments, timeout_s=timeout_s)
            for peer in self._peers
        ]
        return [future.result() for future in started]

    def _each(self, method: str, *, timeout_s: float) -> list[Any]:
        """The same, with None for each peer that is lost: that one is not waited for again."""

        def call(peer: LoadPeer) -> Any:
            if peer.node_id in self.lost_nodes:
                return None
            try:
                return self._call(peer, method, timeout_s=timeout_s)
            except LoadLost:
                return None

        return list(self._pool.map(call, self._peers))

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
        if self._went and self._accounts is None and not self.why_lost:
            ended = self._each("load_lost", timeout_s=5.0)
            for peer in (p for p, lost in zip(self._peers, ended, strict=True) if lost):
                self.why_lost = f"the load generator of node {peer.node_id} ended"
        return bool(self.why_lost)

    def live(self) -> Live | None:
        """What all generators told last, summed; of a lost one, what it told before."""
        try:
            answers = self._each("load_live", timeout_s=5.0)
        except HeapgateError:  # closed meanwhile
            answers = []
        for peer, live in zip(self._peers, answers, strict=False):
            if live:
                self._live[peer.node_id] = Live(**live)
        return together(list(self._live.values()))

    def wait_done(self, should_end: Callable[[], bool]) -> Account:
        """Wait for all accounts; when `should_end` says so, the generators are stopped early."""
        while not all(self._all("load_done")):
            if should_end():
                return self.stop()
            time.sleep(POLL_S)
        account = self._collect()
        if self.why_lost:
            raise LoadLost(self.why_lost)
        return account

    def stop(self) -> Account:
        """End the load now; the account is None when a load node can't give its own any more."""
        self._each("stop_load", timeout_s=30.0)
        return self._collect()

    def _collect(self) -> Account:
        """Let every peer that answers deliver its rows, and add up their accounts."""
        if self._accounts is None:
            self._accounts = self._each("finish_load", timeout_s=90.0)
            self.told = [self._told(part) for part in self.parts]
            self.rows = sum(account["rows"] for account in self._accounts if account)
        accounts = [account for account in self._accounts if account and account["load"]]
        events = [event for account in accounts for event in account["events"]]
        if len(accounts) < len(self._peers):
            return None, events
        return merged([LoadRecord(**account["load"]) for account in accounts]), events

    def _told(self, part: int) -> dict[str, Any]:
        """What is kept of a load node; of a lost one, the last that it told."""
        assert self._accounts
        node_id, account = self._peers[part - 1].node_id, self._accounts[part - 1]
        live = self._live.get(node_id)
        told = {"part": part, "node_id": node_id, "clock_offset": None, "differences": []}
        load = {"sent": live.sent if live else 0, "lag_p99_ns": None}
        if account:
            told |= {name: account[name] for name in ("clock_offset", "differences")}
            load |= {name: account["load"][name] for name in load} if account["load"] else {}
        return told | load

    def close(self) -> None:
        """End what still runs on the load nodes that answer."""
        for peer in self._peers:
            try:
                peer.call("close_load", timeout_s=15.0)
            except PeerLost:
                continue

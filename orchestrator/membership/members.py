"""Who belongs to a cluster, and what is known of each: the head's memory.

What must outlive the head (who joined, as what, draining or not) is in `nodes.json`; what a node
says each second is only kept while the head runs.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from results.errors import UserError
from results.files import write_whole
from results.wire import cluster_pb2 as wire
from workers.leases import Driver

LOST_AFTER_S = 5.0
"""A node that was silent for longer is taken for lost."""

_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")
_MACHINE = re.compile(r"node-[0-9a-f]{8}")
RESERVED_LABELS = frozenset({"os", "heapgate-node"})


@dataclass(slots=True)
class Live:
    """What a node said last, and what a run on the head's machine says of it."""

    beat: wire.BeatRequest = field(default_factory=wire.BeatRequest)
    seen_s: float | None = None
    facts: bytes = b""
    run_id: str = ""
    holder: Driver | None = None


@dataclass(slots=True, kw_only=True)
class Member:
    """One node as it joined."""

    node_id: str
    name: str
    installation: str
    machine: str
    address: str
    labels: dict[str, str]
    versions: dict[str, str]
    node_class: str
    expires_ns: int
    draining: bool = False


class Members:
    """All nodes of a cluster. Every method may be called by any thread."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.RLock()
        self._members: dict[str, Member] = {m.node_id: m for m in _load(path)}
        self._live: dict[str, Live] = {}

    def add(self, request: wire.JoinRequest, address: str) -> Member:
        """Take in a node, or take it back. Raises UserError when name or labels can't be."""
        check_name(request.name)
        check_labels(request.labels)
        if not _MACHINE.fullmatch(request.machine) or not request.installation:
            raise UserError(f"{request.machine!r} is not the id of a machine")
        with self._lock:
            self._refuse_taken_name(request)
            node_id = self._node_id(request.installation, request.machine)
            known = self._members.get(node_id)
            versions = request.versions
            member = Member(
                node_id=node_id,
                name=request.name,
                installation=request.installation,
                machine=request.machine,
                address=address,
                labels=dict(request.labels),
                versions={
                    "heapgate": versions.heapgate,
                    "python": versions.python,
                    "ray": versions.ray,
                },
                node_class=request.node_class,
                expires_ns=0,
                draining=known.draining if known else False,
            )
            self._members[node_id] = member
            self._live[node_id] = Live(facts=request.facts_json)
            self._save()
            return member

    def _refuse_taken_name(self, request: wire.JoinRequest) -> None:
        for other in list(self._members.values()):
            if other.name != request.name or other.installation == request.installation:
                continue
            if self._silent_s(other.node_id) <= LOST_AFTER_S:
                raise UserError(
                    f"the cluster has a node named {request.name!r} already; "
                    "join with another: --name NAME"
                )
            self.remove(other.node_id)

    def _node_id(self, installation: str, machine: str) -> str:
        """The machine's own id, unless another installation on it has that one."""
        for member in self._members.values():
            if member.installation == installation:
                return member.node_id
        if machine not in self._members:
            return machine
        digest = hashlib.sha256(f"{machine} {installation}".encode()).hexdigest()
        return f"node-{digest[:8]}"

    def certified(self, node_id: str, expires_ns: int) -> None:
        """A node got a certificate."""
        with self._lock:
            self._members[node_id].expires_ns = expires_ns
            self._save()

    def remove(self, node_id: str) -> None:
        """A node left."""
        with self._lock:
            self._members.pop(node_id, None)
            self._live.pop(node_id, None)
            self._save()

    def get(self, node_id: str) -> Member | None:
        """One node by its id."""
        with self._lock:
            return self._members.get(node_id)

    def find(self, name: str) -> Member | None:
        """One node by its name or id."""
        with self._lock:
            fitting = (m for m in self._members.values() if name in (m.name, m.node_id))
            return next(fitting, None)

    def names(self) -> list[str]:
        """All names, in order."""
        with self._lock:
            return sorted(member.name for member in self._members.values())

    def drain(self, node_id: str, *, draining: bool) -> None:
        """Stop or allow new trials on a node; remembered."""
        with self._lock:
            self._members[node_id].draining = draining
            self._save()

    def mark(self, node_id: str, run_id: str, holder: Driver | None) -> None:
        """A run measures on a node, until it says otherwise or its driver is dead."""
        with self._lock:
            live = self._live.setdefault(node_id, Live())
            live.run_id, live.holder = run_id, holder

    def beat(self, node_id: str, request: wire.BeatRequest) -> bool:
        """A sign of life; whether the node's facts are still unknown."""
        with self._lock:
            live = self._live.setdefault(node_id, Live())
            live.seen_s = time.monotonic()
            if request.facts_json:
                live.facts = request.facts_json
                self._members[node_id].node_class = request.node_class
            live.beat = request
            return not live.facts

    def run_on(self, node_id: str) -> str:
        """Which run measures there now; empty when none does."""
        with self._lock:
            live = self._live.get(node_id)
            if live is None or not live.run_id:
                return ""
            if live.holder and not live.holder.alive:
                live.run_id, live.holder = "", None
            return live.run_id

    def _silent_s(self, node_id: str) -> float:
        live = self._live.get(node_id)
        return float("inf") if live is None or live.seen_s is None else _since(live.seen_s)

    def listed(self) -> list[wire.Node]:
        """Everything that is known, in order of names."""
        with self._lock:
            members = sorted(self._members.values(), key=lambda member: member.name)
            return [self._listed(member) for member in members]

    def _listed(self, member: Member) -> wire.Node:
        live = self._live.get(member.node_id, Live())
        beat = live.beat
        return wire.Node(
            node_id=member.node_id,
            name=member.name,
            address=member.address,
            labels=member.labels,
            facts_json=live.facts,
            node_class=member.node_class,
            versions=wire.Versions(**member.versions),
            draining=member.draining,
            measuring_run=self.run_on(member.node_id),
            ray_session=beat.ray_session,
            busy_share=beat.busy_share,
            busy_with=beat.busy_with,
            clock_offset_ns=beat.clock_offset_ns,
            clock_error_ns=beat.clock_error_ns,
            clock_measured_ns=beat.clock_measured_ns,
            last_seen_s=-1.0 if live.seen_s is None else _since(live.seen_s),
            problem=beat.problem,
            expires_ns=member.expires_ns,
        )

    def _save(self) -> None:
        plain = [dataclasses.asdict(member) for member in self._members.values()]
        write_whole(self._path, json.dumps(plain, indent=1) + "\n")


def check_name(name: str) -> None:
    """Raises UserError for what can't be the name of a node."""
    if not _NAME.fullmatch(name):
        raise UserError(
            f"{name!r} can't be the name of a node: letters, digits, `.`, `_`, `-`, at most 63"
        )


def check_labels(labels: Mapping[str, str]) -> None:
    """Raises UserError for labels that Ray would not take, or that are set by Heapgate."""
    for key, value in labels.items():
        if key in RESERVED_LABELS or key.startswith("ray.io/"):
            raise UserError(f"the label {key!r} is set by Heapgate itself; choose another")
        if not _NAME.fullmatch(key) or not _NAME.fullmatch(value):
            raise UserError(
                f"{key}={value} can't be a label: letters, digits, `.`, `_`, `-`, at most 63"
            )


def _since(seen_s: float) -> float:
    return time.monotonic() - seen_s


def _load(path: Path) -> list[Member]:
    try:
        plain: Any = json.loads(path.read_bytes())
        return [Member(**entry) for entry in plain]
    except FileNotFoundError:
        return []
    except (ValueError, TypeError) as error:
        raise UserError(
            f"{path} can't be read ({error}); remove it, and let the nodes join again"
        ) from error

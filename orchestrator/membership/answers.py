"""What the `bench node` commands print."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from results.errors import EnvironmentLacks, UserError

if TYPE_CHECKING:
    from rich.console import Console

    from orchestrator.membership.head import Started
    from orchestrator.membership.nodes import NodeEntry

SOON_DAYS = 14

# Read by gRPC when it is first imported: what fails is told here, in our words.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")


def labels_from(texts: Sequence[str]) -> dict[str, str]:
    """`k=v` each. Raises UserError."""
    pairs = [text.partition("=") for text in texts]
    for key, sign, value in pairs:
        if not (key and sign and value):
            raise UserError(f"--label {key}{sign}{value}: a label is written NAME=VALUE")
    return {key: value for key, _, value in pairs}


def start_head(
    console: Console, address: str | None, port: int | None, *, days: float, foreground: bool
) -> None:
    """`bench node head`."""
    from orchestrator.membership import head
    from orchestrator.membership.headstate import HeadState

    if not foreground:
        _tell_head(console, head.start_head(address, port, days=days))
        return
    state = HeadState()
    if state.daemon.alive:
        raise EnvironmentLacks("the head already runs on this machine; end it: bench node leave")
    state = head.prepare_head(address, port, days=days)
    settings = state.settings()
    started = head.Started(settings.address, settings.port, state.secret_path, already=False)
    _tell_head(console, started)
    sys.stdout.flush()
    state.daemon.become("orchestrator.membership.head")


def _tell_head(console: Console, started: Started) -> None:
    if started.already:
        console.print("the head already runs", style="dim")
    console.print(
        f"copy {started.secret_path} to each machine that shall join; there:",
        style="dim",
        soft_wrap=True,
    )
    console.print(started.join_line, soft_wrap=True, markup=False, highlight=False)


def join(
    console: Console,
    head: str | None,
    secret: Path,
    name: str | None,
    labels: Mapping[str, str],
    *,
    foreground: bool,
) -> None:
    """`bench node join`."""
    from orchestrator.membership.join import join_cluster, rejoin_cluster, run_node, start_node
    from orchestrator.membership.nodestate import NodeState

    if head is None and (name or labels):
        raise UserError("a name and labels are given with the head's address, when a node joins")
    joined = join_cluster(head, secret, name, labels) if head else rejoin_cluster()
    if foreground:
        console.print(f"{joined.name} joins {joined.head}; Ctrl-C ends it", highlight=False)
        sys.stdout.flush()
        run_node(NodeState())
        return
    start_node()
    console.print(f"{joined.name} is a node of {joined.head} now", highlight=False)


def leave(console: Console) -> None:
    """`bench node leave`."""
    from orchestrator.membership.headstate import HeadState
    from orchestrator.membership.join import leave_cluster

    left = leave_cluster()
    if left:
        console.print(f"{left.name} left the cluster of {left.head}", highlight=False)
    state = HeadState()
    if state.daemon.alive:
        from orchestrator.membership import nodes

        cluster = nodes.current_cluster()
        running = []
        if cluster:
            running = [n for n in nodes.list_nodes(cluster) if n.measuring_run]
        for node in running:
            console.print(f"run {node.measuring_run} measured on {node.name}", highlight=False)
        state.daemon.stop()
        console.print("the head ended; its nodes wait for it to come back", highlight=False)
    elif not left:
        raise EnvironmentLacks("this machine is neither a node nor the head of a cluster")


def drain(console: Console, name: str, *, undo: bool) -> None:
    """`bench node drain`."""
    from orchestrator.membership import nodes

    run_id = nodes.drain(nodes.require_cluster(), name, undo=undo)
    if undo:
        console.print(f"{name} takes trials again", highlight=False)
    else:
        still = f"; the trial of run {run_id} there ends first" if run_id else ""
        console.print(f"no new trials on {name}{still}", highlight=False)


def rotate(console: Console, *, days: float) -> None:
    """`bench node rotate`."""
    from orchestrator.membership import head, nodes
    from orchestrator.membership.headstate import HeadState

    state = HeadState()
    cluster = nodes.current_cluster()
    if cluster:
        busy = [n for n in nodes.list_nodes(cluster) if n.measuring_run]
        if busy:
            raise UserError(
                f"run {busy[0].measuring_run} measures on {busy[0].name}: rotate when it is over"
            )
        state.daemon.stop()
    settings = state.settings()
    state.forget_secrets()
    console.print(
        "new authority, tokens and certificates: what was given out before is void, and every "
        "node has to join again with the new secret (on each: bench node leave, then the line)",
        soft_wrap=True,
    )
    if cluster:
        _tell_head(console, head.start_head(settings.address, settings.port, days=days))
    else:
        state.prepare(settings, days=days)
        console.print("no head runs; start it with: bench node head")


def print_nodes(console: Console, *, as_json: bool) -> None:
    """`bench node ls`."""
    from orchestrator.membership import nodes
    from orchestrator.membership.headstate import HeadState

    cluster = nodes.require_cluster()
    found = nodes.list_nodes(cluster)
    if as_json:
        plain = [dataclasses.asdict(node) | {"quiet": node.quiet} for node in found]
        sys.stdout.write(json.dumps(plain, indent=1) + "\n")
        return
    if found:
        _print_list(console, found)
    else:
        console.print("no node has joined yet; `bench node head` tells the line for it")
    for node in found:
        told = [text for text in (node.facts.get("limits_unavailable"), node.problem) if text]
        for text in told:
            console.print(f"{node.name}: {text}", style="yellow", highlight=False, markup=False)
    _warn_of_end(console, found, HeadState().expires_ns())


def _warn_of_end(console: Console, found: Sequence[NodeEntry], head_ns: int) -> None:
    """Certificates that end soon, with the remedy; nodes renew theirs by themselves."""
    ends = [("the head's certificate", head_ns, "bench node leave; bench node head")]
    ends += [(f"{n.name}'s certificate", n.expires_ns, "bench node join there") for n in found]
    for whose, end_ns, remedy in ends:
        left_days = (end_ns - time.time_ns()) / 86_400e9
        if left_days < SOON_DAYS:
            told = f"ends in {left_days:.0f} days" if left_days > 0 else "has expired"
            console.print(f"{whose} {told}; mend it: {remedy}", style="yellow", highlight=False)


def _print_list(console: Console, found: Sequence[NodeEntry]) -> None:
    """Two lines a node, which fit a narrow terminal: how it stands, and below what it is."""
    from rich.padding import Padding
    from rich.text import Text

    rows = [(node.name, _state(node), _clock(node), _quietness(node)) for node in found]
    heads = ("node", "state", "clock", "others' work")
    widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
    console.print(_line(heads, widths), style="bold", highlight=False, markup=False)
    for node, row in zip(found, rows, strict=True):
        console.print(_line(row, widths), highlight=False, markup=False)
        console.print(Padding(Text(_machine(node), style="dim"), (0, 0, 0, 2)))


def _line(texts: Sequence[str], widths: Sequence[int]) -> str:
    padded = (text.ljust(width) for text, width in zip(texts, widths, strict=True))
    return "   ".join(padded).rstrip()


def _machine(node: NodeEntry) -> str:
    """What a node is; tables call it by its id."""
    commit_limit_bytes = node.facts.get("commit_limit_bytes")
    parts = [
        node.node_id,
        node.node_class,
        f"kernel {node.facts.get('kernel') or 'unknown'}",
        f"limits: {_limits(node.facts)}",
        *([f"commit limit {commit_limit_bytes / 2**30:.1f} GiB"] if commit_limit_bytes else []),
        f"Python {node.facts.get('python') or node.versions['python']}",
        f"heapgate {node.versions['heapgate']}",
        *(f"{key}={value}" for key, value in sorted(node.labels.items())),
    ]
    return ", ".join(parts)


def _limits(facts: Mapping[str, Any]) -> str:
    """How limits are set; what that can't enforce there is told below the list."""
    missing = "*" if facts.get("limits_unavailable") else ""
    return f"{facts.get('limits_mechanism') or 'none'}{missing}"


def _clock(node: NodeEntry) -> str:
    if node.clock_offset_ns is None or node.clock_error_ns is None:
        return "–"
    return f"{node.clock_offset_ns / 1e6:+.2f} ± {node.clock_error_ns / 1e6:.2f} ms"


def _quietness(node: NodeEntry) -> str:
    if node.busy_share is None:
        return "–"
    return "quiet" if node.quiet else f"{node.busy_share:.0%}: {node.busy_with}"


def _state(node: NodeEntry) -> str:
    from orchestrator.membership.nodes import ago

    if node.state == "lost":
        return "lost" if node.last_seen_s is None else f"lost since {ago(node.last_seen_s)}"
    if node.state == "measuring":
        told = f"measuring {node.measuring_run}"
        return f"{told}, then draining" if node.draining else told
    return node.state

"""Which nodes a matrix gets, and what a user reads when the cluster has not what is asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from orchestrator.choice import choose
from orchestrator.matrix.matrix import load_matrix
from orchestrator.membership.nodes import NodeEntry
from results.errors import EnvironmentLacks
from tests.orchestrator import matrices

EPYC, XEON = "linux · AMD EPYC · 8 cores · 32 GiB", "linux · Intel Xeon · 4 cores · 16 GiB"
WINDOWS = "windows · AMD EPYC · 8 cores · 32 GiB"


def entry(name: str, node_class: str = EPYC, **changed: Any) -> NodeEntry:
    facts: dict[str, Any] = {
        "node_id": f"id-{name}", "name": name, "os": node_class.split(maxsplit=1)[0],
        "address": "10.0.0.9", "labels": {}, "facts": {}, "node_class": node_class,
        "machine": name, "state": "ready", "draining": False, "measuring_run": "",
        "clock_offset_ns": 0, "clock_error_ns": 1000, "clock_measured_ns": 1, "versions": {},
        "last_seen_s": 0.5, "busy_share": 0.0, "busy_with": "", "problem": "", "expires_ns": 1,
    }  # fmt: skip
    return NodeEntry(**facts | changed)


def chosen(folder: Path, nodes: str, *entries: NodeEntry) -> list[tuple[str, str, list[str]]]:
    text = matrices.SMALL.replace("127.0.0.1", "{host}") + f"nodes: {nodes}\n"
    matrix = load_matrix(matrices.write(folder, text))
    teams = choose(matrix, entries)
    return [(t.group, t.service.name, [e.name for e in t.load]) for t in teams]


def refused(folder: Path, nodes: str, *entries: NodeEntry) -> str:
    with pytest.raises(EnvironmentLacks) as caught:
        chosen(folder, nodes, *entries)
    return str(caught.value)


def test_each_system_gets_its_node(tmp_path: Path) -> None:
    found = chosen(tmp_path, "{linux: 1, windows: 1}", entry("w", WINDOWS), entry("l"))
    assert found == [("linux", "l", []), ("windows", "w", [])]


def test_labels_and_class_choose(tmp_path: Path) -> None:
    nodes = [entry("a"), entry("b", XEON, labels={"rack": "b"}), entry("c", XEON)]
    assert chosen(tmp_path, "{x: {labels: {rack: b}}}", *nodes) == [("x", "b", [])]
    assert chosen(tmp_path, "{x: {class: xeon, count: 2}}", *nodes) == [
        ("x", "b", []),
        ("x", "c", []),
    ]


def test_a_group_that_can_choose_least_chooses_first(tmp_path: Path) -> None:
    nodes = [entry("a", labels={"rack": "a"}), entry("b")]
    found = chosen(tmp_path, "{any: {}, racked: {labels: {rack: a}}}", *nodes)
    assert found == [("any", "b", []), ("racked", "a", [])]


def test_quiet_nodes_are_taken_first(tmp_path: Path) -> None:
    nodes = [entry("a", busy_share=0.5, busy_with="cc1plus"), entry("b")]
    assert chosen(tmp_path, "{linux: {}}", *nodes) == [("linux", "b", [])]


def test_load_comes_from_other_nodes(tmp_path: Path) -> None:
    nodes = [entry("a", labels={"role": "service"}), entry("b"), entry("c")]
    found = chosen(tmp_path, "{linux: {labels: {role: service}, load: {nodes: 2}}}", *nodes)
    assert found == [("linux", "a", ["b", "c"])]
    text = refused(tmp_path, "{linux: {labels: {role: service}, load: {nodes: 3}}}", *nodes)
    assert "load from 3 nodes wanted" in text


def test_what_does_not_fit_is_told_of_every_node(tmp_path: Path) -> None:
    text = refused(
        tmp_path,
        "{linux: 1, windows: {labels: {rack: a}}}",
        entry("l"),
        entry("old", WINDOWS, state="lost"),
        entry("busy", WINDOWS, state="measuring", measuring_run="20260101-1"),
        entry("resting", WINDOWS, draining=True, labels={"rack": "a"}),
        entry("other", WINDOWS, labels={"rack": "b"}),
    )
    assert "matrix.yaml:22:" in text
    assert "1 windows node, rack=a wanted" in text
    assert "  l (linux · AMD EPYC · 8 cores · 32 GiB): its system is linux" in text
    for name, why in [
        ("old", "it does not answer"),
        ("busy", "it measures for run 20260101-1"),
        ("resting", "it is being drained"),
        ("other", "its label rack is b, not a"),
    ]:
        (line,) = [line for line in text.splitlines() if f" {name} (" in line]
        assert why in line


def test_unlike_machines_do_not_share_the_blocks_of_a_group(tmp_path: Path) -> None:
    text = refused(tmp_path, "{linux: 2}", entry("a"), entry("b", XEON))
    assert "2 linux nodes of one class wanted" in text
    assert f"1 × {EPYC}; 1 × {XEON}" in text


def test_an_empty_cluster_says_how_nodes_join(tmp_path: Path) -> None:
    assert "no node has joined; `bench node head`" in refused(tmp_path, "{linux: 1}")

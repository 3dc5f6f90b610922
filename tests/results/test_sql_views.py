"""The views nodes, validity and objectives, by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from archives import MIB, MIXED, RUN_ID, write_archive

from results.files import RUN_FILES, write_sums
from results.sql.database import open_database


def rows(archive: Path, sql: str) -> list[dict[str, Any]]:
    with open_database(archive) as database:
        return database.query(sql).to_pylist()


def test_a_trial_without_findings_has_a_row_and_an_invalid_one_its_reason(tmp_path: Path) -> None:
    spoiled, again = "b02-1-default-steady", "b03-1-default-steady"
    root = write_archive(tmp_path, blocks=3, invalid=[spoiled], repeated=[again])
    found = rows(root, "select trial_id, valid, counted, level, code, remedy from validity")
    broken = ("invalid", "generator_saturated", "send less")
    assert [tuple(row.values()) for row in found] == [
        ("b01-1-default-steady", True, True, None, None, None),
        (spoiled, False, False, *broken),
        (again, False, False, *broken),
        (f"{again}~2", True, True, None, None, None),
    ]


def test_nodes_say_what_they_are_and_did(tmp_path: Path) -> None:
    numbers = {"default": {"load_nodes": 1}}
    root = write_archive(tmp_path, configurations=numbers, blocks=4, groups=MIXED)
    found = rows(
        root,
        "select node_id, os, wine, service_trials, load_trials, facts_changed from nodes",
    )
    assert [tuple(row.values()) for row in found] == [
        ("node-1a2b3c4d", "linux", None, 4, 0, False),
        ("node-5e6f7a8b", "windows", "8.0", 2, 0, False),
        ("node-9c0d1e2f", "windows", "8.0", 2, 0, False),
        ("load-1", None, None, 0, 8, None),
    ]


def test_a_node_whose_facts_changed_says_so(tmp_path: Path) -> None:
    root = write_archive(tmp_path, blocks=2)
    path = root / RUN_ID / "trials/b02-1-default-steady/trial.json"
    record = json.loads(path.read_text())
    record["node"]["kernel"] = "7.0"
    path.write_text(json.dumps(record))
    write_sums(path.parent, [p.name for p in path.parent.iterdir() if p.name != "SHA256SUMS"])
    assert rows(root, "select kernel, facts_changed from nodes") == [
        {"kernel": "7.0", "facts_changed": True}
    ]


def objective(text: str, **more: Any) -> dict[str, Any]:
    return {"text": text, "severity": "block", "configurations": [], "workloads": []} | more


def test_objectives_are_decided_in_each_cell(tmp_path: Path) -> None:
    root = write_archive(
        tmp_path, configurations={"default": {}, "optimised": {"peak_rss_bytes": 120 * MIB}}
    )
    path = root / RUN_ID / "run.json"
    document = json.loads(path.read_text()) | {
        "objectives": [
            objective("peak_rss <= 150MiB"),
            objective("peak_rss <= 100MiB", severity="warn"),
            objective("peak_rss <= 150MiB", workloads=["burst"]),
            objective("the weather is fine"),
        ]
    }
    path.write_text(json.dumps(document))
    write_sums(path.parent, RUN_FILES)
    found = rows(
        root,
        "select objective, severity, configuration, decision, estimate, trials from objectives",
    )
    assert [tuple(row.values()) for row in found] == [
        ("peak_rss <= 150MiB", "block", "optimised", "PASS", 120 * MIB, 6),
        ("peak_rss <= 150MiB", "block", None, "CAN'T TELL", None, 0),
        ("peak_rss <= 100MiB", "warn", "optimised", "FAIL", 120 * MIB, 6),
        ("the weather is fine", None, None, "CAN'T TELL", None, None),
    ]


@pytest.mark.parametrize("view", ["objectives", "ablation"])
def test_a_run_without_any_has_no_rows(tmp_path: Path, view: str) -> None:
    assert rows(write_archive(tmp_path, blocks=1), f"from {view}") == []

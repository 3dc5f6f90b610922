"""A run of two configurations as it is known when some of its blocks were measured."""

from __future__ import annotations

from collections.abc import Sequence

from results.comparing.compare import Measurement, Settings, compare
from results.record import Finding, TrialRecord
from results.schema import SCHEMA_VERSION
from results.signoff.objectives import Evidence

Values = Sequence[tuple[float | None, float | None]]
"""Baseline and candidate, block by block; None: its trial is not valid."""


def record(name: str, block: int, *, valid: bool = True) -> TrialRecord:
    return TrialRecord(
        schema_version=SCHEMA_VERSION, run_id="r1", trial_id=f"b{block}-{name}", block=block,
        position=1, attempt=1, configuration=name, baseline=name == "default", workload="steady",
        node_id="n", node_class="linux", started_ns=1, finished_ns=2, spec={}, node={"os": "linux"},
        versions={}, clock={},
        findings=[] if valid else [Finding("samples_missing", "invalid", "it was")],
    )  # fmt: skip


def after(values: Values, planned: int, metric: str, *, early: bool = False) -> Evidence:
    """What is known when these blocks of a run were measured."""
    names = ("default", "new")
    records = [
        record(name, block, valid=value is not None)
        for block, pair in enumerate(values, 1)
        for name, value in zip(names, pair, strict=True)
    ]
    measured = [
        Measurement(("r1", block), "linux", "steady", name, metric, value, ("", "n"))
        for block, pair in enumerate(values, 1)
        for name, value in zip(names, pair, strict=True)
        if value is not None
    ]
    document = {
        "run_id": "r1",
        "planned": [
            {"trial_id": f"b{block}-{name}", "block": block, "configuration": name,
             "workload": "steady", "group": "", "baseline": name == "default"}
            for block in range(1, planned + 1)
            for name in names
        ],
        "stopped_early": {"blocks": len(values)} if early else None,
    }  # fmt: skip
    tables = compare(measured, Settings("default"))
    return Evidence(measured, tables, [], records, "default", 0.95, [document])

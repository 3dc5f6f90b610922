"""Archived searches of a capacity: runs of one trial each, marked as `bench capacity` does."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from archives import write_archive

from results.files import RUN_FILES, write_sums
from results.signoff.language import parse_objective

SLOW_NS, FAST_NS = 9_000_000, 1_000_000
Answer = tuple[float, bool] | tuple[float, bool, str]
LIMITS = ("p50 <= 5ms", "errors <= 1%")


def write_search(
    archive: Path,
    answers: Sequence[Answer],
    numbers: Mapping[str, Any],
    *,
    key: str = "k1",
    limits: Sequence[str] = LIMITS,
    configuration: str = "optimised",
    **more: Any,
) -> list[str]:
    """Write a run for each (rate, whether it held, what for if not to search); give their ids."""
    names = []
    for number, (rate_rps, holds, *purpose) in enumerate(answers):
        run_id = f"20260922-{key}-{number:02}"
        latency_ns = FAST_NS if holds else SLOW_NS
        own = dict(numbers) | {"requests": 40, "latency_ns": latency_ns}
        write_archive(archive, configurations={configuration: own}, blocks=1, run_id=run_id, **more)
        mark = {"key": key, "configuration": configuration, "rate_rps": rate_rps}
        mark |= {"purpose": purpose[0] if purpose else "search"}
        plain = [parse_objective(text).to_plain() for text in limits]
        change_document(archive / run_id, capacity=mark, objectives=plain)
        names.append(run_id)
    return names


def change_document(run: Path, **fields: Any) -> None:
    """Change a run's document, and seal it again."""
    document = json.loads((run / "run.json").read_text()) | fields
    (run / "run.json").write_text(json.dumps(document))
    write_sums(run, RUN_FILES)

"""Archives of many runs: a real run, cloned with other levels, times and builds."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from results.files import RUN_FILES, write_sums
from results.record import TrialRecord

KEPT = Path(__file__).resolve().parents[1] / "archives" / "v3"
DAY_NS = 86_400 * 10**9
MIB = 2**20


def clone(
    archive: Path,
    number: int,
    peaks_mib: Sequence[float],
    *,
    configuration: str = "default",
    commit: str = "a" * 40,
    go_version: str = "go1.23.4",
    heapgate: str = "0.1.0",
    **document: Any,
) -> str:
    """A run on day `number` whose trials of a configuration peak at these; its id.

    The other configuration stays as it was measured.
    """
    (source,) = KEPT.iterdir()
    run_id = f"202612{number:02d}-000000-{number:04x}"
    folder = archive / run_id
    shutil.copytree(source, folder)
    plain = json.loads((folder / "run.json").read_text())
    plain |= {"run_id": run_id, "started_ns": plain["started_ns"] + number * DAY_NS, **document}
    (folder / "run.json").write_text(json.dumps(plain))
    write_sums(folder, RUN_FILES)
    peaks = iter(peaks_mib)
    for path in sorted(folder.glob("trials/*/trial.json")):
        record = TrialRecord.read(path)
        record.run_id = record.spec["run_id"] = run_id
        record.versions["heapgate"] = heapgate
        if record.configuration == configuration:
            record.spec["service"]["binary"] |= {"commit": commit, "go_version": go_version}
            rss_bytes = round(next(peaks) * MIB)
            record.peaks = [
                replace(peak, rss_bytes=rss_bytes) if peak.phase == "measure" else peak
                for peak in record.peaks
            ]
        write_record(path, json.loads(record.to_json()))
    return run_id


def write_record(path: Path, plain: dict[str, Any]) -> None:
    """Write a `trial.json`, and the sums of its folder anew."""
    path.write_text(json.dumps(plain))
    write_sums(path.parent, [p.name for p in path.parent.iterdir() if p.name != "SHA256SUMS"])

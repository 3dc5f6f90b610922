"""What a tuning reads from its confirmation: whether the collector took over, by all its signs."""

from __future__ import annotations

import json
from pathlib import Path

from archives import RUN_ID, write_archive

from results.files import RUN_FILES, write_sums
from results.sql.database import open_database
from results.tuning.reading import read_confirmed
from results.tuning.settings import Setting

MARKING = {"gc_cycles": 6_000, "gc_cycle_cpu_ns": 4_000}
"""Collections of 1.1 ms that go on for two thirds of measure, on idle processors."""


def test_collections_that_go_on_for_half_of_the_time_are_a_spiral_too(tmp_path: Path) -> None:
    root = write_archive(
        tmp_path, configurations={"default": {}, "gogc-50": {}, "gogc-10": MARKING}, blocks=2
    )
    path = root / RUN_ID / "run.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"objectives": []}))
    write_sums(root / RUN_ID, RUN_FILES)
    arms = {"default": Setting(), "gogc-50": Setting(50), "gogc-10": Setting(10)}
    with open_database(root, [RUN_ID]) as database:
        found = read_confirmed(database, arms, "peak_rss", "default", 100.0)
    assert [own.in_spiral for own in found] == [False, False, True]
    assert found[2].spiral == "collections went on for at least half of the time"
    share = found[2].intervals["gc_cpu_share"].estimate
    assert share < 0.1, "of the CPU time it takes little"

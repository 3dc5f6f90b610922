"""Whatever is damaged in an archive: a clear word or the unharmed numbers, never another number.

`HEAPGATE_CORRUPTION_CASES=10000` tries so many kinds of damage, on all cores; `-s` shows what came
of them.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from corruption import CLASSES

CASES = int(os.environ.get("HEAPGATE_CORRUPTION_CASES", "176"))
CHUNK = 250
"""Cases of one process: one that dies says which case it was."""


def chunks(cases: int) -> list[tuple[int, int]]:
    return [(first, min(first + CHUNK, cases)) for first in range(0, cases, CHUNK)]


def outcomes(folder: Path, first: int, last: int) -> list[list[str]]:
    """What came of these cases; the process must live to the end of them."""
    done = subprocess.run(
        [
            sys.executable,
            str(Path(__file__).with_name("corruption.py")),
            folder,
            str(first),
            str(last),
        ],
        env=os.environ | {"PYTHONPATH": f"{Path(__file__).parent}:{Path(__file__).parents[2]}"},
        capture_output=True,
        text=True,
        check=False,
    )
    found: list[list[str]] = [json.loads(line) for line in done.stdout.splitlines()]
    at = found[-1][0] if found else "none"
    assert done.returncode == 0, (
        f"ended by {done.returncode} after case {at}: {done.stderr[-2000:]}"
    )
    assert [int(line[0]) for line in found] == list(range(first, last))
    return found


@pytest.mark.timeout(60 + CASES)
def test_damage_is_told_or_harms_nothing(tmp_path: Path) -> None:
    from concurrent.futures import ThreadPoolExecutor

    def some(chunk: tuple[int, int]) -> list[list[str]]:
        folder = tmp_path / f"cases-{chunk[0]}"
        folder.mkdir()
        return outcomes(folder, *chunk)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        found = [line for lines in pool.map(some, chunks(CASES)) for line in lines]
    for (kind, verdict), count in sorted(Counter((k, v) for _, k, _, v in found).items()):
        print(f"{count:6} {kind}: {verdict}")
    assert {kind for _, kind, _, _ in found} == {*CLASSES, "journal"}
    bad = [line for line in found if "WRONG" in line[3] or "PASSED" in line[3]]
    assert not bad, bad[:10]
    assert not [line for line in found if line[3] == "no such part"]

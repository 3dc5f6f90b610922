"""What a command never needs is not imported by it, though it is installed."""

from __future__ import annotations

import subprocess
import sys

import pytest

ASKED = """
import sys
from orchestrator.absent import hide_packages

hide_packages()
import duckdb, pyarrow as pa, pyarrow.dataset

rows = pa.table({"n": [1, None]})
assert duckdb.sql("select sum(n) from rows").fetchall() == [(1,)]
assert "pandas" not in sys.modules
"""


def test_arrow_and_duckdb_work_without_the_pandas_that_is_there() -> None:
    pytest.importorskip("pandas")
    asked = subprocess.run(
        [sys.executable, "-c", ASKED], check=False, capture_output=True, text=True
    )
    assert asked.returncode == 0, asked.stderr

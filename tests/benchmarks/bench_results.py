"""What one waits for when asking: compare, SQL, report and verify over 100 M requests and over few.

Whole processes are measured, as a user starts them. The archive is made once (`manyrequests`); the
same question is put to the same rows as CSV, by DuckDB and, where it is installed, by pandas.
RESULTS_ROWS sets another number of requests: the targets are for 100 M.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Final

import pyarrow as pa
from pyarrow import csv

from results.sql.database import open_database
from tests.benchmarks.figures import Figure
from tests.benchmarks.manyrequests import KEPT_RUN, RATE_RPS, ROWS, Many, many_requests

AREA = "results"
BENCH: Final = Path(sys.executable).with_name("bench")
REPEATS: Final = 3
CSV_ROWS: Final = min(10_000_000, ROWS)
DEMO_ROWS: Final = 60_000
MANY_TRIALS: Final = 1_000
PAGE_MB_MAX: Final = 5
BY_SECOND = """
select configuration, (coalesce(intended_ns, start_ns) - measure_start_ns) // 1000000000 as second,
  quantile_cont(latency_ns, 0.99) as p99_ns
from requests where phase = 'measure' group by all order by all
"""
CSV_BY_SECOND = """
import duckdb, sys
duckdb.sql(
    "select configuration, (intended_ns - measure_start_ns) // 1000000000 as second, "
    "quantile_cont(latency_ns, 0.99) as p99_ns from read_csv($path) "
    "where phase = 'measure' group by all order by all", params={"path": sys.argv[1]}
).fetchall()
"""
PANDAS_BY_SECOND = """
import pandas, sys
rows = pandas.read_csv(sys.argv[1])
rows = rows[rows.phase == "measure"]
second = (rows.intended_ns - rows.measure_start_ns) // 10**9
rows.groupby([rows.configuration, second]).latency_ns.quantile(0.99)
"""


@dataclass(frozen=True, slots=True)
class Took:
    """A whole process: from start to end, processor time of all its threads, peak of its memory."""

    wall_s: float
    cpu_s: float
    peak_bytes: int


def figures() -> Iterator[Figure]:
    """Every figure of asking; the large archive first."""
    many = many_requests()
    title = f"{many.rows / 1e6:g} M requests"
    with tempfile.TemporaryDirectory(prefix="hgbench-") as name:
        folder = Path(name)
        yield from _size(many, title)
        yield from _compare(many, title)
        yield from _by_second(many, title)
        yield from _report(many, title, folder, 20)
        yield from _verify(many, title)
        yield from _beside_csv(folder)
        yield from _small(folder)
        yield from _many_trials(folder)


def took(*command: str | Path) -> Took:
    """Run a program to its end. Raises CalledProcessError when it fails."""
    began_s = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, env=_environment())
    _, status, used = os.wait4(process.pid, 0)
    wall_s = time.perf_counter() - began_s
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return Took(wall_s, used.ru_utime + used.ru_stime, used.ru_maxrss * 1024)


def _environment() -> dict[str, str]:
    return os.environ | {"COLUMNS": "120", "NO_COLOR": "1"}


def _middle(*command: str | Path) -> Took:
    """The median of a few runs, the first not counted: it brings the files into memory."""
    took(*command)
    return sorted((took(*command) for _ in range(REPEATS)), key=lambda t: t.wall_s)[REPEATS // 2]


def _size(many: Many, title: str) -> Iterator[Figure]:
    yield Figure.at_most(
        AREA, f"{title}: size of the archive", _bytes_of(many) / many.rows, "bytes/request", 12
    )


def _bytes_of(many: Many) -> int:
    return sum(path.stat().st_size for path in many.path.rglob("*") if path.is_file())


def _compare(many: Many, title: str) -> Iterator[Figure]:
    found = _middle(BENCH, "compare", "--archive", many.path)
    yield Figure.at_most(AREA, f"bench compare, {title}", found.wall_s, "s", 5)
    yield Figure.told(AREA, f"bench compare, {title}: processor time", found.cpu_s, "s")
    peak = found.peak_bytes / 2**30
    yield Figure.at_most(AREA, f"bench compare, {title}: peak memory", peak, "GiB", 1)


def _by_second(many: Many, title: str) -> Iterator[Figure]:
    for name, query in {
        "p99 by second and trial (latency_by_second)": "from latency_by_second",
        "p99 by second and configuration, SQL over requests": BY_SECOND,
    }.items():
        found = _middle(BENCH, "sql", "--format", "csv", "--archive", many.path, query)
        yield Figure.at_most(AREA, f"bench sql, {title}: {name}", found.wall_s, "s", 8)
        yield Figure.told(AREA, f"bench sql, {title}: {name}: processor time", found.cpu_s, "s")


def _report(many: Many, title: str, folder: Path, most_s: float) -> Iterator[Figure]:
    page = folder / "report.html"
    found = took(BENCH, "report", "--archive", many.path, "-o", page)
    yield Figure.at_most(AREA, f"bench report, {title}", found.wall_s, "s", most_s)
    yield Figure.told(AREA, f"bench report, {title}: processor time", found.cpu_s, "s")
    peak = found.peak_bytes / 2**30
    yield Figure.told(AREA, f"bench report, {title}: peak memory", peak, "GiB")
    size_mb = page.stat().st_size / 1e6
    yield Figure.at_most(
        AREA, f"bench report, {title}: size of the page", size_mb, "MB", PAGE_MB_MAX
    )


def _verify(many: Many, title: str) -> Iterator[Figure]:
    found = _middle(BENCH, "verify", "--archive", many.path)
    rate = _bytes_of(many) / 1e6 / found.wall_s
    yield Figure.at_least(AREA, f"bench verify, {title}", rate, "MB/s", 500)


def _beside_csv(folder: Path) -> Iterator[Figure]:
    """The same rows and the same question, each in a process of its own."""
    part = many_requests(CSV_ROWS, 2)
    text = folder / "requests.csv"
    _write_csv(part, text)
    title = f"p99 by second and configuration of {part.rows / 1e6:g} M requests"
    ours = _middle(BENCH, "sql", "--format", "csv", "--archive", part.path, BY_SECOND)
    yield Figure.told(AREA, f"{title}: bench sql", ours.wall_s, "s")
    programs = {"DuckDB over the same rows as CSV": CSV_BY_SECOND}
    if importlib.util.find_spec("pandas"):
        programs["pandas over the same rows as CSV"] = PANDAS_BY_SECOND
    for name, program in programs.items():
        theirs = took(sys.executable, "-c", program, text)
        yield Figure.told(AREA, f"{title}: {name}", theirs.wall_s, "s")
        share = theirs.wall_s / ours.wall_s
        yield Figure.at_least(AREA, f"{title}: {name} ÷ bench sql", share, "×", 1)
    text.unlink()


def _write_csv(part: Many, path: Path) -> None:
    query = (
        "select configuration, phase::varchar as phase, intended_ns, measure_start_ns, latency_ns "
        "from requests"
    )
    with open_database(part.path) as database, database.stream(query) as rows:
        _write_batches(rows, path)


def _write_batches(rows: pa.RecordBatchReader, path: Path) -> None:
    with csv.CSVWriter(path, rows.schema) as writer:
        for batch in rows:
            writer.write_batch(batch)


def _small(folder: Path) -> Iterator[Figure]:
    """A run of seconds, and one as the demonstration leaves it."""
    archive = folder / "small"
    shutil.copytree(KEPT_RUN, archive)
    found = _middle(BENCH, "compare", "--archive", archive)
    yield Figure.at_most(AREA, "bench compare, a small run", found.wall_s, "s", 1)
    demo = many_requests(DEMO_ROWS, 12)
    yield from _report(demo, f"{demo.rows:,} requests of 12 trials", folder, 3)


def _many_trials(folder: Path) -> Iterator[Figure]:
    many = many_requests(MANY_TRIALS * RATE_RPS // 20, MANY_TRIALS)
    title = f"opening an archive of {many.trials:,} trials"
    checked = folder / "checked.json"
    yield Figure.told(AREA, f"{title}, every byte read", _opening_s(many, None), "s")
    _opening_s(many, checked)
    again_s = median(_opening_s(many, checked) for _ in range(REPEATS))
    yield Figure.at_most(AREA, f"{title}, found right lately", again_s, "s", 0.5)
    asked = "select count(*) from trials"
    whole = _middle(BENCH, "sql", "--format", "csv", "--archive", many.path, asked)
    yield Figure.told(AREA, f"{title}: bench sql, the whole process", whole.wall_s, "s")
    yield Figure.told(AREA, f"{title}: bench sql: processor time", whole.cpu_s, "s")


def _opening_s(many: Many, checked: Path | None) -> float:
    began_s = time.perf_counter()
    with open_database(many.path, checked=checked) as database:
        found = database.query("select count(*) as trials from trials").to_pylist()
    assert found == [{"trials": many.trials}]
    return time.perf_counter() - began_s

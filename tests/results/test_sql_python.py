"""`results.open`: archives asked from Python, as docs/sql.md says."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from archives import write_archive

import results
from results.errors import EnvironmentLacks, UserError

PAGE = Path(__file__).resolve().parents[2] / "docs/sql.md"
EXAMPLES = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    two = {"default": {}, "optimised": {}}
    return write_archive(tmp_path_factory.mktemp("python") / "archive", configurations=two)


@pytest.fixture
def archives(archive: Path):
    with results.open(archive) as opened:
        yield opened


def test_importing_results_imports_nothing_heavy() -> None:
    code = "import results, sys, json; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"duckdb", "pyarrow", "numpy", "pandas"} & set(json.loads(done.stdout))


def test_an_answer_is_arrow_rows_and_text(archives: Any) -> None:
    answer = archives.sql(
        "select configuration, count(*) as n from trials where block <= $b group by 1 order by 1",
        b=2,
    )
    assert isinstance(answer.arrow(), pa.Table)
    assert answer.columns == ["configuration", "n"]
    assert list(answer) == [
        {"configuration": "default", "n": 2},
        {"configuration": "optimised", "n": 2},
    ]
    assert len(answer) == 2
    lines = repr(answer).splitlines()
    assert lines[0].split() == ["configuration", "n"]
    assert lines[-1] == "2 rows"


def test_a_notebook_shows_a_table_and_nothing_that_runs(archives: Any) -> None:
    text = archives.sql("select '<script>alert(1)</script>' as name, range as n from range(60)")
    page = text._repr_html_()
    assert "<script>" not in page
    assert "&lt;script&gt;" in page
    assert page.count("<tr>") == 1 + 50
    assert "60 rows, the first 50 are shown" in page


def test_an_answer_outlives_its_archives(archive: Path) -> None:
    with results.open(archive) as opened:
        answer = opened.sql("select max(rss_bytes) as peak from memory")
    assert next(iter(answer))["peak"] > 0


def test_the_usual_archive_is_opened_if_none_is_named(
    archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEAPGATE_ARCHIVE", str(archive))
    with results.open() as opened:
        assert len(opened.runs) == 1


def test_the_same_bounds_hold(archives: Any, archive: Path) -> None:
    secret = pa.table({"n": [1]})
    assert secret.num_rows
    for query in (
        "from secret",
        "copy (select 1) to 'a.csv'",
        "from '/etc/passwd'",
        "set threads = 1",
    ):
        with pytest.raises(UserError):
            archives.sql(query)
    with pytest.raises(UserError, match="in Python with b=…"):
        archives.sql("select $b")
    with results.open(archive, timeout_s=0.2) as opened, pytest.raises(UserError, match=r"0\.2 s"):
        opened.sql("select sum(a.range * b.range) from range(10000000) a, range(10000000) b")


NANOSECONDS = "select time_ns, phase, forced, cycle from gc order by time_ns limit 5"


def test_a_data_frame_keeps_whole_numbers_beside_nulls(archives: Any) -> None:
    pytest.importorskip("pandas")
    frame = archives.sql(
        "select case when range > 0 then 1790000000000000001 end as n from range(2)"
    ).df()
    assert frame["n"][1] == 1790000000000000001
    assert str(frame["n"].dtype) == "Int64"
    assert len(archives.sql(NANOSECONDS).df()) == 5


def test_a_polars_frame_has_the_rows(archives: Any) -> None:
    pytest.importorskip("polars")
    assert archives.sql(NANOSECONDS).pl().shape == (5, 4)


@pytest.mark.parametrize(("package", "method"), [("pandas", "df"), ("polars", "pl")])
def test_a_frame_without_its_package_is_told(
    archives: Any, monkeypatch: pytest.MonkeyPatch, package: str, method: str
) -> None:
    if importlib.util.find_spec(package):
        monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(EnvironmentLacks, match=f"pip install {package}"):
        getattr(archives.sql("select 1 as n"), method)()


def test_the_page_has_its_example() -> None:
    assert len(EXAMPLES) == 1


@pytest.mark.parametrize("text", EXAMPLES)
def test_the_example_of_the_page_runs(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    (tmp_path / "nightly").mkdir()
    (tmp_path / "nightly" / "monday").symlink_to(archive)
    monkeypatch.chdir(tmp_path)
    exec(compile(text, str(PAGE), "exec"), {})
    assert "default" in capsys.readouterr().out

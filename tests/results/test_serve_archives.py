"""`bench serve` over several archives: one list, one search, one box for SQL."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from archives import MIB, write_archive
from served import BENCH, Served, serving

from results.archive.archive import Archive

TWO = {"default": {"peak_rss_bytes": 200 * MIB}, "optimised": {"peak_rss_bytes": 100 * MIB}}
FIRST, SECOND, COPIED, TORN = (f"2026092{n}-000000-abc{n}" for n in range(4))


@pytest.fixture(scope="module")
def nightly(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of its own in each archive, a copy in both, and two that only have the same id."""
    root = tmp_path_factory.mktemp("several") / "nightly"
    for name, own, blocks in (("mon", FIRST, 2), ("tue", SECOND, 3)):
        for run_id in (own, TORN):
            write_archive(root / name, configurations=TWO, blocks=blocks, run_id=run_id)
    write_archive(root / "mon", configurations=TWO, blocks=2, run_id=COPIED)
    shutil.copytree(root / "mon" / COPIED, root / "tue" / COPIED)
    return root


@pytest.fixture(scope="module")
def served(nightly: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("served")
    with serving(f"{nightly}/*", folder) as found:
        yield found


def test_the_list_names_each_runs_archive_and_leaves_out_what_differs(served: Served) -> None:
    page = served.ask("/").text
    assert [page.count(f'href="/runs/{run_id}"') for run_id in (FIRST, SECOND, COPIED)] == [1, 1, 1]
    assert f'href="/runs/{TORN}"' not in page
    assert f"run {TORN} lies in " in page and "the two differ" in page
    assert page.count('class="archive"') == 3


def test_a_search_and_the_choice_of_an_archive_go_over_all(served: Served, nightly: Path) -> None:
    assert f'href="/runs/{SECOND}"' in served.ask(f"/?q={SECOND}").text
    page = served.ask(f"/?archive={nightly}/tue").text
    assert f'href="/runs/{SECOND}"' in page
    assert f'href="/runs/{FIRST}"' not in page
    assert "1 of 3 runs" in page


def test_every_run_has_its_report_and_its_trials(served: Served) -> None:
    for run_id in (FIRST, SECOND):
        assert served.ask(f"/runs/{run_id}/trials").status == 200
    report = served.ask(f"/runs/{SECOND}/report")
    assert report.status == 200
    assert SECOND in report.text


def test_sql_and_comparisons_are_over_all(served: Served) -> None:
    answer = served.post("/sql", sql="select string_agg(run_id, ' ' order by run_id) from runs")
    assert f"{FIRST} {SECOND} {COPIED}" in answer.text
    assert "the two differ" in answer.text
    page = served.ask(f"/compare?run={FIRST}&run={SECOND}").text
    assert "5 of 5 blocks" in page


def test_an_archive_that_came_later_is_found_by_its_pattern(tmp_path: Path) -> None:
    write_archive(tmp_path / "a" / "mon", blocks=1, run_id=FIRST)
    with serving(f"{tmp_path}/a/*", tmp_path) as served:
        assert SECOND not in served.ask("/").text
        write_archive(tmp_path / "a" / "tue", blocks=1, run_id=SECOND)
        assert f'href="/runs/{SECOND}"' in served.ask("/").text
    assert len(Archive(tmp_path / "a" / "tue").runs()) == 1


def test_a_pattern_that_finds_nothing_is_an_error(tmp_path: Path) -> None:
    command = [BENCH, "serve", "--archive", f"{tmp_path}/none*"]
    asked = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    assert (asked.returncode, "none holds a run" in asked.stderr) == (2, True)

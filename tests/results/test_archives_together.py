"""Several archives as one: which are meant, what is in two of them, what a query opens."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.fs
import pytest
from archives import write_archive

from results.archive.archives import find_archives, read_archives
from results.errors import UserError
from results.sql.database import Database, open_archives, open_database


@pytest.fixture
def nightly(tmp_path: Path) -> Path:
    """Two archives with one run each, and a folder that is none."""
    two = {"default": {}, "optimised": {}}
    write_archive(tmp_path / "nightly" / "mon", configurations=two, blocks=2, run_id="first")
    write_archive(tmp_path / "nightly" / "tue", configurations=two, blocks=1, run_id="other")
    (tmp_path / "nightly" / "notes").mkdir()
    return tmp_path / "nightly"


def rows(database: Database, sql: str) -> list[dict[str, Any]]:
    return database.query(sql).to_pylist()


def test_runs_of_all_are_asked_together_and_say_where_they_are(nightly: Path) -> None:
    with open_archives([nightly / "mon", nightly / "tue"]) as both:
        found = rows(
            both,
            "select archive, count(distinct trial_id) trials, count(*) n"
            " from memory join runs using (run_id) group by all order by 1",
        )
        for view in ("comparison", "cells", "leaks", "ablation", "validity", "profiles"):
            ids = {row["run_id"] for row in rows(both, f"select distinct run_id from {view}")}
            assert ids <= {"first", "other"}, view
            assert ids == {"first", "other"} or view == "ablation", view
    assert found == [
        {"archive": str(nightly / "mon"), "trials": 4, "n": 600},
        {"archive": str(nightly / "tue"), "trials": 2, "n": 300},
    ]


def test_a_pattern_finds_the_folders_that_hold_runs(nightly: Path) -> None:
    found = find_archives([f"{nightly}/*", nightly / "tue", f"{nightly}/mon/../tue"])
    assert [archive.path.name for archive in found] == ["mon", "tue"]


def test_a_folder_whose_name_looks_like_a_pattern_is_a_folder(tmp_path: Path) -> None:
    root = write_archive(tmp_path / "a[1]", blocks=1)
    assert [archive.path for archive in find_archives([str(root)])] == [root]


def test_what_is_no_archive_is_told(nightly: Path) -> None:
    with pytest.raises(UserError, match="none holds a run"):
        find_archives([f"{nightly}/wed*"])
    with pytest.raises(UserError, match="there is no archive"):
        find_archives([nightly / "wed"])
    with pytest.raises(UserError, match=f"is a run; its archive is {nightly / 'mon'}"):
        find_archives([nightly / "mon" / "first"])
    with pytest.raises(UserError, match="no runs yet"):
        open_archives([nightly / "notes"])


def test_a_run_is_found_in_any_of_them(nightly: Path) -> None:
    archives = find_archives([f"{nightly}/*"])
    for name, run_id in (("oth", "other"), ("first", "first")):
        assert [run.run_id for run in read_archives(archives, [name]).runs] == [run_id]
    with pytest.raises(UserError, match="'third' is in none of the archives"):
        read_archives(archives, ["third"])


def test_a_copy_of_a_run_is_read_once_and_told(nightly: Path) -> None:
    shutil.copytree(nightly / "mon" / "first", nightly / "tue" / "first")
    with open_archives([f"{nightly}/*"]) as both:
        assert rows(both, "select count(*) n from trials where run_id = 'first'") == [{"n": 4}]
        assert [n for n in both.notes if str(nightly / "tue") in n and "left out" in n]
    with open_archives([nightly / "tue", nightly / "mon"], ["first"]) as both:
        (first,) = rows(both, "select archive from runs")
    assert first == {"archive": str(nightly / "tue")}


def test_two_runs_of_one_name_that_differ_are_an_error(nightly: Path) -> None:
    shutil.copytree(nightly / "mon" / "first", nightly / "tue" / "first")
    shutil.rmtree(nightly / "tue" / "first" / "trials" / "b02-2-optimised-steady")
    with pytest.raises(UserError, match="two differ") as caught:
        open_archives([f"{nightly}/*"])
    assert str(nightly / "mon") in str(caught.value)
    assert str(nightly / "tue") in str(caught.value)


class Counting(pyarrow.fs.FileSystemHandler):  # type: ignore[misc]
    """The local files, and how often each was opened."""

    def __init__(self) -> None:
        self.opened: Counter[str] = Counter()
        self._local = pyarrow.fs.LocalFileSystem()

    def get_type_name(self) -> str:
        return "counting"

    def get_file_info(self, paths: list[str]) -> Any:
        return self._local.get_file_info(paths)

    def get_file_info_selector(self, selector: Any) -> Any:
        return self._local.get_file_info(selector)

    def normalize_path(self, path: str) -> str:
        return path

    def open_input_file(self, path: str) -> Any:
        self.opened["/".join(Path(path).parts[-2:])] += 1
        return self._local.open_input_file(path)

    open_input_stream = open_input_file

    def _never(self, *_: Any) -> None:
        raise AssertionError("an archive is only read")

    create_dir = delete_dir = delete_dir_contents = delete_root_dir_contents = _never
    delete_file = move = copy_file = open_output_stream = open_append_stream = _never


@pytest.fixture
def counting(monkeypatch: pytest.MonkeyPatch) -> Iterator[Counting]:
    counting = Counting()
    files = pyarrow.fs.PyFileSystem(counting)
    monkeypatch.setattr("pyarrow.fs.LocalFileSystem", lambda: files)
    return counting


FIRST = ["b01-1-default-steady", "b02-1-default-steady"]


@pytest.mark.parametrize(
    ("query", "want"),
    [
        ("select count(*) from runs join trials using (run_id)", []),
        ("select max(lag_ns) from requests where run_id = 'first' and configuration = 'default'",
         [f"{trial}/requests" for trial in FIRST]),
        ("select count(*) from memory where trial_id = 'b02-1-default-steady'",
         [f"{FIRST[1]}/memory"]),
        ("from latency_by_second where run_id = 'first' and trial_id = 'b01-1-default-steady'",
         [f"{FIRST[0]}/requests"]),
        ("from memory_by_phase where block = 2 and configuration = 'default'",
         [f"{FIRST[1]}/memory"]),
        ("from gc_overhead where run_id = 'first' and trial_id = 'b01-1-default-steady'",
         [f"{FIRST[0]}/gc", f"{FIRST[0]}/runtime"]),
    ],
)  # fmt: skip
def test_a_query_opens_only_the_files_of_its_trials_and_tables(
    nightly: Path, counting: Counting, query: str, want: list[str]
) -> None:
    with open_archives([f"{nightly}/*"]) as database:
        counting.opened.clear()
        database.query(query)
    assert sorted(counting.opened) == [f"{path}.arrow" for path in sorted(want)]


def test_a_query_reads_only_the_columns_that_it_names(tmp_path: Path) -> None:
    counted = Path("/proc/self/io")
    if not counted.exists():
        pytest.skip("only Linux tells what a process has read")

    def read_bytes(database: Database, sql: str) -> int:
        before = int(counted.read_text().split()[1])
        database.query(sql)
        return int(counted.read_text().split()[1]) - before

    numbers = {"default": {"requests": 20_000}}
    with open_database(write_archive(tmp_path, configurations=numbers, blocks=1)) as database:
        one = read_bytes(database, "select sum(service_ns) from requests")
        every = read_bytes(database, "select sum(hash(r)) from requests r")
    # service_ns is one of five columns of 8 bytes and five narrower ones.
    assert one < every / 2

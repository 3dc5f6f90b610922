"""`bench sql` as a user calls it: several archives, parameters, forms, and the last bounds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest
from archives import write_archive
from bench_command import Workplace


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    root = tmp_path_factory.mktemp("sql")
    two = {"default": {}, "optimised": {}}
    write_archive(root / "archive", configurations=two, blocks=2, run_id="usual")
    write_archive(root / "nightly" / "mon", configurations=two, blocks=1, run_id="monday")
    write_archive(root / "nightly" / "tue", configurations=two, blocks=1, run_id="tuesday")
    return Workplace(root)


RUNS = "select run_id from runs order by 1"


def test_archives_are_named_several_times_and_by_pattern(workplace: Workplace) -> None:
    nightly = workplace.root / "nightly"
    for arguments, want in (
        ([], ["usual"]),
        (["-a", str(nightly / "mon"), "--archive", str(workplace.archive)], ["monday", "usual"]),
        (["-a", f"{nightly}/*"], ["monday", "tuesday"]),
    ):
        done = workplace.bench("sql", RUNS, "--format", "json", *arguments)
        assert [row["run_id"] for row in done.json()] == want, done.text


def test_what_is_no_archive_is_a_users_error(workplace: Workplace) -> None:
    done = workplace.bench("sql", RUNS, "-a", f"{workplace.root}/weekly/*")
    assert (done.code, done.out) == (2, "")
    assert "none holds a run" in done.err


def test_parameters_from_the_command_line_also_for_a_file(workplace: Workplace) -> None:
    file = workplace.root / "my.sql"
    file.write_text("select count(*) as n from trials\nwhere configuration = $c and block <= $b;\n")
    done = workplace.bench(
        "sql", "-f", str(file), "-p", "c=default", "--param", "b=1", "--format", "csv"
    )
    assert done.out == "n\n1\n"
    done = workplace.bench("sql", "-f", str(file), "-p", "c=default")
    assert done.code == 2
    assert "$b" in done.err
    assert "Traceback" not in done.err


def test_forms_for_people_and_programs(workplace: Workplace) -> None:
    query = "select trial_id, block from trials order by all limit 1"
    done = workplace.bench("sql", query, "--format", "markdown")
    assert done.out.splitlines() == [
        "| trial_id | block |", "| --- | --: |", "| b01-1-default-steady | 1 |",
    ]  # fmt: skip
    path = workplace.root / "answer.arrow"
    with path.open("wb") as file:
        subprocess.run(
            [sys.executable, "-m", "orchestrator.cli", "sql", query, "--format", "arrow"],
            stdout=file, env=workplace.environment, check=True,
        )  # fmt: skip
    assert pa.ipc.open_file(path).read_all().to_pylist() == [
        {"trial_id": "b01-1-default-steady", "block": 1}
    ]


def test_a_copy_is_told_beside_the_answer(workplace: Workplace, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    subprocess.run(["cp", "-r", str(workplace.archive), str(copy)], check=True)
    done = workplace.bench(
        "sql", RUNS, "--format", "json", "-a", str(workplace.archive), "-a", str(copy)
    )
    assert json.loads(done.out) == [{"run_id": "usual"}]
    assert f"the copy in {copy} is the same" in done.err


def test_a_bound_of_memory_that_is_none_is_told(workplace: Workplace) -> None:
    done = workplace.bench("sql", "select 1", "--memory", "plenty")
    assert done.code == 2
    assert "'plenty'" in done.err


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux bounds what a process may have")
def test_one_huge_value_is_refused(workplace: Workplace) -> None:
    done = workplace.bench(
        "sql", "select length(repeat('x', 4000000000)) from trials", "--memory", "100MiB"
    )
    assert done.code == 2
    assert "Memory" in done.err
    assert "Traceback" not in done.err


def test_who_may_give_it_more_is_told_how(workplace: Workplace) -> None:
    endless = "select sum(a.range * b.range) from range(10000000) a, range(10000000) b"
    done = workplace.bench("sql", endless, "--timeout", "0.3")
    assert done.code == 2
    assert done.err.endswith(
        "stopped after 0.3 s; ask for less, or give it more time with --timeout\n"
    )


STUCK = """
import sys, time
from orchestrator.answers import lastresort
from results.sql.deadline import Deadline

lastresort.GRACE_S = 0.1
deadline = Deadline.after(0.1)
with lastresort.ending_after(deadline, lambda: print("tidied", flush=True)):
    if sys.argv[1] == "reader":
        deadline.pause()
    time.sleep(1 if sys.argv[1] == "reader" else 1000)
"""


@pytest.mark.parametrize(("waits", "code", "tidied"), [("query", 2, "tidied\n"), ("reader", 0, "")])
def test_what_nothing_stops_ends_with_its_process_and_leaves_nothing(
    waits: str, code: int, tidied: str
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", STUCK, waits],
        capture_output=True, text=True, env=os.environ, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (code, tidied)
    assert ("this process with it" in done.stderr) == (waits == "query")


def test_no_query_leaves_anything_behind(workplace: Workplace) -> None:
    workplace.bench("sql", "select 1")
    workplace.bench("sql", "select nope")
    assert list((workplace.root / "tmp").iterdir()) == []

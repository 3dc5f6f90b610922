"""The main job as a user sees it: `bench run`, then every question to its archive."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import matrices
import pytest
from bench_command import Finished, Workplace


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Workplace, Finished]:
    """One finished run of a small matrix: two configurations, two blocks."""
    workplace = Workplace(tmp_path_factory.mktemp("main-job"))
    matrices.write(workplace.root, matrices.CLOSED)
    return workplace, workplace.bench("run", "matrix.yaml")


def run_folder(workplace: Workplace) -> Path:
    (run_id,) = workplace.run_ids()
    return workplace.archive / run_id


def test_the_run_succeeds_and_prints_the_table(done: tuple[Workplace, Finished]) -> None:
    _, finished = done
    assert finished.code == 0, finished.text
    assert "Traceback" not in finished.text
    for words in ("default", "optimised", "peak RSS", "GC CPU", "p99", "needs 6 blocks"):
        assert words in finished.text


def test_nothing_of_ray_reaches_the_user(done: tuple[Workplace, Finished]) -> None:
    workplace, finished = done
    assert "raylet" not in finished.text
    assert "(pid=" not in finished.text
    assert list((run_folder(workplace) / "logs" / "ray").glob("raylet*")), "Ray's logs are kept"


def test_nothing_is_left_behind(done: tuple[Workplace, Finished]) -> None:
    workplace, _ = done
    assert workplace.strays() == []


def test_every_trial_is_sealed_valid_and_says_what_it_was(
    done: tuple[Workplace, Finished],
) -> None:
    workplace, _ = done
    folders = sorted((run_folder(workplace) / "trials").iterdir())
    assert len(folders) == 4
    hashes = {}
    for folder in folders:
        record = json.loads((folder / "trial.json").read_text())
        assert record["valid"], record["findings"]
        binary = record["spec"]["service"]["binary"]
        hashes.setdefault(record["configuration"], set()).add(binary["sha256"])
        assert "go1.23" in binary["build_info"]
        assert record["exit"]["cause"] == "stopped"
        assert [p["name"] for p in record["phases"]] == [
            "deploy", "startup", "idle", "warmup", "measure", "cooldown", "teardown",
        ]  # fmt: skip
    assert {len(h) for h in hashes.values()} == {1}
    assert hashes["default"] != hashes["optimised"], "build flags change the binary"


def test_environment_blocks_have_one_length(done: tuple[Workplace, Finished]) -> None:
    workplace, _ = done
    lengths = set()
    for path in (run_folder(workplace) / "trials").glob("*/trial.json"):
        block = json.loads(path.read_text())["spec"]["service"]["environment"]
        lengths.add(sum(len(name) + len(value) + 2 for name, value in block))
    assert len(lengths) == 1


def test_every_request_that_was_sent_is_a_row(done: tuple[Workplace, Finished]) -> None:
    workplace, _ = done
    sent = sum(
        json.loads(path.read_text())["load"]["sent"]
        for path in (run_folder(workplace) / "trials").glob("*/trial.json")
    )
    answer = workplace.bench("sql", "select count(*) as n from requests", "--format", "json")
    assert answer.code == 0, answer.err
    assert answer.json() == [{"n": sent}]
    assert sent > 4 * 100


def test_sql_by_configuration(done: tuple[Workplace, Finished]) -> None:
    workplace, _ = done
    answer = workplace.bench(
        "sql",
        "select configuration, count(*) n, quantile_cont(latency_ns, 0.99) p99 "
        "from requests group by 1 order by 1",
        "--format",
        "csv",
    )
    rows = list(csv.DictReader(io.StringIO(answer.out)))
    assert [row["configuration"] for row in rows] == ["default", "optimised"]
    assert all(float(row["p99"]) > 0 for row in rows)


def test_gc_and_memory_are_there(done: tuple[Workplace, Finished]) -> None:
    workplace, _ = done
    answer = workplace.bench(
        "sql",
        "select configuration, (select count(*) from gc g where g.configuration = t.configuration"
        " and kind = 'cycle') cycles, (select max(rss_bytes) from memory m where m.configuration ="
        " t.configuration) rss from trials t group by 1 order by 1",
        "--format",
        "json",
    )
    default, optimised = answer.json()
    assert optimised["cycles"] > default["cycles"] > 0, "GOGC=20 collects more often"
    assert default["rss"] > 24 * 2**20


@pytest.mark.parametrize(
    "query",
    [
        "copy requests to 'stolen.csv'",
        "select * from read_csv('/etc/passwd')",
        "attach 'x.db'",
        "install httpfs",
        "drop view requests",
        "select 1; select 2",
    ],
)
def test_sql_can_only_read_the_archive(done: tuple[Workplace, Finished], query: str) -> None:
    workplace, _ = done
    answer = workplace.bench("sql", query)
    assert answer.code == 2, answer.text
    assert "Traceback" not in answer.text
    assert not (workplace.root / "stolen.csv").exists()


def test_compare_from_the_archive_alone_is_the_same_every_time(
    done: tuple[Workplace, Finished],
) -> None:
    workplace, finished = done
    first = workplace.bench("compare")
    assert first.code == 0, first.text
    assert first.out == workplace.bench("compare", "latest").out
    assert first.out.strip() in finished.out


def test_runs_and_show(done: tuple[Workplace, Finished]) -> None:
    workplace, _ = done
    (run_id,) = workplace.run_ids()
    assert run_id in workplace.bench("runs").out
    shown = workplace.bench("show", run_id[:12])
    assert shown.code == 0, shown.text
    assert "b1-" in shown.out or "b01-" in shown.out
    assert workplace.bench("runs", "--json").json()[0]["status"] == "complete"


def test_resume_of_a_finished_run_runs_nothing(done: tuple[Workplace, Finished]) -> None:
    workplace, _ = done
    before = sorted((run_folder(workplace) / "trials").iterdir())
    resumed = workplace.bench("resume")
    assert resumed.code == 0, resumed.text
    assert sorted((run_folder(workplace) / "trials").iterdir()) == before


def test_an_unknown_run_is_the_users_mistake(done: tuple[Workplace, Finished]) -> None:
    workplace, _ = done
    answer = workplace.bench("show", "19700101")
    assert answer.code == 2
    assert "19700101" in answer.err
    assert "Traceback" not in answer.text

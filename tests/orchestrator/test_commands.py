"""The small commands, as a user calls them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import matrices
import pytest
from bench_command import BENCH, Workplace


@pytest.fixture
def workplace(tmp_path: Path) -> Workplace:
    return Workplace(tmp_path)


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys\n"
        "from orchestrator.cli import app\n"
        "try:\n    app(['--help'])\n"
        "except SystemExit:\n    pass\n"
        "heavy = {'ray', 'pyarrow', 'duckdb', 'grpc', 'scipy', 'numpy', 'pydantic', 'locust'}\n"
        "print('loaded:', sorted(heavy & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.rstrip().endswith("loaded: []")


def test_doctor_tells_what_was_found(workplace: Workplace) -> None:
    told = workplace.bench("doctor", "--json")
    assert told.code == 0, told.text
    checks = {check["name"]: check for check in told.json()}
    assert {"cores", "memory limits", "kernel peaks", "Go toolchains", "free space"} <= set(checks)
    for check in checks.values():
        assert check["status"] == "ok" or check["consequence"], check
    assert "Go toolchains" in workplace.bench("doctor").out


def test_an_empty_archive_says_what_to_do(workplace: Workplace) -> None:
    (workplace.root / "archive").mkdir()
    told = workplace.bench("runs")
    assert told.code == 0
    assert "bench demo" in told.out


def test_no_archive_at_all_is_told(workplace: Workplace) -> None:
    for command in (["runs"], ["show"], ["compare"], ["sql", "select 1"]):
        told = workplace.bench(*command)
        assert told.code == 2, told.text
        assert "archive" in told.err
        assert "Traceback" not in told.text


def test_plan_starts_nothing_and_is_the_same_every_time(workplace: Workplace) -> None:
    matrices.write(workplace.root, matrices.SMALL)
    first = workplace.bench("plan", "matrix.yaml", "--json")
    assert first.code == 0, first.text
    assert first.out == workplace.bench("plan", "matrix.yaml", "--json").out
    assert len(first.json()["trials"]) == 4
    other = workplace.bench("plan", "matrix.yaml", "--seed", "8", "--trials", "20", "--json")
    orders = {
        tuple(t["configuration"] for t in other.json()["trials"][i : i + 2])
        for i in range(0, 40, 2)
    }
    assert len(orders) == 2, "both orders occur"
    assert not workplace.archive.exists()


def test_plan_prints_the_trials_and_the_warning(workplace: Workplace) -> None:
    matrices.write(workplace.root, matrices.SMALL)
    told = workplace.bench("plan", "matrix.yaml")
    assert "b1-1-" in told.out or "b01-1-" in told.out
    assert "6 blocks" in told.out


def test_a_very_large_run_asks_first(workplace: Workplace) -> None:
    matrices.write(workplace.root, matrices.SMALL)
    told = workplace.bench("run", "matrix.yaml", "--trials", "500000")
    assert told.code == 2, told.text
    assert "1,000,000 trials" in told.err
    assert "--yes" in told.err


def test_init_then_plan(workplace: Workplace) -> None:
    written = workplace.bench("init", str(matrices.SESSIONCACHE))
    assert written.code == 0, written.text
    assert workplace.bench("plan", "matrix.yaml").code == 0
    again = workplace.bench("init", str(matrices.SESSIONCACHE))
    assert again.code == 2
    assert "already" in again.err


def test_schema_is_a_json_schema(workplace: Workplace) -> None:
    schema = workplace.bench("schema").json()
    assert {"service", "configurations", "workloads", "trials"} <= set(schema["properties"])


def test_clean_leaves_runs_alone(workplace: Workplace) -> None:
    told = workplace.bench("clean")
    assert told.code == 0, told.text


def test_a_missing_matrix_is_named(workplace: Workplace) -> None:
    told = workplace.bench("run", "nowhere.yaml")
    assert told.code == 2
    assert "nowhere.yaml" in told.err
    assert "Traceback" not in told.text


@pytest.mark.parametrize("name", ["demo", "headline", "ablation", "shapes", "capacity", "queue"])
def test_the_shipped_matrices_can_be_planned(workplace: Workplace, name: str) -> None:
    path = matrices.ROOT / "workloads" / "matrices" / f"{name}.yaml"
    told = workplace.bench("plan", str(path), "--json")
    assert told.code == 0, told.text
    assert told.json()["blocks"] >= 6


@pytest.mark.parametrize("command", [["plan", "matrix.yaml"], ["schema"], ["doctor", "--json"]])
def test_a_full_disk_under_the_output_is_told_in_one_line(
    workplace: Workplace, command: list[str]
) -> None:
    matrices.write(workplace.root, matrices.SMALL)
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [BENCH, *command],
            cwd=workplace.root,
            env=workplace.environment,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 4
    assert done.stderr == "writing: No space left on device\n"


def test_a_reader_that_has_enough_is_no_failure(workplace: Workplace) -> None:
    matrices.write(workplace.root, matrices.SMALL)
    process = workplace.start("plan", "matrix.yaml", "--trials", "100000", "--json")
    assert process.stdout
    assert process.stderr
    assert process.stdout.readline() == "{\n"
    process.stdout.close()
    assert process.stderr.read() == ""
    assert process.wait(30) == 0


def test_a_plan_of_millions_is_shown_at_once(workplace: Workplace) -> None:
    matrices.write(workplace.root, matrices.SMALL)
    told = workplace.bench("plan", "matrix.yaml", "--trials", "1000000", timeout_s=20)
    assert told.code == 0, told.text
    assert "2,000,000 trials" in told.out
    assert "and 1,999,976 more" in told.out
    refused = workplace.bench("run", "matrix.yaml", "--trials", "1000000", "--yes")
    assert refused.code == 2
    assert "1,000,000 at most" in refused.err

"""`bench forecast` as a user types it, on archives whose law is known."""

from __future__ import annotations

import csv
import io
import json
import random
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from orchestrator.cli import app
from results.errors import HeapgateError
from tests.results.archives import MIB, WINDOWS, write_archive
from tests.results.histories import clone

RATES = (100, 200, 300, 400)


def bench(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["forecast", *arguments], env={"COLUMNS": "140"})


def refused(*arguments: str) -> HeapgateError:
    error = bench(*arguments).exception
    assert isinstance(error, HeapgateError), error
    return error


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four runs at four rates: 150 MiB, and 0.1 MiB for each request a second."""
    root = tmp_path_factory.mktemp("archive")
    for number, rate in enumerate(RATES, 1):
        own = {"requests": rate * 10, "peak_rss_bytes": round((150 + 0.1 * rate) * MIB)}
        cpu = {"gc_cycle_cpu_ns": 400_000 * rate, "cpu_ns": 20_000_000 * rate}
        write_archive(
            root,
            run_id=f"20260921-00000{number}-abcd",
            configurations={
                "default": {**own, **cpu, "factors": (1.0, 1.005, 0.995)},
                "other": {**own, **cpu, "factors": (0.7, 0.705, 0.695)},
            },
            blocks=3,
        )
    return root


def test_a_forecast_is_printed_with_its_back_test(archive: Path) -> None:
    done = bench("--rate", "600/s", "-c", "default", "-a", str(archive))
    assert done.exit_code == 0, done.output
    assert "210." in done.stdout
    assert "209." in done.stdout or "208." in done.stdout
    assert "fits what was measured" in done.stdout
    assert "of 12" in done.stdout
    for rate in RATES:
        assert f"rate {rate}/s" in done.stdout
    assert "no sign-off rests on one" in done.stdout


def test_every_form_says_the_same(archive: Path) -> None:
    where = ("--rate", "600/s", "-c", "default", "--metric", "peak_rss", "-a", str(archive))
    plain = json.loads(bench(*where, "--format", "json").stdout)
    (own,) = plain["forecasts"]
    assert own["value"] / MIB == pytest.approx(210, rel=0.01)
    assert own["low"] < own["value"] < own["high"]
    assert own["trusted"] is True
    assert own["backtest_trials"] == own["trials"] == 12
    assert own["backtest_held"] >= 10
    assert [level["trials"] for level in own["backtest"]] == [3, 3, 3, 3]
    assert "no sign-off rests on one" in plain["note"]
    (row,) = csv.DictReader(io.StringIO(bench(*where, "--format", "csv").stdout))
    assert float(row["value"]) == own["value"]
    assert row["verdict"] == own["verdict"]
    markdown = bench(*where, "--format", "md").stdout
    assert markdown.startswith("| forecast |")
    assert "no sign-off rests on one" in markdown


def test_the_same_archive_gives_the_same_bytes(archive: Path, tmp_path: Path) -> None:
    texts, pictures = set(), set()
    for name in ("a.svg", "b.svg"):
        done = bench("--rate", "600/s", "-a", str(archive), "-o", str(tmp_path / name))
        assert done.exit_code == 0, done.output
        texts.add(done.stdout)
        pictures.add((tmp_path / name).read_bytes())
    assert len(texts) == len(pictures) == 1
    (svg,) = pictures
    assert b"not forecast" in svg
    assert b"requests/s" in svg


def test_a_picture_is_a_png_or_an_svg(archive: Path, tmp_path: Path) -> None:
    target = tmp_path / "f.png"
    bench("--rate", "600/s", "-c", "default", "-a", str(archive), "-o", str(target))
    assert target.read_bytes().startswith(b"\x89PNG")
    assert ".svg or .png" in str(refused("--rate", "600/s", "-a", str(archive), "-o", "f.pdf"))


def test_too_far_out_is_refused_with_the_range(archive: Path) -> None:
    error = refused("--rate", "900/s", "-c", "default", "-a", str(archive))
    assert error.exit_code == 2
    assert "measured was 100/s to 400/s" in str(error)
    assert "50/s to 800/s" in str(error)


def test_what_is_refused_does_not_hide_what_is_told(archive: Path) -> None:
    done = bench("--rate", "600/s", "--live", "1GiB", "-a", str(archive))
    assert "gc_trace" in str(done.exception) or "live heap" in str(done.exception)
    plain = bench("--rate", "900/s", "-a", str(archive), "--format", "json").stdout
    assert len(json.loads(plain)["refused"]) == 4


def test_trials_of_windows_are_told_by_their_own_metrics(tmp_path: Path) -> None:
    for number, rate in enumerate(RATES, 1):
        write_archive(
            tmp_path,
            run_id=f"20260921-00000{number}-abcd",
            configurations={
                "default": {
                    "requests": rate * 10,
                    "peak_working_set_bytes": round((150 + 0.1 * rate) * MIB),
                    "factors": (1.0, 1.005, 0.995),
                }
            },
            blocks=3,
            groups={"windows": WINDOWS},
        )
    done = bench("--rate", "600/s", "--metric", "peak_rss", "-a", str(tmp_path), "--format", "json")
    (own,) = json.loads(done.stdout)["forecasts"]
    assert own["metric"] == "peak_working_set"
    assert own["value"] / MIB == pytest.approx(210, rel=0.01)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ((), "say what is to be forecast"),
        (("--rate", "600"), "has no unit"),
        (("--live", "800"), "has no unit"),
        (("--env", "GOGC=30%"), "Go would silently use 100"),
        (("--env", "GOMAXPROCS=2"), "only GOGC=… and GOMEMLIMIT=…"),
        (("--env", "GOMEMLIMIT=90%"), "a share has no limit"),
        (("--rate", "600/s", "--confidence", "20%"), "between 50% and 99%"),
        (("--rate", "600/s", "--metric", "latency_p99"), "can't be forecast"),
        (("--rate", "600/s", "-c", "nothing"), "no valid trial fits"),
        (("--rate", "600/s", "--service", "nothing"), "no run of a service 'nothing'"),
        (("--history", "sessioncache"), "--runs N, or --by DATE"),
        (("--history", "sessioncache", "--by", "tomorrow"), "a date such as 2027-03-01"),
        (("--history", "sessioncache", "--runs", "3"), "needs 12 runs"),
    ],
)
def test_what_is_asked_wrongly_is_a_user_error(
    archive: Path, arguments: tuple[str, ...], told: str
) -> None:
    error = refused(*arguments, "-a", str(archive))
    assert error.exit_code == 2
    assert told in str(error)


def test_a_history_is_carried_on_by_the_installed_command(tmp_path: Path) -> None:
    """In a process of its own: there pandas is hidden from all that does not need it."""
    source = random.Random(1)
    for number in range(1, 15):
        level = 60 + number + source.uniform(-0.3, 0.3)
        clone(tmp_path, number, (level - 0.1, level + 0.1))
    target = tmp_path / "h.svg"
    done = subprocess.run(
        [
            Path(sys.executable).with_name("bench"), "forecast", "--history", "sessioncache",
            "--runs", "5", "--metric", "peak_rss", "-c", "default", "-a", tmp_path, "-o", target,
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "damped trend" in done.stdout
    assert "5 runs ahead, about 2026-" in done.stdout
    assert "no sign-off rests on one" in done.stdout
    assert b"peak RSS of default" in target.read_bytes()

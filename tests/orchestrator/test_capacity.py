"""`bench capacity` with real runs: it goes on where it was, and says what is wrong."""

from __future__ import annotations

import json
import signal
import subprocess
from pathlib import Path

import matrices
import pytest
from bench_command import Workplace, wait_until

ONE = matrices.SMALL.partition("  optimised:")[0] + (
    "workloads:" + matrices.SMALL.partition("workloads:")[2]
)
OBJECTIVES = "objectives: [p50 <= 5s, errors <= 50%]\n"


REFUSING = f"""\
service:
  name: queue
  go: {{source: {matrices.ROOT / "workloads" / "services" / "queue"}}}
  arguments: [-addr, "{{host}}:{{port}}", -servers, "2", -service, 10ms, -waiting, "0"]
  ready: {{http: /healthz}}
configurations:
  default: {{baseline: true, go: "1.23"}}
workloads:
  steady:
    scenario: front_page
    arrivals: {{poisson: 60/s}}
    idle: 100ms
    warmup: 100ms
    measure: 2s
    cooldown: 0s
objectives: [errors <= 20%, p50 <= 5s]
seed: 7
"""
"""Two servers and no place to wait: by Erlang's B a fifth is refused at 100/s."""


@pytest.mark.timeout(900)
def test_a_search_that_is_stopped_goes_on_confirms_overloads_and_is_not_measured_twice(
    tmp_path: Path,
) -> None:
    place = Workplace(tmp_path)
    matrices.write(tmp_path, REFUSING)
    asked = ("capacity", "matrix.yaml", "--trials", "5", "--json")
    process = place.start(*asked)
    wait_until(lambda: "holds" in read_line(process), timeout_s=120)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "the same command goes on where it was" in err
    measured = complete(place)
    assert len(measured) == 1

    found = place.bench(*asked, timeout_s=600)
    assert found.code in (0, 3), found.text
    (told,) = found.json()
    assert told["configuration"] == "default"
    assert told["trials"][0]["run_id"] == measured[0]
    assert told["trials_made"] == len(complete(place)) <= 5
    if all(trial["holds"] is not None for trial in told["trials"]):  # nothing else disturbed it
        assert told["low_rps"] < 100 * 1.5 and told["high_rps"] > 100 / 1.5
        assert told["confirmed_rps"] or "not confirmed" in "".join(told["notes"])
    if told["overload"]:
        overload = told["overload"]
        assert overload["base_rps"] == told["confirmed_rps"]
        assert overload["peak_rps"] >= 1.29 * overload["base_rps"]
        assert 0 < overload["failed_share"] < 1
        assert overload["memory_bytes"]["peak"] >= overload["memory_bytes"]["before"] > 2**20
        assert overload["died"] == ""
    if found.code == 0:  # else it was given up, and calling it again tries again
        again = place.bench(*asked)
        assert again.json() == found.json()
        assert again.err.count("capacity:") == 1, "what is known is not measured again"
    assert place.strays() == []


def read_line(process: subprocess.Popen[str]) -> str:
    assert process.stderr
    return process.stderr.readline()


def complete(place: Workplace) -> list[str]:
    """The runs that ended, in order."""
    folders = [place.archive / name for name in place.run_ids()]
    told = [json.loads((folder / "run.json").read_text()) for folder in folders]
    return [run["run_id"] for run in told if run["status"] in ("complete", "incomplete")]


@pytest.mark.parametrize(
    ("text", "arguments", "said"),
    [
        (ONE, (), "add another, or what it must hold"),
        (matrices.SMALL, (), "it has no limit that could be reached"),
        (matrices.CLOSED + OBJECTIVES, (), "a closed loop slows down with the service"),
        (ONE + OBJECTIVES, ("--workload", "night"), "there is no workload 'night'"),
        (ONE + OBJECTIVES, ("--lowest", "50"), "has no unit"),
        (ONE + OBJECTIVES, ("--lowest", "50/s", "--highest", "20/s"), "must be below"),
        (ONE + OBJECTIVES, ("--within", "10"), "is not a share"),
        (ONE + OBJECTIVES, ("--budget", "30"), "has no unit"),
        (ONE + OBJECTIVES, ("--budget", "5s"), "a search needs at least"),
        (ONE + OBJECTIVES, ("--trials", "3"), "'--trials'"),
    ],
)
def test_what_can_not_be_searched(
    tmp_path: Path, text: str, arguments: tuple[str, ...], said: str
) -> None:
    place = Workplace(tmp_path)
    matrices.write(tmp_path, text)
    done = place.bench("capacity", "matrix.yaml", *arguments)
    assert done.code == 2
    assert said in done.err
    assert "Traceback" not in done.text

"""What is known of a machine holds for that machine; margins that it can't show are refused."""

from __future__ import annotations

import dataclasses
import json
import math
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import matrices
import pytest
from bench_command import Workplace, wait_until
from hypothesis import given
from hypothesis import strategies as st

from orchestrator import doctor
from orchestrator.calibrate import calibration
from orchestrator.calibrate.calibration import Calibration, Ceiling, hardware_of, keep, kept_for
from orchestrator.calibrate.ceilings import Search, search_closed, search_open
from orchestrator.calibrate.margins import check_margins
from orchestrator.leftovers import SweptRun
from orchestrator.matrix.matrix import Matrix, MatrixError, load_matrix
from results.comparing.noise import Noise
from results.record import Finding
from workers.facts import node_facts
from workers.spec import LoadSpec

SECOND_NS = 10**9
DAY_NS = 86_400 * SECOND_NS
LOAD = LoadSpec(scenario="x.py", users=1, arrivals=None, seed=1)


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HEAPGATE_STATE", str(tmp_path / "state"))
    return tmp_path / "state"


def noise(metric: str, spread: float) -> Noise:
    return Noise(
        metric=metric, relative=True, pairs=12, value=1e8, spread=spread,
        low=-spread, high=None, p=0.5, alarm=False,
    )  # fmt: skip


def made_here(**changes: Any) -> Calibration:
    """A calibration of this machine: 2 % of noise in memory, 10 % in the p99 of 2 s."""
    facts = node_facts()
    found = Calibration(
        made_ns=time.time_ns(),
        heapgate=calibration.version("heapgate"),
        node_class="linux · test",
        kernel=str(facts["kernel"]),
        hardware=hardware_of(facts),
        quick=False,
        blocks=12,
        confidence=0.95,
        measure_ns=2 * SECOND_NS,
        ceilings=(
            Ceiling(user="fast", loop="open", processes=1, users=None, valid_rps=9000.0,
                    invalid_rps=None, limit="", trials=4),
        ),
        noise=(noise("peak_rss", 0.02), noise("latency_p99", 0.1)),
        left_out=("nothing",),
    )  # fmt: skip
    return dataclasses.replace(found, **changes)


def test_a_calibration_is_read_as_it_was_written(state: Path) -> None:
    kept = made_here()
    path = keep(kept)
    assert path.is_relative_to(state)
    assert kept_for(kept.hardware) == kept
    newer = made_here(blocks=7)
    assert keep(newer) == path, "one for each kind of hardware"
    assert kept_for(kept.hardware) == newer


@given(st.sampled_from(["cpu_model", "cores", "memory_gib", "os", "hypervisor"]))
def test_a_calibration_of_other_hardware_is_not_used(fact: str) -> None:
    kept = made_here()
    for old in calibration.calibrations_folder().glob("*.json"):
        old.unlink()
    keep(dataclasses.replace(kept, hardware=kept.hardware | {fact: "another"}))
    assert kept_for(kept.hardware) is None
    standing = calibration.standing_here()
    assert (standing.calibration, standing.others) == (None, 1)
    check = doctor._calibration()
    assert check.status == "limited"
    assert check.found == "none of this hardware; 1 of other hardware"
    assert check.remedy == "bench calibrate"


def test_one_that_was_put_in_another_ones_place_is_not_used() -> None:
    kept = made_here()
    path = keep(kept)
    other = kept.to_plain() | {"hardware": kept.hardware | {"cores": 512}}
    path.write_text(json.dumps(other))
    assert kept_for(kept.hardware) is None


@pytest.mark.parametrize(
    "text",
    [
        *("", "{}", "[]", "null", "\udcff"),
        *('{"format": 99}', '{"format": 1}', '{"format": 1, "x": 1}'),
    ],
)
def test_what_is_no_calibration_counts_as_none(text: str) -> None:
    path = keep(made_here())
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    assert calibration.standing_here().calibration is None


@pytest.mark.parametrize(
    ("changes", "want"),
    [
        ({}, ""),
        ({"heapgate": "0.0.9"}, "by Heapgate 0.0.9, this is"),
        ({"kernel": "5.10.0"}, "under kernel 5.10.0, this is"),
        ({"made_ns": time.time_ns() - 100 * DAY_NS}, "100 days ago"),
        ({"made_ns": time.time_ns() - 80 * DAY_NS}, ""),
    ],
)
def test_doctor_tells_when_a_calibration_is_old(changes: dict[str, Any], want: str) -> None:
    keep(made_here(**changes))
    check = doctor._calibration()
    assert check.status == ("limited" if want else "ok")
    assert want in check.consequence
    assert "up to 9,000/s in an open loop" in check.found


def with_margins(
    folder: Path, margins: str, *, trials: int = 8, measure: str = "1s", extra: str = ""
) -> Matrix:
    text = matrices.SMALL.replace("trials: 2", f"trials: {trials}")
    text = text.replace("measure: 1s", f"measure: {measure}")
    text += f"comparison:\n  primary: [peak_rss]\n  margins: {margins}\n{extra}"
    return load_matrix(matrices.write(folder, text))


def test_a_margin_below_the_noise_is_refused_with_its_place_and_what_would_help(
    tmp_path: Path,
) -> None:
    """8 blocks, spread 2 %: half widths of 0.71 spreads make a floor of 1.4 %."""
    keep(made_here())
    matrix = with_margins(tmp_path, "{throughput: 1%, peak_rss: 1%}")
    with pytest.raises(MatrixError) as caught:
        check_margins(matrix, below_noise=False)
    (line,) = str(caught.value).splitlines()
    assert line.startswith(f"{tmp_path / 'matrix.yaml'}:24:39: a margin of 1% for peak_rss"), line
    assert "with 8 blocks, two equal configurations are told apart from ±1.4% only" in line
    needed = noise("peak_rss", 0.02).blocks_for_margin(0.01, 0.95)
    assert f"about {needed} blocks or a margin of 1.5% would do" in line
    assert "--below-noise" in line
    assert check_margins(matrix, below_noise=True) == [line], "then it is a warning"


def test_what_the_refusal_names_as_help_does_help(tmp_path: Path) -> None:
    keep(made_here())
    for margins, trials in (("{peak_rss: 1%}", 15), ("{peak_rss: 1.5%}", 8), ("{p99: 1%}", 8)):
        metric = margins.replace("p99", "service_p99")  # of which nothing is known
        assert check_margins(with_margins(tmp_path, metric, trials=trials), below_noise=False) == []


def test_longer_trials_are_given_the_benefit_of_the_doubt_where_time_may_help(
    tmp_path: Path,
) -> None:
    """10 % of noise in the p99 of 2 s may be 1 % in that of 200 s; a peak is a peak."""
    keep(made_here())
    short = with_margins(tmp_path, "{latency_p99: 2%}", measure="2s")
    with pytest.raises(MatrixError, match="latency_p99"):
        check_margins(short, below_noise=False)
    long = with_margins(tmp_path, "{latency_p99: 2%}", measure="200s")
    assert check_margins(long, below_noise=False) == []
    with pytest.raises(MatrixError, match="peak_rss"):
        check_margins(with_margins(tmp_path, "{peak_rss: 1%}", measure="200s"), below_noise=False)


def test_without_a_calibration_there_is_only_a_note(tmp_path: Path) -> None:
    (note,) = check_margins(with_margins(tmp_path, "{peak_rss: 1%}"), below_noise=False)
    assert note.startswith("there is no calibration that says")
    assert check_margins(with_margins(tmp_path, "{}"), below_noise=False) == []


def test_this_machine_says_nothing_about_the_nodes_of_a_cluster(tmp_path: Path) -> None:
    keep(made_here())
    matrix = with_margins(tmp_path, "{peak_rss: 0.01%}", extra="nodes: {linux: 1}\n")
    assert check_margins(matrix, below_noise=False) == []


def test_a_rate_beyond_what_the_generator_ever_made_is_told(tmp_path: Path) -> None:
    keep(made_here())
    text = matrices.SMALL.replace("{poisson: 150/s}", "{ramp: {from: 1/s, to: 9500/s}}")
    (told,) = check_margins(load_matrix(matrices.write(tmp_path, text)), below_noise=False)
    assert told.startswith("steady asks for 9,500/s: the most")
    assert "9,000/s" in told


def test_plan_and_run_refuse_alike_and_start_nothing(tmp_path: Path) -> None:
    keep(made_here())
    with_margins(tmp_path, "{peak_rss: 0.5%}")
    workplace = Workplace(tmp_path)
    for command in ("plan", "run"):
        told = workplace.bench(command, "matrix.yaml")
        assert told.code == 2, told.text
        assert "matrix.yaml:24:23: a margin of 0.5% for peak_rss" in told.err
    assert not workplace.archive.exists()
    told = workplace.bench("plan", "matrix.yaml", "--below-noise")
    assert told.code == 0, told.text
    assert "a margin of 0.5% for peak_rss is below" in told.out.replace("\n", " ")
    assert workplace.bench("plan", "matrix.yaml", "--trials", "100").code == 0


def test_what_a_killed_calibration_left_is_told_without_a_run_to_resume() -> None:
    line = SweptRun(run_id="20260101-000000-test", processes=2).line
    assert line == (
        "cleaned up after calibration 20260101-000000-test, whose driver was killed: 2 processes"
    )


# The search for the ceilings, against a generator whose limits are known


def generator(closed_rps: float, open_rps: float, valid_users: int, cpu: float = 0.1) -> Any:
    """Trials of a generator: valid up to a number of users or a rate."""
    asked: list[LoadSpec] = []

    def attempt(load: LoadSpec) -> Any:
        asked.append(load)
        if load.arrivals:
            rate = min(load.arrivals.rate_rps, open_rps * 1.1)
            valid = load.arrivals.rate_rps <= open_rps
        else:
            rate = closed_rps * min(1.0, (load.users or 1) / 4)
            valid = (load.users or 1) <= valid_users
        span = SimpleNamespace(
            name="measure", start_ns=0, end_ns=SECOND_NS, cpu_ns=int(cpu * SECOND_NS)
        )
        findings = [] if valid else [Finding("generator_saturated", "invalid", "too much")]
        return SimpleNamespace(
            phases=[span],
            load=SimpleNamespace(measured=round(rate)),
            valid=valid,
            findings=findings,
        )

    return attempt, asked


def search(attempt: Any, loop: str, has_time: Any = lambda: True) -> Search:
    return Search("fast", loop, 2, attempt, has_time, 1)


@given(st.floats(50, 80_000), st.floats(0.05, 1.5), st.integers(3, 6))
def test_the_search_ends_near_the_highest_valid_rate(
    closed_rps: float, share: float, trials: int
) -> None:
    attempt, asked = generator(closed_rps, closed_rps * share, 1)
    found = search(attempt, "open")
    search_open(found, LOAD, closed_rps, trials)
    assert found.trials == len(asked) == trials
    assert all(load.processes == 2 and load.users is None for load in asked)
    ceiling = found.found()
    if ceiling.valid_rps is not None:
        assert ceiling.valid_rps <= closed_rps * share + 1
    # After the first trial the range is 0.6 of the rate at most, and each further one halves it;
    # a rate is rounded to 5 % at most.
    wide = 0.6 * closed_rps / 2 ** (trials - 1) + 0.06 * closed_rps + 1
    truth = min(closed_rps, closed_rps * share)
    assert truth - (ceiling.valid_rps or 0.0) <= wide


@pytest.mark.parametrize(
    ("valid_users", "want_users", "want_rps"), [(40, 32, 5000), (10, 8, 5000), (1, None, None)]
)
def test_a_closed_loop_is_tried_with_fewer_users_until_a_trial_is_valid(
    valid_users: int, want_users: int | None, want_rps: float | None
) -> None:
    attempt, _ = generator(5000, 0, valid_users)
    found = search(attempt, "closed")
    search_closed(found, LOAD)
    ceiling = found.found()
    assert (ceiling.users, ceiling.valid_rps) == (want_users, want_rps)
    assert found.highest_rps == 5000, "what was reached is known all the same"
    if want_users != 32:
        assert ceiling.limit == "too much"


def test_a_search_ends_with_its_time_and_tells_a_full_server() -> None:
    attempt, asked = generator(5000, 5000, 40, cpu=0.95)
    left = iter([True, True, False])
    found = search(attempt, "open", lambda: next(left))
    search_open(found, LOAD, 5000, 5)
    assert len(asked) == 2
    assert found.found().server_bound


# The real thing, once


TINY = """\
import sys, json
from rich.console import Console
from orchestrator.calibrate import calibrate
from orchestrator.calibrate.answers import print_calibration
how = calibrate.Thoroughness(
    users=("fast",), several_processes=False, open_trials=1, ceilings_s=60.0, whole_s=60.0,
    blocks_min=2, blocks_max=2, phases="idle: 200ms, warmup: 200ms, measure: 1s, cooldown: 0s",
    measure_s=1.4, rate_rps=100,
)
made = calibrate.calibrate(Console(stderr=True), how)
print_calibration(made, Console(width=160), as_json="--json" in sys.argv)
"""


@pytest.mark.slow
def test_this_machine_is_measured_for_real(tmp_path: Path) -> None:
    workplace = Workplace(tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", TINY, "--json"],
        env=workplace.environment,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads(done.stdout)
    closed, opened = told["ceilings"]
    assert (closed["loop"], opened["loop"]) == ("closed", "open")
    # Slow and busy as a machine may be, it makes some hundred requests a second.
    assert max(closed["valid_rps"] or 0, closed["invalid_rps"] or 0) > 300
    assert {"initial_rss", "peak_rss", "cpu_cores", "latency_p50"} <= set(told["floors"])
    by_name = {metric["metric"]: metric for metric in told["noise"]}
    assert by_name["peak_rss"]["value"] > 30 * 2**20
    assert by_name["binary_size"]["spread"] == 0, "they are the same program"
    assert all(math.isfinite(metric["spread"]) for metric in told["noise"])
    assert told["hardware"] == hardware_of(node_facts())
    assert kept_for(told["hardware"]) is not None
    assert workplace.strays() == []
    assert not list(Path("/tmp").glob(f"heapgate-*-{told['made_ns']}"))
    checks = {check["name"]: check for check in workplace.bench("doctor", "--json").json()}
    assert checks["calibration"]["status"] == "ok"


@pytest.mark.slow
def test_ctrl_c_leaves_nothing(tmp_path: Path, state: Path) -> None:
    workplace = Workplace(tmp_path)
    process = workplace.start("calibrate", "--quick")
    wait_until(lambda: list((state / "leases").glob("*.json")), timeout_s=60)
    (lease,) = (state / "leases").glob("*.json")
    temp = Path(json.loads(lease.read_text())["temp_dir"])
    wait_until(lambda: list(temp.glob("work/trial-*")), timeout_s=120)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=90)
    assert process.returncode == 130, out + err
    assert "stopped: nothing is kept" in err
    assert "Traceback" not in out + err
    assert not temp.exists()
    assert not list((state / "leases").glob("*.json"))
    assert not (state / "calibrations").exists()
    assert workplace.run_ids() == []

"""`bench tune` with real runs: it searches, it goes on where it was, it says what is wrong."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import matrices
import pytest
import yaml
from bench_command import Workplace, wait_until

from orchestrator.tune.trialmatrix import Question, Wanted, unasked_text
from results.errors import UserError
from results.gomodel import OFF
from results.tuning.settings import GOGCS, MIB, Setting

ONE = matrices.SMALL.partition("  optimised:")[0] + (
    "workloads:" + matrices.SMALL.partition("workloads:")[2]
)
TINY = (
    ONE.replace("arrivals: {poisson: 150/s}", "users: 16")
    .replace("idle: 300ms", "idle: 100ms")
    .replace("measure: 1s", "measure: 2s")
    .replace("-live, 24MiB", "-live, 12MiB")
    .replace("-garbage, 256KiB", "-garbage, 1MiB")
    .replace("trials: 2", "trials: 3")
) + "comparison: {confidence: 0.6}\nobjectives: [errors <= 100%]\n"
"""Three trials of each are enough for an interval of so little confidence."""

HELD = "objectives: [p99 <= 5s]\n"


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_it_goes_on_where_it_was_interrupted_and_says_what_to_run_with(tmp_path: Path) -> None:
    place = Workplace(tmp_path)
    matrices.write(tmp_path, TINY)
    asked = (
        "tune", "matrix.yaml", "--trials", "8", "--finalists", "1", "--no-spiral",
        "--format", "json", "-o", "front.svg",
    )  # fmt: skip
    process = place.start(*asked)
    wait_until(lambda: list(place.archive.glob("*/trials/*/trial.json")), timeout_s=120)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 130, out + err
    assert "the same command goes on" in err
    (begun,) = place.run_ids()
    sealed = {p.parent.name for p in place.archive.glob("*/trials/*/trial.json")}

    done = place.bench(*asked)
    if done.code == 4 and "Ray did not start" in done.err:  # a very busy machine
        done = place.bench(*asked)
    if done.code == 3 and "no p99" in done.err:
        pytest.skip("this machine is too busy for 1,000 requests")
    assert done.code in (0, 1), done.text  # 1: so busy that a trial of the confirmation is spoiled
    told = done.json()
    assert told["runs"][0] == begun, "the run that was broken off is gone on with"
    first = {p.parent.name for p in (place.archive / begun).glob("trials/*/trial.json")}
    assert sealed <= first
    assert len({name.partition("~")[0] for name in first}) == 3
    written, other, *_ = told["confirmed"]  # more, when a busy machine leaves one untold
    assert written["as_written"]
    assert not other["as_written"]
    assert other["figures"]["peak_rss"]["estimate"] > 10 * MIB
    assert len(told["searched"]) <= 8
    assert "<svg" in (tmp_path / "front.svg").read_text()
    if done.code == 0:
        lines = told["recommended"]["snippets"]["environment"].splitlines()
        assert lines[0].startswith("GOGC=")
        assert told["recommended"]["limit_margin"] > 0.05
    marks = [
        json.loads((place.archive / name / "run.json").read_text())["tune"]["stage"]
        for name in told["runs"]
    ]
    assert marks[0] == "first"
    assert marks[-1] == "confirm"
    assert place.strays() == []

    runs = place.run_ids()
    again = place.bench(*asked)
    assert again.json() == told
    assert place.run_ids() == runs, "what is known is not measured again"


@pytest.mark.parametrize(
    ("text", "arguments", "said"),
    [
        (TINY, ("--require", "p99 < 40ms"), "--require: '<' does not say what a limit is"),
        (TINY, ("--budget", "30s"), "is too short: a tuning with 4 finalists in 3 blocks needs"),
        (TINY, ("-o", "front.gif"), "a picture is a .svg, .png or .html file"),
        (TINY, ("-o", "missing/front.svg"), "missing/front.svg: there is no folder missing"),
        (TINY, ("--require", "capacity >= 800/s"), "that is a search of its own: bench capacity"),
    ],
)
def test_what_is_wrong_is_told_before_anything_is_measured(
    tmp_path: Path, text: str, arguments: tuple[str, ...], said: str
) -> None:
    place = Workplace(tmp_path)
    matrices.write(tmp_path, text)
    done = place.bench("tune", "matrix.yaml", *arguments)
    assert done.code == 2, done.text
    assert said in done.err
    assert "Traceback" not in done.text
    assert place.run_ids() == []


# The matrices of its runs


def question(folder: Path, text: str, **wanted: object) -> Question:
    return Question(matrices.write(folder, text), Wanted(**wanted))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "wanted", "said"),
    [
        (ONE + HELD, {}, "too few requests for a p99: measure for at least 8s"),
        (TINY, {"workload": "night"}, "there is no workload 'night'"),
        (TINY, {"configuration": "best"}, "there is no configuration 'best'"),
        (TINY + "gc_trace: false\n", {}, "without the GC trace there is nothing to tune by"),
        (TINY + "nodes: {linux: 1, more: 1}\n", {}, "one group of nodes"),
    ],
)
def test_what_can_not_be_tuned(
    tmp_path: Path, text: str, wanted: dict[str, str], said: str
) -> None:
    with pytest.raises(UserError, match=said):
        question(tmp_path, text, **wanted)


def test_each_run_is_a_matrix_that_loads_and_says_what_is_tried(tmp_path: Path) -> None:
    text = TINY + "limits: {memory_max: 256MiB}\n"
    asked = question(tmp_path, text, require=("p99 not worse by > 20%",))
    settings = [Setting(50), Setting(OFF, 64 * MIB)]
    matrix = asked.load(asked.confirming(settings, 3), tmp_path)
    assert list(matrix.configurations) == ["default", "gogc-50", "gogc-off-gomemlimit-64mib"]
    assert matrix.baseline == "default"
    assert matrix.configurations["default"].env == {}
    assert matrix.configurations["gogc-off-gomemlimit-64mib"].env == {
        "GOGC": "off", "GOMEMLIMIT": "64MiB",
    }  # fmt: skip
    kinds = {o.kind: o.configurations for o in matrix.policy.objectives}
    assert set(kinds["limit"]) == set(matrix.configurations)
    assert set(kinds["change"]) == set(matrix.configurations) - {"default"}
    assert asked.asked.most_bytes == pytest.approx(256 * MIB * 0.95)
    alone = asked.load(asked.short(settings[:1], 0), tmp_path)
    assert list(alone.configurations) == ["gogc-50"]


def test_what_no_trial_of_a_tuning_can_tell_is_left_out(tmp_path: Path) -> None:
    objectives = "objectives: [p99 <= 5s, no_leak over 1h, capacity >= 800/s]\n"
    asked = question(tmp_path, ONE.replace("measure: 1s", "measure: 2h") + objectives)
    assert [o.text for o in asked.objectives] == ["p99 <= 5s"]
    assert [o.text for o in asked.asked.objectives] == ["p99 <= 5s"]
    assert [unasked_text(o) for o in asked.unasked] == [
        "not asked: no_leak over 1h: a tuning is too short for it",
        "not asked: capacity >= 800/s: that is a search of its own: bench capacity",
    ]
    (told,) = asked.confirming([Setting(50)], 3)["objectives"]
    assert told["require"] == "p99 <= 5s"


def test_a_short_trial_has_enough_requests_and_a_shape_is_never_cut(tmp_path: Path) -> None:
    open_loop = ONE.replace("measure: 1s", "measure: 2m") + HELD
    assert question(tmp_path, open_loop).short_ns == 30 * 10**9
    fast = open_loop.replace("150/s", "3000/s")
    assert question(tmp_path, fast).short_ns == 30 * 10**9
    slow = open_loop.replace("150/s", "20/s")
    assert question(tmp_path, slow).short_ns == 60 * 10**9
    ramp = open_loop.replace("{poisson: 150/s}", "{ramp: {from: 10/s, to: 200/s}}")
    assert question(tmp_path, ramp).short_ns == 120 * 10**9


def test_axes_of_the_matrix_say_what_may_be_tried(tmp_path: Path) -> None:
    axes = yaml.safe_dump(
        {"axes": {"env.GOGC": [50, 100, "off"], "env.GOMEMLIMIT": ["64MiB", "off"],
                  "go": ["1.22", "1.23"]}}
    )  # fmt: skip
    asked = question(tmp_path, TINY + axes).asked
    assert asked.gogcs == (50.0, 100.0, OFF)
    assert asked.limits == (64.0 * MIB, OFF)
    assert asked.others == ((("go", "1.22"),), (("go", "1.23"),))
    assert asked.written == Setting(100.0, OFF, (("go", "1.23"),))
    without = question(tmp_path, TINY).asked
    assert without.gogcs == GOGCS
    assert without.limits == ()
    assert without.others == ((),)


def test_what_is_written_is_read_as_go_reads_it(tmp_path: Path) -> None:
    text = TINY.replace(
        'default: {baseline: true, go: "1.23"}',
        'default: {baseline: true, go: "1.23", env: {GOGC: "off", GOMEMLIMIT: 50%}, '
        "limits: {memory_max: 128MiB}}",
    )
    assert question(tmp_path, text).asked.written == Setting(OFF, 64.0 * MIB)


def test_a_service_that_is_no_go_program_has_nothing_to_tune(tmp_path: Path) -> None:
    text = TINY.replace(
        f"go: {{source: {matrices.SESSIONCACHE}}}", "command: [java, -jar, app.jar]"
    ).replace('go: "1.23"', "limits: {cpus: 1}")
    with pytest.raises(UserError, match="settings of a Go service"):
        question(tmp_path, text)

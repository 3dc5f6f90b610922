"""`bench bisect` on a real repository: it finds the commit, keeps all, and leaves nothing."""

from __future__ import annotations

import json
import signal
from collections import Counter
from pathlib import Path

import pytest

from tests.orchestrator.bench_command import Workplace, wait_until
from tests.orchestrator.gitservice import GitService, seven_commits

CONFIGURATIONS = """\
  default: {baseline: true, go: "1.23"}
  tuned: {go: "1.23", env: {GOGC: 50}}"""
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> GitService:
    return seven_commits(tmp_path_factory.mktemp("service") / "repo")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, service: GitService) -> Workplace:
    made = Workplace(tmp_path_factory.mktemp("bisect"))
    service.matrix(made.root, CONFIGURATIONS)
    return made


def documents(place: Workplace) -> list[dict[str, object]]:
    return [json.loads((place.archive / name / "run.json").read_text()) for name in place.run_ids()]


def test_the_commit_is_found_though_it_was_interrupted_and_one_does_not_build(
    place: Workplace, service: GitService
) -> None:
    service.write(3)  # the user is working
    before = service.state()
    good = service.commits["first"]
    arguments = (
        "bisect",
        "matrix.yaml",
        "--good",
        good,
        "--bad",
        "main",
        "--configuration",
        "tuned",
    )
    process = place.start(*arguments)
    sealed = lambda: list(place.archive.glob("*/trials/*/trial.json"))  # noqa: E731
    wait_until(lambda: sealed() or process.poll() is not None, timeout_s=240)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 130, out + err
    assert "the same command goes on" in err
    assert place.strays() == []
    assert service.state() == before
    first = place.run_ids()
    assert len(first) == 1

    found = place.bench(*arguments, "--json", timeout_s=600)
    assert found.code == 0, found.text
    told = found.json()
    assert told["found"]["subject"] == "hoards"
    assert told["found"]["sha"] == service.commits["hoards"]
    sides = {tried["commit"]["subject"]: tried["side"] for tried in told["tried"]}
    assert sides == {
        "explains": "good", "hoards": "bad", "breaks": "does not build", "six": "bad"
    }  # fmt: skip
    by_subject = {tried["commit"]["subject"]: tried for tried in told["tried"]}
    # What was measured before the interrupt counts.
    assert first[0] in by_subject["six"]["runs"]
    assert by_subject["hoards"]["low"] > 0.3
    assert by_subject["explains"]["runs"] == []
    assert service.state() == before
    assert place.strays() == []

    runs = place.run_ids()
    again = place.bench(*arguments)
    assert again.code == 0, again.text
    assert "first bad commit " + service.commits["hoards"] in again.out
    assert place.run_ids() == runs
    # Every run is a whole one: both commits, in the same blocks.
    for document in documents(place):
        planned = Counter(trial["configuration"] for trial in document["planned"])  # type: ignore[attr-defined,index]
        assert planned == {"good": 6, "tried": 6}
        builds = document["builds"]
        assert builds["good"]["commit"] == good  # type: ignore[index]


def test_runs_of_a_bisection_are_no_history(place: Workplace) -> None:
    assert "no runs but those of bisections" in place.bench("history").err


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--good", "main"), "line of first parents"),
        (("--good", "v9"), "no revision 'v9'"),
        (("--good", "main~3", "--metric", "gc_cycles"), "has no worse"),
        (("--good", "main~3", "--metric", "peak_rs"), "did you mean 'peak_rss'?"),
        (("--good", "main~6", "--configuration", "fast"), "there are: default, tuned"),
        (("--good", "main~6", "--worse-by", "much"), "--worse-by"),
        (("--good", "main~3"), "does not build"),
    ],
)
def test_what_can_not_be_meant_is_told_before_anything_is_measured(
    place: Workplace, arguments: tuple[str, ...], told: str
) -> None:
    runs = place.run_ids()
    done = place.bench("bisect", "matrix.yaml", "--bad", "main", *arguments)
    assert done.code == 2, done.text
    assert told in done.err
    assert place.run_ids() == runs


def test_a_service_that_is_not_built_has_no_commits(place: Workplace, tmp_path: Path) -> None:
    path = tmp_path / "matrix.yaml"
    path.write_text(
        "service: {command: [sleep], port: 80}\n"
        "configurations: {a: {baseline: true}, b: {}}\n"
        "workloads: {w: {scenario: cache_mix, users: 1}}\n"
    )
    done = place.bench("bisect", str(path), "--good", "main~1")
    assert (done.code, "has commits to bisect" in done.err) == (2, True), done.text

"""Pipelines that `bench ci init` writes: accepted by the real linters, and run for real."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from bench_command import Workplace
from hypothesis import given, settings
from hypothesis import strategies as st
from matrices import CLOSED
from matrices import SMALL as OPEN
from pipelinerunner import Runner, scripts, words_after

from orchestrator.pipeline.files import CONTAINER, GITHUB, GITLAB, GITLAB_MAIN, pipeline_files
from orchestrator.pipeline.project import CapacitySearch, Project, read_project
from orchestrator.pipeline.remaining import steps_left
from results.errors import HeapgateError, UserError
from results.signoff.signing import make_key

DOCS = Path(__file__).resolve().parents[2] / "docs"
BIN = Path(sys.executable).parent
PROJECT = Project(
    root=Path("/nowhere"), matrix="matrix.yaml", configuration=None, minutes=85, history=False,
    limits=False, nodes=False, labels=("heapgate",), install="heapgate==0.1.0", install_doubt="",
)  # fmt: skip
VARIANTS = {
    "own machine": PROJECT,
    "hosted": replace(PROJECT, labels=()),
    "a capacity": replace(
        PROJECT, searches=(CapacitySearch("steady", 40), CapacitySearch("evening", 25))
    ),
    "all of it": replace(
        PROJECT, labels=("self-hosted", "linux", "yes", "1.5", "big box"), history=True,
        matrix="perf/it's a \"matrix\" #1: $(x).yaml", configuration="optimised",
        install="heapgate @ git+https://example.org/heapgate.git@0123456789abcdef",
    ),
}  # fmt: skip
SMALL = CLOSED.replace("trials: 2", "trials: 1") + (
    "objectives: [errors <= 1%]\n"
    "waivers: [{objective: errors <= 1%, owner: Q. A., reason: one trial can't tell, "
    "expires: 2999-12-31}]\n"
)
"""A GO in one trial: somebody answers for what that is too little for."""


def text_of(target: str, project: Project) -> str:
    return next(iter(pipeline_files(target, project).values()))


def actionlint(root: Path) -> str:
    """What actionlint has to say of the workflows below a folder."""
    done = subprocess.run(
        [BIN / "actionlint", "-shellcheck=", "-oneline", *sorted(root.glob("*.yml"))],
        cwd=root, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    return done.stdout + done.stderr


def test_actionlint_finds_nothing(tmp_path: Path) -> None:
    """Besides that it can't know the labels of one's own machines."""
    for number, project in enumerate(VARIANTS.values()):
        text = text_of("github", project)
        (tmp_path / f"w{number}.yml").write_text(text)
    (tmp_path / "wrong.yml").write_text(text.replace("runner.temp", "runner.tmp"))
    told = actionlint(tmp_path)
    found = re.findall(r"(\w+)\.yml:\d+:\d+: (.*)$", told, re.MULTILINE)
    assert found, told
    expected = re.compile(r'label "(heapgate|yes|1\.5|big box)" is unknown')
    others = [(name, text) for name, text in found if not expected.match(text)]
    assert {name for name, _ in others} == {"wrong"}, others
    assert all('property "tmp" is not defined' in text for _, text in others)


def test_the_published_schemas_accept_them(tmp_path: Path) -> None:
    files: dict[str, list[Path]] = {"github": [], "gitlab": []}
    for target, paths in files.items():
        for number, project in enumerate(VARIANTS.values()):
            for path, text in pipeline_files(target, project).items():
                paths.append(tmp_path / f"{target}-{number}-{path.name}")
                paths[-1].write_text(text)
    own = ["--data-transform", "gitlab-ci"]
    for schema, more, target in (("github-workflows", [], "github"), ("gitlab-ci", own, "gitlab")):
        done = subprocess.run(
            [BIN / "check-jsonschema", "--builtin-schema", f"vendor.{schema}", *more,
             *files[target]],
            capture_output=True, text=True, check=False, timeout=120,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout


def test_shellcheck_and_hadolint_find_nothing(tmp_path: Path) -> None:
    found = []
    for name, project in VARIANTS.items():
        for target, shell in (("github", "bash"), ("gitlab", "sh")):
            for number, script in enumerate(scripts(text_of(target, project))):
                path = tmp_path / f"{name}-{target}-{number}.sh"
                path.write_text(f"#!/bin/{shell}\n{script}\n")
                found.append(path)
    done = subprocess.run(
        [BIN / "shellcheck", "--enable=quote-safe-variables", "--exclude=SC2016", *found],
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    for project in VARIANTS.values():
        (tmp_path / "Containerfile").write_text(text_of("container", project))
        done = subprocess.run(
            [BIN / "hadolint", "--no-color", tmp_path / "Containerfile"],
            capture_output=True, text=True, check=False, timeout=120,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout


NAMES = st.text(
    st.characters(exclude_categories=("Cc", "Cs", "Cn", "Zl", "Zp")), min_size=1, max_size=30
).filter(lambda text: "${{" not in text and text.strip("/. "))


@settings(max_examples=30)
@given(matrix=NAMES, install=NAMES)
def test_any_name_arrives_as_it_is(matrix: str, install: str) -> None:
    project = replace(PROJECT, matrix=f"./{matrix}", install=install)
    for target in ("github", "gitlab"):
        for labels in ((), ("heapgate",)):
            text = text_of(target, replace(project, labels=labels))
            script = "\n".join(scripts(text))
            assert words_after(script, "bench", "run")[0] == f"./{matrix}"
            assert words_after(script, "install", "--quiet") == [install]


@pytest.mark.parametrize("label", ["a\nb", "$(x)", "${{ x }}", "", "-" * 200, "a'b", "a;b"])
def test_labels_that_can_not_be(tmp_path: Path, label: str) -> None:
    (tmp_path / "matrix.yaml").write_text(SMALL)
    with pytest.raises(UserError, match="can't be a runner's label"):
        read(tmp_path, labels=[label])


def read(folder: Path, **more: object) -> Project:
    usual: dict[str, object] = {"configuration": None, "labels": (), "install": None}
    return read_project(folder / "matrix.yaml", folder, **(usual | more))  # type: ignore[arg-type]


def test_a_matrix_that_would_decide_nothing_gets_no_pipeline(tmp_path: Path) -> None:
    path = tmp_path / "matrix.yaml"
    with pytest.raises(HeapgateError, match=r"matrix\.yaml"):
        read(tmp_path)
    path.write_text(CLOSED)
    with pytest.raises(UserError, match="has no objectives"):
        read(tmp_path)
    path.write_text(f"{CLOSED}policy: policy.yaml\n")
    (tmp_path / "policy.yaml").write_text("objectives: [errors <= 1%]\n")
    assert read(tmp_path).matrix == "matrix.yaml"
    told_only = "{require: errors <= 1%, severity: warn}"
    path.write_text(f"{CLOSED}objectives: [{told_only}]\n")
    with pytest.raises(UserError, match="no objective that blocks is about"):
        read(tmp_path)
    path.write_text(SMALL.replace("workloads:", "  third: {go: '1.23'}\nworkloads:", 1))
    with pytest.raises(UserError, match=r"--configuration optimised \| third"):
        read(tmp_path)
    with pytest.raises(UserError, match="there are: default, optimised, third"):
        read(tmp_path, configuration="fourth")
    assert read(tmp_path, configuration="third").configuration == "third"
    with pytest.raises(UserError, match="a pipeline would not have it"):
        read_project(path, tmp_path / "elsewhere", configuration="third", labels=(), install=None)
    with pytest.raises(UserError, match="plain name"):
        read(tmp_path, configuration="third", install="heapgate==${{ secrets.KEY }}")


def test_what_a_matrix_asks_of_a_pipeline(tmp_path: Path) -> None:
    text = SMALL.replace("measure: 1s", "measure: 30m").replace("trials: 1", "trials: 6")
    (tmp_path / "matrix.yaml").write_text(f"{text}limits: {{memory_max: 1GiB}}\n")
    project = read(tmp_path)
    assert project.limits and not project.nodes and not project.history
    assert 2 * 2 * 6 * 30 < project.minutes < 2 * 2 * 6 * 30 + 60
    left = " ".join(steps_left("github", project, ["x"]))
    for step in ("HEAPGATE_SIGNING_KEY", "require the check `heapgate`", "noisy", "limits"):
        assert step in left
    assert "outside contributors" in " ".join(steps_left("github", PROJECT, ["x"]))


def test_a_capacity_that_decides_is_searched(tmp_path: Path) -> None:
    more = OPEN[OPEN.index("  steady:") : OPEN.index("trials:")].replace("steady", "evening")
    two = OPEN.replace("trials: 2", f"{more}trials: 6")
    limit = "errors <= 1%"
    objective = "{require: capacity >= 90/s, workloads: [evening]}"

    def read_with(*objectives: str, **asked: object) -> Project:
        text = f"{two}objectives: [{', '.join(objectives)}]\n"
        (tmp_path / "matrix.yaml").write_text(text)
        return read(tmp_path, **asked)

    without = read_with(limit)
    assert without.searches == ()
    one = read_with(limit, objective)
    (search,) = one.searches
    assert search.workload == "evening"
    # 15 trials of two configurations, each longer than its phases (1.7 s), within half a minute
    assert 15 * 2 * 1.7 / 60 < search.minutes <= 15
    assert one.minutes == without.minutes + search.minutes
    both = read_with(limit, "capacity >= 90/s")
    assert [own.workload for own in both.searches] == ["steady", "evening"]
    told = objective.replace("}", ", severity: warn}")
    others = objective.replace("}", ", configurations: [default]}")
    for undecided in (told, others):
        assert read_with(limit, undecided).searches == ()
    assert read_with(limit, others, configuration="default").searches
    with pytest.raises(HeapgateError, match="no limit that could be reached"):
        read_with(objective)


def test_the_command(tmp_path: Path) -> None:
    workplace = Workplace(tmp_path)
    (tmp_path / "matrix.yaml").write_text(SMALL)
    (tmp_path / ".git").mkdir()
    first = workplace.bench("ci", "init", "--for", "github", "--runner", "heapgate")
    assert first.code == 0, first.text
    assert first.out.startswith(f"wrote {GITHUB}\nwhat is left to do:\n  1. ")
    written = (tmp_path / GITHUB).read_text()
    assert yaml.safe_load(written)["jobs"]["heapgate"]["runs-on"] == "heapgate"
    (tmp_path / GITHUB).write_text("mine")
    again = workplace.bench("ci", "init", "--for", "github", "--runner", "heapgate")
    assert again.code == 2 and "exists already; --force" in again.err
    assert (tmp_path / GITHUB).read_text() == "mine"
    (tmp_path / GITLAB_MAIN).write_text("mine: {script: [make]}\n")
    told = workplace.bench("ci", "init", "--for", "gitlab", "--json").json()
    assert told["written"] == [str(GITLAB)]
    assert any("include:" in step for step in told["left_to_do"])
    forced = workplace.bench("ci", "init", "--for", "github", "--runner", "heapgate", "--force")
    assert forced.code == 0
    assert (tmp_path / GITHUB).read_text() == written
    assert workplace.bench("ci", "init", "nowhere.yaml", "--for", "container").code == 2


@pytest.fixture
def runner(tmp_path: Path) -> Runner:
    (tmp_path / "checkout").mkdir()
    return Runner(tmp_path / "checkout")


USUAL = ["doctor", "run", "export", "signoff"]
CASES = {
    # exit codes of bench → its calls, the step that fails
    "go": ({}, USUAL, ""),
    "no-go": ({"SIGNOFF": "1"}, USUAL, "Decide and sign"),
    "repeated": ({"RUN": "3"}, ["doctor", "run", "resume", "export", "signoff"], ""),
    "still not whole": (
        {"RUN": "3", "RESUME": "3", "SIGNOFF": "1"},
        ["doctor", "run", "resume", "export", "signoff"], "Decide and sign",
    ),
    "wrong matrix": ({"RUN": "2"}, ["doctor", "run"], "Measure"),
    "interrupted": ({"RUN": "130"}, ["doctor", "run"], "Measure"),
    "lacks something": ({"RUN": "3", "RESUME": "4"}, ["doctor", "run", "resume"], "Measure"),
}  # fmt: skip


@pytest.mark.parametrize(("codes", "calls", "failed"), CASES.values(), ids=CASES)
def test_what_a_pipeline_makes_of_exit_codes(
    runner: Runner, codes: dict[str, str], calls: list[str], failed: str
) -> None:
    runner.environment |= runner.stubbed | codes
    done = runner.github(text_of("github", PROJECT), {})
    assert done.failed == failed, done.text
    assert runner.asked() == calls
    out = runner.temp / "heapgate" / "out"
    names = {path.name for path in out.iterdir()}
    whole = {"run.tar.zst", "signoff.json", "signoff.html", "signoff.md", "signoff.xml"}
    assert names == (whole if "signoff" in calls else set())
    assert list(runner.folder.iterdir()) == [], "the checkout is as it was"
    shutil.rmtree(runner.told)
    runner.told.mkdir()
    job = runner.gitlab(text_of("gitlab", PROJECT))
    assert (job.last.returncode != 0) == bool(failed), job.text
    assert runner.asked() == calls


SEARCHED = ["doctor", "capacity", "capacity", "run", "export", "signoff"]
SEARCHES = {
    "found": ({}, SEARCHED, ""),
    "not found": ({"CAPACITY": "3", "SIGNOFF": "1"}, SEARCHED, "Decide and sign"),
    "can't be searched": ({"CAPACITY": "2"}, SEARCHED[:2], "Measure"),
    "lacks something": ({"CAPACITY": "4"}, SEARCHED[:2], "Measure"),
}


@pytest.mark.parametrize(("codes", "calls", "failed"), SEARCHES.values(), ids=SEARCHES)
def test_a_capacity_is_searched_before_the_run_and_exported_with_it(
    runner: Runner, codes: dict[str, str], calls: list[str], failed: str
) -> None:
    """Into the same archive; `latest`, which is signed off, must be the run."""
    runner.environment |= runner.stubbed | codes
    project = VARIANTS["a capacity"]
    done = runner.github(text_of("github", project), {})
    assert done.failed == failed, done.text
    assert runner.asked() == calls
    lines = (runner.told / "bench").read_text().splitlines()
    searches = ["steady --budget 40m", "evening --budget 25m"][: calls.count("capacity")]
    assert [line for line in lines if line.startswith("capacity")] == [
        f"capacity matrix.yaml --workload {search} --no-overload" for search in searches
    ]
    for line in lines:
        assert not line.startswith("export latest"), "the search's runs belong to the record"
    shutil.rmtree(runner.told)
    runner.told.mkdir()
    job = runner.gitlab(text_of("gitlab", project))
    assert (job.last.returncode != 0) == bool(failed), job.text
    assert runner.asked() == calls


def test_the_key_is_there_for_its_owner_alone_and_only_where_nothing_was_proposed(
    runner: Runner,
) -> None:
    runner.environment |= runner.stubbed
    secrets = {"HEAPGATE_SIGNING_KEY": "a key\nof two lines"}
    runner.github(text_of("github", PROJECT), secrets, event="pull_request")
    assert not (runner.told / "key").exists()
    runner.github(text_of("github", PROJECT), secrets)
    assert (runner.told / "key").read_text() == "600\na key\nof two lines\n"
    assert not (runner.temp / "heapgate" / "key").exists(), "it is gone with the step"
    key = runner.temp / "variable"
    key.write_text("a key\n")
    key.chmod(0o666)
    runner.gitlab(text_of("gitlab", PROJECT), HEAPGATE_SIGNING_KEY=str(key))
    assert (runner.told / "key").read_text() == "600\na key\n"


def test_git_sees_nothing_of_what_a_job_writes_into_the_checkout(runner: Runner) -> None:
    """GitLab keeps only what is there; the build would be told as one of a changed source."""
    subprocess.run(["git", "init", "--quiet"], cwd=runner.folder, check=True)
    runner.environment |= runner.stubbed
    assert runner.gitlab(text_of("gitlab", PROJECT)).last.returncode == 0
    assert (runner.folder / ".heapgate" / "out" / "signoff.xml").exists()
    status = subprocess.run(
        ["git", "status", "--porcelain"], cwd=runner.folder, check=True, capture_output=True
    )
    assert status.stdout == b""


@pytest.mark.slow
@pytest.mark.timeout(900)  # seven commands, one after another, on a machine that may be busy
def test_the_workflow_for_real(runner: Runner) -> None:
    """Measured, exported, decided, signed: with what the workflow says and nothing else."""
    (runner.folder / "matrix.yaml").write_text(SMALL)
    make_key(runner.temp / "secret", "release")
    runner.environment["HEAPGATE_STATE"] = str(runner.temp / "state")
    secret = (runner.temp / "secret").read_text()
    done = runner.github(text_of("github", PROJECT), {"HEAPGATE_SIGNING_KEY": secret.rstrip("\n")})
    assert done.failed in ("", "Decide and sign"), done.text
    out = runner.temp / "heapgate" / "out"
    record = json.loads((out / "signoff.json").read_text())
    # A machine that is too busy spoils the trial; then it is a NO-GO, and rightly so.
    assert (record["decision"] == "GO") == (done.failed == ""), done.text
    summary = (runner.temp / "GITHUB_STEP_SUMMARY").read_text()
    assert summary.startswith(("### ✅ GO", "### ❌ NO-GO"))
    assert (out / "signoff.md").read_text() == summary
    archive = runner.temp / "elsewhere"
    public = f"--public-key={runner.temp / 'secret.pub'}"
    script = (
        f"bench import {out / 'run.tar.zst'} --archive {archive} && "
        f"bench verify {out / 'signoff.json'} --archive {archive} {public}"
    )
    verified = runner.shell(script, "sh", "-ec")
    assert verified.returncode == 0, verified.stdout + verified.stderr


def test_the_docs_show_what_is_written() -> None:
    page = (DOCS / "pipeline.md").read_text()
    for target, project in (("github", PROJECT), ("gitlab", PROJECT), ("container", PROJECT)):
        text = text_of(target, project)
        assert text in page, f"docs/pipeline.md shows another {target} than is written"
    for step in steps_left("github", PROJECT, [str(GITHUB)]):
        assert f". {step}\n" in page
    jenkins = page[page.index("pipeline {") :]
    for script in ("Measure", "Decide and sign"):
        steps = yaml.safe_load(text_of("github", PROJECT))["jobs"]["heapgate"]["steps"]
        (shell,) = [s["run"] for s in steps if s.get("name") == script]
        for line in shell.splitlines():
            if line.lstrip().startswith(("bench", "[", "-o")):
                own = line.strip().replace(" --format github", "")
                assert own in jenkins, own
    assert str(CONTAINER) in page

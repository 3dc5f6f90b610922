"""Revisions of a service: built beside each other; nothing of the user's repository is touched."""

from __future__ import annotations

import io
import json
import subprocess
from pathlib import Path

import pytest
from rich.console import Console

from orchestrator.bisect.revisions import repository_of, required_repository, source_commit
from orchestrator.builds.binaries import prepare_binaries, sources_of
from orchestrator.matrix.matrix import MatrixError, load_matrix
from orchestrator.progress import PlainProgress
from results.errors import UserError
from tests.orchestrator.gitservice import GitService, seven_commits

BOTH = """\
  before: {baseline: true, go: "1.23", git: main~2, build: {trimpath: true}}
  after: {go: "1.23", git: main, build: {trimpath: true}}
  here: {go: "1.23", build: {trimpath: true}}"""


@pytest.fixture
def service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> GitService:
    monkeypatch.setenv("HEAPGATE_CACHE", str(tmp_path / "cache"))
    return seven_commits(tmp_path / "repo")


def test_a_revision_is_checked_out_whole_and_the_users_repository_stays(
    service: GitService,
) -> None:
    (service.root / ".gitattributes").write_text("README export-ignore\n")
    with_all = service.commit("attributes")
    service.write(99)
    service.git("add", "--all")
    (service.source / "new.txt").write_text("not added\n")
    before = service.state()
    repository = required_repository(service.source)
    found = repository.source(with_all)
    assert found.name == "holder"
    assert (found.parents[1] / "README").read_text() == "what it is\n"
    assert "24" in (found / "main.go").read_text()
    assert repository.source(service.commits["first"]) != found
    assert "8" in (repository.source(service.commits["first"]) / "main.go").read_text()
    assert service.state() == before


def test_the_commit_of_a_work_tree_says_when_files_differ(service: GitService) -> None:
    head = service.commits["six"]
    assert source_commit(service.source) == head
    (service.root / "README").write_text("elsewhere in the repository\n")
    assert source_commit(service.source) == head
    service.write(1)
    assert source_commit(service.source) == f"{head}-dirty"


def test_a_folder_without_git_has_no_commit(tmp_path: Path) -> None:
    assert repository_of(tmp_path) is None
    assert source_commit(tmp_path) is None
    with pytest.raises(UserError, match="no git repository"):
        required_repository(tmp_path)


def test_the_line_of_first_parents_takes_a_merge_as_one(service: GitService) -> None:
    good = service.commits["six"]
    service.git("checkout", "--quiet", "-b", "side")
    side = service.commit("aside")
    service.git("checkout", "--quiet", "main")
    service.commit("ahead")
    service.git("merge", "--quiet", "--no-ff", "-m", "merge", "side")
    repository = required_repository(service.source)
    head = repository.resolve("main")
    assert [c.subject for c in repository.first_parents(good, head)] == ["ahead", "merge"]
    for wrong in (side, head):
        with pytest.raises(UserError, match="line of first parents"):
            repository.first_parents(wrong, head)


def test_a_name_that_is_none_is_told_at_its_place(service: GitService, tmp_path: Path) -> None:
    repository = required_repository(service.source)
    for name in ("v9", "--all", "", "HEAD:README"):
        with pytest.raises(UserError, match="no revision"):
            repository.resolve(name)
    path = service.matrix(tmp_path, BOTH.replace("main~2", "v9"))
    with pytest.raises(MatrixError, match=r"matrix\.yaml:6:\d+: there is no revision 'v9'"):
        load_matrix(path)


def test_only_what_is_built_has_revisions(tmp_path: Path) -> None:
    path = tmp_path / "matrix.yaml"
    path.write_text(
        "service: {command: [sleep], port: 80}\n"
        "configurations: {a: {baseline: true}, b: {git: v1}}\n"
        "workloads: {w: {scenario: cache_mix, users: 1}}\n"
    )
    with pytest.raises(MatrixError, match="only a service with `go:` is built"):
        load_matrix(path)


def test_configurations_are_built_from_their_revisions_and_say_so(
    service: GitService, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HEAPGATE_CACHE")  # the toolchain is there
    matrix = load_matrix(service.matrix(tmp_path, BOTH))
    before = service.state()
    out = io.StringIO()
    built = prepare_binaries(matrix, PlainProgress(Console(file=out))).to_plain()
    assert built["before"]["commit"] == service.commits["four"]
    assert built["after"]["commit"] == built["here"]["commit"] == service.commits["six"]
    digests = {name: build["sha256"] for name, build in built.items()}
    assert digests["before"] != digests["after"]
    # The same source builds to the same program, wherever it lies.
    assert digests["after"] == digests["here"]
    assert service.state() == before
    json.dumps(built)


def test_a_commit_without_the_folder_is_told(service: GitService, tmp_path: Path) -> None:
    other = GitService(tmp_path / "other")
    other.root.mkdir()
    other.git("init", "--quiet", "--initial-branch=main", ".")
    empty = other.commit("nothing yet")
    other.source.mkdir(parents=True)
    (other.source / "go.mod").write_text("module example.org/holder\n\ngo 1.21\n")
    other.write(1)
    other.commit("begins")
    path = other.matrix(tmp_path, BOTH.replace("main~2", empty))
    with pytest.raises(MatrixError, match="has no folder cmd/holder"):
        sources_of(load_matrix(path))


def test_an_axis_of_revisions(service: GitService, tmp_path: Path) -> None:
    text = '  default: {baseline: true, go: "1.23"}\n'
    path = service.matrix(tmp_path, text, extra="axes: {git: [main~2, main]}\n")
    matrix = load_matrix(path)
    assert [c.git for c in matrix.configurations.values()] == [None, "main~2", "main"]


def test_gits_own_variables_do_not_lead_elsewhere(
    service: GitService, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a hook, where GIT_DIR and GIT_INDEX_FILE are set."""
    subprocess.run(["git", "init", "--quiet", str(tmp_path / "else")], check=True)
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "else" / ".git"))
    monkeypatch.setenv("GIT_INDEX_FILE", str(tmp_path / "else" / "index"))
    assert source_commit(service.source) == service.commits["six"]
    assert required_repository(service.source).source(service.commits["first"]).is_dir()
    assert not (tmp_path / "else" / "index").exists()

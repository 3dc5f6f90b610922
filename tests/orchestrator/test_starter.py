"""`bench init` writes a matrix that `bench plan` accepts for an ordinary Go service."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.matrix.starter import main_packages, write_starter_matrix
from results.errors import UserError


@pytest.fixture
def service(tmp_path: Path) -> Path:
    folder = tmp_path / "My Service"
    (folder / "cmd" / "server").mkdir(parents=True)
    (folder / "go.mod").write_text("module example.org/my\n\ngo 1.24\n")
    (folder / "lib.go").write_text("package my\n")
    (folder / "cmd" / "server" / "main.go").write_text("package main\n\nfunc main() {}\n")
    return folder


def test_the_written_matrix_is_valid_and_names_the_program(service: Path, tmp_path: Path) -> None:
    from orchestrator.matrix.matrix import load_matrix
    from orchestrator.plan import make_plan

    target = tmp_path / "matrix.yaml"
    assert write_starter_matrix(service, target) == tmp_path / "scenario.py"
    matrix = load_matrix(target)
    assert matrix.service.name == "my-service"
    assert len(make_plan(matrix).trials) == 12
    assert "./cmd/server" in target.read_text()
    assert 'go: "1.24"' in target.read_text(), "a module can't be built by an older Go"


def test_tests_and_vendored_programs_are_not_the_service(service: Path) -> None:
    (service / "vendor" / "x").mkdir(parents=True)
    (service / "vendor" / "x" / "main.go").write_text("package main\n")
    (service / "a_test.go").write_text("package main\n")
    assert main_packages(service) == ["./cmd/server"]


def test_an_existing_matrix_is_never_overwritten(service: Path, tmp_path: Path) -> None:
    target = tmp_path / "matrix.yaml"
    target.write_text("mine")
    with pytest.raises(UserError, match="already"):
        write_starter_matrix(service, target)
    assert target.read_text() == "mine"


def test_a_folder_without_a_module_is_the_users_mistake(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"go\.mod"):
        write_starter_matrix(tmp_path, tmp_path / "matrix.yaml")


def test_ones_own_scenario_is_kept(service: Path, tmp_path: Path) -> None:
    (tmp_path / "scenario.py").write_text("# mine")
    assert write_starter_matrix(service, tmp_path / "matrix.yaml") is None
    assert (tmp_path / "scenario.py").read_text() == "# mine"

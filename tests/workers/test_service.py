"""The service: how it is deployed, described to its launcher, and explained when it ends."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import socket
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from results.errors import EnvironmentLacks, UserError
from workers.launch.linux import UNPRIVILEGED_ID, exit_cause, launcher_document
from workers.limits.none import NoLimits
from workers.service import HOST, Deployment, Service, ServiceFailed, deploy
from workers.spec import BinarySpec, ServiceSpec

TRUE = Path(shutil.which("true") or "/bin/true").resolve()
PLAIN_TEXT = st.text(st.characters(exclude_characters="{}\0", exclude_categories=["Cs"]))
DEPLOYMENT = Deployment("/srv/shop", Path("/srv/home"), 8123)


def service_spec(
    binary: BinarySpec | None = None,
    *,
    arguments: tuple[str, ...] = (),
    environment: tuple[tuple[str, str], ...] = (),
    port: int | None = None,
) -> ServiceSpec:
    return ServiceSpec(
        name="shop",
        binary=binary or binary_spec(TRUE),
        arguments=arguments,
        environment=environment,
        port=port,
        ready_path="/healthz",
        ready_timeout_ns=1_000_000_000,
        stop_timeout_ns=1_000_000_000,
        go_runtime=False,
    )


def binary_spec(path: Path) -> BinarySpec:
    content = path.read_bytes()
    return BinarySpec(
        argv0=str(path),
        copy=True,
        sha256=hashlib.sha256(content).hexdigest(),
        size_bytes=len(content),
    )


def test_places_are_filled_in_arguments_and_environment() -> None:
    spec = service_spec(
        arguments=("-addr", "{host}:{port}", "-self=http://{host}:{port}/"),
        environment=(("PORT", "{port}"), ("EMPTY", "")),
    )
    document = launcher_document(spec, DEPLOYMENT, (), ())
    address = f"{HOST}:8123"
    assert document["argv"] == ["/srv/shop", "-addr", address, f"-self=http://{address}/"]
    assert document["env"] == ["PORT=8123", "EMPTY="]


@given(arguments=st.lists(PLAIN_TEXT), values=st.lists(PLAIN_TEXT))
def test_all_other_text_travels_unchanged(arguments: list[str], values: list[str]) -> None:
    environment = tuple((f"NAME{number}", value) for number, value in enumerate(values))
    spec = service_spec(arguments=tuple(arguments), environment=environment)
    document = json.loads(json.dumps(launcher_document(spec, DEPLOYMENT, (), ())))
    assert document["argv"] == ["/srv/shop", *arguments]
    assert document["env"] == [f"{name}={value}" for name, value in environment]


def test_nothing_of_our_own_environment_is_handed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOMEMLIMIT", "1MiB")
    assert launcher_document(service_spec(), DEPLOYMENT, (), ())["env"] == []


def test_cores_groups_and_folder_are_named() -> None:
    groups = ("/sys/fs/cgroup/memory/x/cgroup.procs", "/sys/fs/cgroup/cpu/x/cgroup.procs")
    document = launcher_document(service_spec(), DEPLOYMENT, groups, (1, 3))
    assert (document["join"], document["cpus"]) == (list(groups), [1, 3])
    assert document["dir"] == "/srv/home"


@pytest.mark.parametrize(("we_are", "service_is"), [(0, UNPRIVILEGED_ID), (1000, None)])
def test_only_root_changes_the_services_user(
    monkeypatch: pytest.MonkeyPatch, we_are: int, service_is: int | None
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: we_are)
    document = launcher_document(service_spec(), DEPLOYMENT, (), ())
    assert document["uid"] == document["gid"] == service_is


def test_a_deployed_program_is_an_executable_copy(tmp_path: Path) -> None:
    deployment = deploy(service_spec(), tmp_path)
    program = Path(deployment.program)
    assert program.parent == tmp_path
    assert program.read_bytes() == TRUE.read_bytes()
    assert os.access(program, os.X_OK)
    assert deployment.base_url == f"http://{HOST}:{deployment.port}"


@pytest.mark.skipif(os.geteuid() != 0, reason="the service has a user of its own only under root")
def test_the_service_owns_its_home_but_not_its_program(tmp_path: Path) -> None:
    deployment = deploy(service_spec(), tmp_path)
    assert deployment.folder.stat().st_uid == UNPRIVILEGED_ID
    program = Path(deployment.program).stat()
    assert program.st_uid == 0
    assert not program.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def test_a_changed_program_is_not_deployed(tmp_path: Path) -> None:
    binary = BinarySpec(argv0=str(TRUE), copy=True, sha256="0" * 64, size_bytes=1)
    with pytest.raises(EnvironmentLacks, match="changed after it was planned"):
        deploy(service_spec(binary), tmp_path)


def test_a_program_that_is_gone_is_named(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    binary = BinarySpec(argv0=str(gone), copy=True, sha256="0" * 64, size_bytes=1)
    with pytest.raises(EnvironmentLacks, match=str(gone)):
        deploy(service_spec(binary), tmp_path)


def test_a_command_is_looked_up_and_not_copied(tmp_path: Path) -> None:
    binary = BinarySpec(argv0="true", copy=False, sha256="", size_bytes=0)
    assert deploy(service_spec(binary), tmp_path).program == shutil.which("true")


def test_a_command_that_is_not_on_the_path_is_named(tmp_path: Path) -> None:
    binary = BinarySpec(argv0="no-such-command", copy=False, sha256="", size_bytes=0)
    with pytest.raises(EnvironmentLacks, match="'no-such-command' is not on"):
        deploy(service_spec(binary), tmp_path)


def test_a_taken_port_is_named(tmp_path: Path) -> None:
    with socket.create_server((HOST, 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=f"port {port} .* already used"):
            deploy(service_spec(port=port), tmp_path)


def test_a_launcher_that_ends_without_a_word_is_a_failed_start(tmp_path: Path) -> None:
    spec = service_spec()
    deployment = deploy(spec, tmp_path)
    with pytest.raises(ServiceFailed, match="the launcher said nothing") as failed:
        Service(spec, deployment, launcher=TRUE, limiter=NoLimits("not used here"), cores=())
    assert failed.value.cause == "start_failed"


@pytest.mark.parametrize(
    ("code", "number", "stopping", "fatal", "oom_kills", "cause"),
    [
        (None, signal.SIGKILL, None, None, 1, "oom_kill"),
        (None, signal.SIGKILL, "killed", None, 2, "oom_kill"),
        (None, signal.SIGKILL, "killed", None, 0, "killed"),
        (None, signal.SIGKILL, None, None, 0, "crashed"),
        (2, None, None, "fatal error: runtime: out of memory", 0, "go_out_of_memory"),
        (2, None, None, "panic: assignment to entry in nil map", 0, "crashed"),
        (0, None, "stopped", None, 0, "stopped"),
        (None, signal.SIGTERM, "stopped", None, 0, "stopped"),
        (3, None, None, None, 0, "exited"),
        (3, None, None, None, 1, "exited"),
        (None, None, None, None, 0, "crashed"),
    ],
)
def test_the_end_of_a_service_has_one_cause(
    code: int | None,
    number: int | None,
    stopping: str | None,
    fatal: str | None,
    oom_kills: int,
    cause: str,
) -> None:
    found, _ = exit_cause(code, number, stopping=stopping, fatal=fatal, oom_kills=oom_kills)
    assert found == cause


def test_the_text_of_an_end_names_what_a_person_looks_for() -> None:
    def text(code: int | None, number: int | None, oom_kills: int = 0) -> str:
        return exit_cause(code, number, stopping=None, fatal=None, oom_kills=oom_kills)[1]

    assert "exit code 3" in text(3, None)
    assert "SIGSEGV" in text(None, signal.SIGSEGV)
    assert "signal 63" in text(None, 63)
    assert "2 OOM kills" in text(None, signal.SIGKILL, oom_kills=2)

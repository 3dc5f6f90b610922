"""What a service on Windows is told, and how its end is explained; starting one: tests/wine."""

from __future__ import annotations

from pathlib import Path

import pytest

from workers.facts_windows import edition
from workers.launch.windows import environment_block, exit_cause

HOME = Path("C:/run/home")
NODE = {"SYSTEMROOT": r"C:\WINDOWS", "USERNAME": "somebody", "GOMEMLIMIT": "1MiB", "PATH": "D:\\"}
VIRTUAL_ALLOC = "runtime: VirtualAlloc of 4194304 bytes failed with errno="


def test_a_service_gets_what_windows_needs_and_nothing_of_the_node_s_own() -> None:
    block = environment_block([("GOGC", "30")], NODE, HOME)
    assert block == {
        "GOGC": "30",
        "PATH": r"C:\WINDOWS\system32;C:\WINDOWS",
        "SystemDrive": "C:",
        "SystemRoot": r"C:\WINDOWS",
        "TEMP": str(HOME),
        "TMP": str(HOME),
    }
    assert [name.upper() for name in block] == sorted(name.upper() for name in block)


def test_what_was_asked_for_wins_whatever_its_case() -> None:
    block = environment_block([("Path", "E:\\tools"), ("tmp", "F:\\")], NODE, HOME)
    assert block["Path"] == "E:\\tools" and block["tmp"] == "F:\\"
    assert not {"PATH", "TMP"} & set(block)


@pytest.mark.parametrize(
    ("code", "stopping", "fatal", "cause"),
    [
        (2, None, f"{VIRTUAL_ALLOC}1455", "commit_refused"),
        (2, "stopped", f"{VIRTUAL_ALLOC}1455", "commit_refused"),
        (2, None, f"{VIRTUAL_ALLOC}8", "go_out_of_memory"),
        (2, None, "fatal error: runtime: out of memory", "go_out_of_memory"),
        (0xC0000005, None, None, "access_violation"),
        (2, None, "Exception 0xc0000005 0x0 0x0 0x7ffd", "access_violation"),
        (1, "killed", None, "killed"),
        (0, "stopped", None, "stopped"),
        (0xC000013A, "stopped", None, "stopped"),
        (2, None, "panic: assignment to entry in nil map", "crashed"),
        (0xC00000FD, None, None, "crashed"),
        (None, None, None, "crashed"),
        (3, None, None, "exited"),
    ],
)
def test_the_end_of_a_service_has_one_cause(
    code: int | None, stopping: str | None, fatal: str | None, cause: str
) -> None:
    assert exit_cause(code, stopping=stopping, unasked="", fatal=fatal)[0] == cause


def test_the_text_of_an_end_names_what_a_person_looks_for() -> None:
    def text(code: int, stopping: str | None = None, unasked: str = "") -> str:
        return exit_cause(code, stopping=stopping, unasked=unasked, fatal=None)[1]

    assert "exit code 3" in text(3)
    assert "0xc00000fd" in text(0xC00000FD)
    assert "could not be asked first: no console" in text(1, "stopped", "no console")


@pytest.mark.parametrize(
    ("product", "release", "build", "want"),
    [
        ("Windows 10 Pro", "22H2", 19045, "Windows 10 Pro 22H2"),
        ("Windows 10 Pro", "23H2", 22631, "Windows 11 Pro 23H2"),
        ("Windows Server 2022 Datacenter", "21H2", 20348, "Windows Server 2022 Datacenter 21H2"),
        ("Microsoft Windows 10", None, 18362, "Microsoft Windows 10"),
        (None, None, 0, None),
    ],
)
def test_the_edition(product: object, release: object, build: int, want: str | None) -> None:
    assert edition(product, release, build) == want

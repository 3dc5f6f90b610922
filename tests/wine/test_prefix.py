"""The Windows machines that other tests rely on are what they are said to be."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from orchestrator import cache
from results.errors import EnvironmentLacks
from tests.wine import prefix
from tests.wine.machine import WindowsPython, windows_path


def test_conditions_of_the_lock_are_asked_about_windows() -> None:
    lock = """\
# made by a tool
colorama==0.4.6 ; sys_platform == 'win32'
    # via typer
uvloop==0.22 ; sys_platform != 'win32'
numpy==2.4.6 ; python_full_version < '3.12'
numpy==2.5.5 ; python_full_version >= '3.12'
ray==2.60.0
"""
    wanted = ["colorama==0.4.6", "numpy==2.4.6", "ray==2.60.0"]
    assert prefix.locked_requirements(lock) == wanted


def test_a_missing_wine_is_a_skip_with_its_reason_and_a_failure_in_ci(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(prefix, "wine_program", lambda _name: None)
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match="apt install wine"):
        prefix.need_wine()
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="apt install wine"):
        prefix.need_wine()
    with pytest.raises(EnvironmentLacks, match="apt install wine"):
        prefix.template()


@pytest.mark.skipif(os.environ.get("CI") != "true", reason="a user's machine may have no Wine")
def test_ci_has_wine() -> None:
    assert prefix.why_unavailable() is None


def test_an_interrupted_build_leaves_nothing_that_would_be_used(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def broken(scratch: Path) -> Path:
        (scratch / "prefix").mkdir()
        raise KeyboardInterrupt

    prefix.need_wine()
    monkeypatch.setenv("HEAPGATE_CACHE", str(tmp_path))
    monkeypatch.setattr(prefix, "_build", broken)
    with pytest.raises(KeyboardInterrupt):
        prefix.template()
    assert list((tmp_path / "wine" / "templates").iterdir()) == []
    assert list((tmp_path / "scratch").iterdir()) == []


@pytest.mark.slow
def test_python_is_windows_own_with_the_checkout_installed(
    machine: WindowsPython,
) -> None:
    script = (
        "import sys, platform, orchestrator; from importlib.metadata import version; "
        "print(sys.platform, platform.release(), version('heapgate'), orchestrator.__file__)"
    )
    said = machine.run(["-c", script]).stdout.split()
    checkout = prefix.ROOT / "orchestrator" / "__init__.py"
    assert said[:2] == ["win32", "10"]
    assert said[3] == windows_path(checkout)


@pytest.mark.slow
def test_complex_functions_that_wine_lacks_answer_as_this_machines_do(
    machine: WindowsPython,
) -> None:
    script = (
        "import numpy as np\n"
        "for kind in (np.complex64, np.complex128, np.clongdouble):\n"
        "    z = np.array([1 + 2j, -3 + 0.5j, 0.1 - 7j], dtype=kind)\n"
        "    for f in (np.exp, np.sin, np.tan, np.cosh, np.sqrt, np.angle, np.abs):\n"
        "        print(*(f'{x.real:.4g} {x.imag:.4g}' for x in f(z)))\n"
        "    print(*(f'{x.real:.4g} {x.imag:.4g}' for x in z ** (1 + 1j)))\n"
    )
    here = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert machine.run(["-c", script]).stdout == here.stdout


@pytest.mark.slow
def test_kill_ends_what_a_machine_started_and_no_other_machine() -> None:
    prefix.need_wine()
    sleep = "import subprocess, sys, time; print('up', flush=True); time.sleep(100)"
    parent = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {sleep!r}]).wait()"
    with prefix.windows_python() as one, prefix.windows_python() as other:
        first, second = one.popen(["-c", parent]), other.popen(["-c", parent])
        for process in (first, second):
            assert process.stdout
            assert process.stdout.readline().strip() == b"up"
        one.kill()
        first.wait(timeout=10)
        assert running_in(one) == []
        assert second.poll() is None
        assert len(running_in(other)) >= 2
    second.wait(timeout=10)
    assert not one.prefix.exists()


@pytest.mark.slow
def test_machines_of_killed_tests_are_ended_and_removed() -> None:
    prefix.need_wine()
    script = (
        "import os, signal\n"
        "from tests.wine.prefix import windows_python\n"
        "with windows_python() as machine:\n"
        "    machine.popen(['-c', 'import time; time.sleep(100)'])\n"
        "    machine.run(['-c', ''])\n"
        "    print(machine.prefix, flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=prefix.ROOT,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        check=False,
    )
    abandoned = WindowsPython(Path(done.stdout.strip()))
    assert abandoned.prefix.parent == cache.root() / "wine" / "machines"
    assert running_in(abandoned)
    with prefix.windows_python():
        assert running_in(abandoned) == []
        assert not abandoned.prefix.exists()


def running_in(machine: WindowsPython) -> list[str]:
    """The command lines of what runs in a prefix."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("WINEPREFIX") == str(machine.prefix):
                found.append(" ".join(process.cmdline()))
        except psutil.Error:
            continue
    return found

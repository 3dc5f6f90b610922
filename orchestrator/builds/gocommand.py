"""The `go` command, run so that only what is asked for has an influence."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator import cache
from orchestrator.builds.toolchains import Toolchain
from results.errors import EnvironmentLacks, UserError
from results.files import file_digest

# Where the user gets modules from, and how: kept, because without it private modules can't build.
_MODULE_SETTINGS = ("GOPROXY", "GONOPROXY", "GOPRIVATE", "GOSUMDB", "GONOSUMDB", "GOINSECURE")
_NETWORK = ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR", "GOAUTH")
_C_COMPILER = ("CC", "CXX", "AR", "PKG_CONFIG", "PKG_CONFIG_PATH")
_C_FLAGS = ("CGO_CFLAGS", "CGO_CPPFLAGS", "CGO_CXXFLAGS", "CGO_LDFLAGS")
_FILE_LISTS = (
    *("GoFiles", "CgoFiles", "CFiles", "CXXFiles", "MFiles", "HFiles", "FFiles", "SFiles"),
    *("SwigFiles", "SwigCXXFiles", "SysoFiles", "EmbedFiles"),
)
_LISTED = ",".join(("Dir", "ImportPath", "Name", "Standard", "DepOnly", "Module", *_FILE_LISTS))
_OFFLINE = re.compile(r"dial tcp|no such host|TLS handshake|module lookup disabled|proxyconnect")
_NO_COMPILER = re.compile(r'C compiler "[^"]*" not found|exec: "(gcc|cc|clang)[^"]*": executable')


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildFlags:
    """How to build: the flags of `go build` that may change what runs.

    `pgo` is `auto`, `off` or the path of a profile; `experiment` are names for GOEXPERIMENT.
    """

    ldflags: str = ""
    trimpath: bool = False
    tags: tuple[str, ...] = ()
    gcflags: str = ""
    cgo: bool = False
    race: bool = False
    pgo: str | None = None
    experiment: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.race and not self.cgo:
            raise UserError("build: `race: true` needs `cgo: true` too: the detector is C code")

    def arguments(self) -> list[str]:
        """The arguments for `go build` and `go list`."""
        chosen = [
            ("-trimpath", self.trimpath),
            ("-race", self.race),
            (f"-ldflags={self.ldflags}", self.ldflags),
            (f"-gcflags={self.gcflags}", self.gcflags),
            (f"-tags={','.join(self.tags)}", self.tags),
            (f"-pgo={self.pgo}", self.pgo),
        ]
        return ["-buildvcs=false", *(text for text, wanted in chosen if wanted)]

    def described(self) -> tuple[str, ...]:
        """The flags for the record: those given, and what is set through the environment."""
        experiment = (f"GOEXPERIMENT={','.join(self.experiment)}",) if self.experiment else ()
        return (*self.arguments(), f"CGO_ENABLED={int(self.cgo)}", *experiment)


@dataclass(frozen=True, slots=True)
class Target:
    """What the binary is for, in Go's words: `linux`, `amd64`."""

    goos: str
    goarch: str


@dataclass(frozen=True, slots=True)
class Inputs:
    """What goes into one build; `key` is the SHA-256 over all of it."""

    key: str
    folder: Path
    package: str
    binary_name: str


def recorded_settings(flags: BuildFlags, target: Target) -> dict[str, str | None]:
    """What `go version -m` must say of a binary that was built with these flags.

    Go leaves `-ldflags` out of the record under `-trimpath` (they may hold paths).
    """
    linker = {} if flags.trimpath else {"-ldflags": flags.ldflags or None}
    return linker | {
        "-trimpath": "true" if flags.trimpath else None,
        "-race": "true" if flags.race else None,
        "-gcflags": flags.gcflags or None,
        "-tags": ",".join(flags.tags) or None,
        "CGO_ENABLED": str(int(flags.cgo)),
        "GOOS": target.goos,
        "GOARCH": target.goarch,
    }


class GoCommand:
    """`go list` and `go build` with one toolchain, one set of flags and one target."""

    def __init__(
        self, toolchain: Toolchain, flags: BuildFlags, target: Target, scratch: Path
    ) -> None:
        self._toolchain = toolchain
        self._flags = flags
        self._environment = _environment(toolchain, flags, target, scratch)
        self._target = target

    def inputs(self, source: Path, package: str) -> Inputs:
        """All that goes into the build of the one `main` package meant.

        Raises UserError when there is no such package, or when Go can't tell what belongs to it.
        """
        folder = _existing(source)
        listing = ["list", "-deps", f"-json={_LISTED}", *self._arguments(), "--", package]
        packages = list(_json_documents(self._run(listing, folder)))
        meant = [p for p in packages if not p.get("DepOnly")]
        if [p.get("Name") for p in meant] != ["main"]:
            names = ", ".join(f"{p['ImportPath']} (package {p.get('Name')})" for p in meant)
            raise UserError(
                f"{folder}: {package!r} must be one package main, but it is: {names or 'nothing'}"
            )
        key = self._key(folder, meant[0], packages)
        name = meant[0]["ImportPath"].rsplit("/", 1)[-1]
        return Inputs(key, folder, package, name + (".exe" * (self._target.goos == "windows")))

    def build(self, inputs: Inputs, binary: Path) -> None:
        """Compile and link into `binary`, in a folder made for it."""
        with cache.explained("writing to"):
            binary.parent.mkdir(parents=True)
        self._run(
            ["build", *self._arguments(), "-o", str(binary), "--", inputs.package], inputs.folder
        )

    def _arguments(self) -> list[str]:
        return [*self._flags.arguments(), "-modcacherw"]  # else only root could clean the cache

    def _key(self, folder: Path, main: dict[str, Any], packages: list[dict[str, Any]]) -> str:
        own = [p for p in packages if not p.get("Standard")]
        roots = _module_roots(own)
        parts = [
            {p["ImportPath"]: _package_digests(p) for p in own},
            {str(n): _module_digests(root) for n, root in enumerate(roots)},
            self._profile_digest(folder, Path(main["Dir"])),
            self._toolchain.digest,
            self._toolchain.version,
            self._flags.described(),
            [self._target.goos, self._target.goarch],
            self._compiler_environment(),
        ]
        if not self._flags.trimpath:  # then the binary holds the paths of what it is made from
            parts.append([str(self._toolchain.goroot), str(main["Dir"]), *map(str, roots)])
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    def _profile_digest(self, folder: Path, package: Path) -> str | None:
        """Digest of the profile that guides the compiler: the one named, or `default.pgo`."""
        if self._flags.pgo == "off":
            return None
        named = self._flags.pgo not in (None, "auto")
        path = folder / str(self._flags.pgo) if named else package / "default.pgo"
        return file_digest(path) if path.is_file() else None

    def _compiler_environment(self) -> dict[str, str]:
        """What the C compiler sees; nothing without cgo."""
        names = ("PATH", *_C_COMPILER, *_C_FLAGS) if self._flags.cgo else ()
        return {name: self._environment[name] for name in names if name in self._environment}

    def _run(self, arguments: list[str], folder: Path) -> str:
        done = subprocess.run(
            [self._toolchain.go, *arguments],
            cwd=folder,
            env=self._environment,
            capture_output=True,
            text=True,
            errors="replace",
            stdin=subprocess.DEVNULL,
            check=False,
        )
        if done.returncode != 0:
            raise _failure(done.stderr or done.stdout, folder, self._toolchain.version)
        return done.stdout


def _failure(words: str, folder: Path, version: str) -> UserError | EnvironmentLacks:
    """Whose turn it is, with Go's own words."""
    told = "\n".join(line for line in words.strip().splitlines() if "go: downloading" not in line)
    if "no space left on device" in words:
        return EnvironmentLacks(
            f"the disk is full while building {folder}: free some space, or set HEAPGATE_CACHE "
            f"to a folder elsewhere\n{told}"
        )
    if _NO_COMPILER.search(words):
        return EnvironmentLacks(
            f"building {folder} with cgo needs a C compiler: install gcc, or build without cgo\n"
            f"{told}"
        )
    if _OFFLINE.search(words):
        return EnvironmentLacks(
            f"building {folder} needs modules that can't be fetched: check the network and "
            f"GOPROXY, or run `go mod vendor` in the source\n{told}"
        )
    return UserError(f"{folder} does not build with Go {version}:\n{told}")


def _existing(source: Path) -> Path:
    folder = source.expanduser().absolute()
    if not folder.is_dir():
        raise UserError(f"Go source {folder}: there is no such folder")
    if not any((parent / "go.mod").is_file() for parent in (folder, *folder.parents)):
        raise UserError(
            f"Go source {folder} has no go.mod, nor has any folder above it: run "
            "`go mod init NAME` in it"
        )
    return folder


def _environment(
    toolchain: Toolchain, flags: BuildFlags, target: Target, scratch: Path
) -> dict[str, str]:
    """The whole environment of the go command: what is not named here is not there."""
    kept = _NETWORK + (_C_COMPILER + _C_FLAGS if flags.cgo else ())
    environment = {k: v for k, v in os.environ.items() if k.upper() in kept}
    environment |= _module_settings(toolchain) | _credentials()
    environment |= {
        "PATH": os.environ.get("PATH", os.defpath),
        "HOME": str(cache.folder("go", "home")),
        "GOROOT": str(toolchain.goroot),
        "GOTOOLCHAIN": "local",
        "GOENV": "off",
        "GOWORK": "off",
        "GO111MODULE": "on",
        "GOCACHE": str(cache.folder("go", "build")),
        "GOPATH": str(cache.folder("go", "path")),
        "GOMODCACHE": str(cache.folder("go", "modules")),
        "GOTMPDIR": str(scratch),
        "TMPDIR": str(scratch),
        "GOOS": target.goos,
        "GOARCH": target.goarch,
        "CGO_ENABLED": str(int(flags.cgo)),
    }
    if flags.experiment:
        environment["GOEXPERIMENT"] = ",".join(flags.experiment)
    return environment


def _module_settings(toolchain: Toolchain) -> dict[str, str]:
    """Where the user gets modules from, whether from the environment or from `go env -w`."""
    environment = dict(os.environ, GOTOOLCHAIN="local", GOWORK="off")
    done = subprocess.run(
        [toolchain.go, "env", "-json", *_MODULE_SETTINGS],
        env=environment,
        cwd=toolchain.goroot,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        check=False,
    )
    told: dict[str, str] = json.loads(done.stdout) if done.returncode == 0 else {}
    return {name: value for name, value in told.items() if value}


def _credentials() -> dict[str, str]:
    """Private modules need the user's netrc and git settings, though not the rest of the home."""
    home = Path(os.environ.get("HOME", "/nonexistent"))
    files = {"NETRC": home / ".netrc", "GIT_CONFIG_GLOBAL": home / ".gitconfig"}
    return {name: str(path) for name, path in files.items() if path.is_file()}


def _package_digests(package: dict[str, Any]) -> dict[str, str]:
    """File name → SHA-256 for all files that Go compiles or embeds."""
    names = sorted({name for kind in _FILE_LISTS for name in package.get(kind, ())})
    return {name: file_digest(Path(package["Dir"], name)) for name in names}


def _module_roots(packages: list[dict[str, Any]]) -> list[Path]:
    """The folders of all modules that take part: the main one, and those that replace others."""
    named = [p.get("Module", {}).get("GoMod") for p in packages]
    return sorted({Path(path).parent for path in named if path})


def _module_digests(root: Path) -> dict[str, str]:
    """Digests of go.mod (its `go` line and `godebug` lines change how it runs) and go.sum."""
    names = ("go.mod", "go.sum", "vendor/modules.txt")
    return {name: file_digest(root / name) for name in names if (root / name).is_file()}


def _json_documents(text: str) -> Iterator[dict[str, Any]]:
    """The objects of a stream of JSON documents, one after the other."""
    decoder = json.JSONDecoder()
    at = 0
    while at < len(text.rstrip()):
        document, end = decoder.raw_decode(text, at)
        yield document
        at = end + 1

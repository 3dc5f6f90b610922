"""Runs in one file, to be moved or put away: a tar of plain copies, compressed or not.

What is packed may come from anybody: members are unpacked by their names alone, below one folder.
A link, a device, a path that leads out of it, or the same path twice makes the whole pack refused.
"""

from __future__ import annotations

import lzma
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, Final

import pyarrow as pa

from results.archive.archive import PARTIAL, RunEntry
from results.errors import EnvironmentLacks, UserError

TAR: Final = ".tar"
ZSTD: Final = ".tar.zst"
_ZSTD_MAGIC: Final = b"\x28\xb5\x2f\xfd"
_DEPTH_MAX: Final = 6
_FREE_BYTES: Final = 64 * 2**20
"""So much stays free on the disk, whatever a pack claims to hold."""

_UNREADABLE: Final = (
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    pa.ArrowException,
    NotImplementedError,
    RuntimeError,
    ValueError,
)


def is_pack(name: str) -> bool:
    """Whether runs are packed under this name."""
    return name.endswith((TAR, ZSTD))


def pack_runs(runs: Iterable[RunEntry], target: Path) -> None:
    """Write a tar of these runs, compressed when it ends in `.zst`. Raises OSError."""
    with target.open("wb") as file:
        if target.name.endswith(ZSTD):
            with pa.CompressedOutputStream(pa.PythonFile(file, "w"), "zstd") as packed:
                _write_tar(runs, packed)
        else:
            _write_tar(runs, file)


def _write_tar(runs: Iterable[RunEntry], file: IO[bytes]) -> None:
    with tarfile.open(fileobj=file, mode="w|", format=tarfile.PAX_FORMAT) as tar:
        for run in runs:
            for path in files_of_run(run.path):
                name = f"{run.run_id}/{path.relative_to(run.path).as_posix()}"
                tar.add(path, name, recursive=False, filter=_plain)


def _plain(member: tarfile.TarInfo) -> tarfile.TarInfo:
    """Whose it was here means nothing elsewhere."""
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    return member


def files_of_run(folder: Path) -> Iterator[Path]:
    """The files of a run in one order, but for trials that were cut off.

    Raises UserError for a link or anything else that is neither file nor folder.
    """
    for path in sorted(folder.rglob("*")):
        if any(part.endswith(PARTIAL) for part in path.relative_to(folder).parts):
            continue
        kind = path.lstat().st_mode
        if not stat.S_ISREG(kind) and not stat.S_ISDIR(kind):
            raise UserError(f"{path} is neither a file nor a folder")
        if stat.S_ISREG(kind):
            yield path


def unpack(source: Path, folder: Path) -> None:
    """Unpack a tar (plain, or compressed by zstd, gzip, bzip2, xz) or a zip into a folder.

    Raises UserError for what is none of them, is damaged, or holds what no run has;
    EnvironmentLacks when the disk would be full.
    """
    with _explained(source):
        if zipfile.is_zipfile(source):
            _unpack_zip(source, folder)
        else:
            _unpack_tar(source, folder)


def _unpack_zip(source: Path, folder: Path) -> None:
    with zipfile.ZipFile(source) as pack:
        for member in pack.infolist():
            kind = stat.S_IFMT(member.external_attr >> 16)
            if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise _bad(source, member.filename, "is neither a file nor a folder")
            if not member.is_dir():
                target = _target(source, folder, member.filename, member.file_size)
                with pack.open(member) as file:
                    _write(source, target, file, member.file_size)


def _unpack_tar(source: Path, folder: Path) -> None:
    with source.open("rb") as file:
        packed = file.read(4) == _ZSTD_MAGIC
        file.seek(0)
        stream = pa.CompressedInputStream(pa.PythonFile(file, "r"), "zstd") if packed else file
        with tarfile.open(fileobj=stream, mode="r|" if packed else "r|*") as tar:
            for member in tar:
                if not member.isreg() and not member.isdir():
                    raise _bad(source, member.name, "is neither a file nor a folder")
                inside = tar.extractfile(member) if member.isreg() else None
                if inside:
                    target = _target(source, folder, member.name, member.size)
                    _write(source, target, inside, member.size)
            _check_end(tar)


def _check_end(tar: tarfile.TarFile) -> None:
    """A tar ends in two blocks of zeros, and one that was cut between members looks whole without.

    The first has been read when the last member was looked for. Raises EOFError.
    """
    assert tar.fileobj
    if tar.fileobj.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
        raise EOFError("it is cut off")


def _target(source: Path, folder: Path, name: str, size_bytes: int) -> Path:
    """Where a member goes."""
    parts = PurePosixPath(name).parts
    clean = parts[1:] if parts[:1] == (".",) else parts
    bad = any(
        part in ("..", ".") or not part.isprintable() or set(part) & set("\\:") for part in clean
    )
    if bad or not clean or name.startswith("/") or len(clean) > _DEPTH_MAX or "\0" in name:
        raise _bad(source, name, "is no path within a run")
    if shutil.disk_usage(folder).free - size_bytes < _FREE_BYTES:
        raise EnvironmentLacks(f"there is not enough room where {folder} lies for all of {source}")
    return folder.joinpath(*clean)


def _write(source: Path, target: Path, file: IO[bytes], size_bytes: int) -> None:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("xb") as made:
            shutil.copyfileobj(file, made, 2**20)
    except (FileExistsError, NotADirectoryError) as error:
        raise _bad(source, target.name, "is in it twice") from error
    if target.stat().st_size != size_bytes:
        raise _bad(source, target.name, "is cut off")


def _bad(source: Path, member: str, why: str) -> UserError:
    return UserError(f"{source} is refused: {member[:200]!r} in it {why}")


@contextmanager
def _explained(source: Path) -> Iterator[None]:
    try:
        yield
    except _UNREADABLE as error:
        raise UserError(f"{source} can't be read as a tar or zip of runs: {error}") from error
    except OSError as error:
        if error.errno is None:  # Arrow's, for what is no zstd
            raise UserError(f"{source} can't be read as a tar or zip of runs: {error}") from error
        raise EnvironmentLacks(f"{error.filename or source}: {error.strerror}") from error

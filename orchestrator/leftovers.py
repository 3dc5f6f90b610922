"""What a killed run leaves behind, and how the next command, or the node's daemon, cleans it up.

A lease (`workers/leases.py`) whose driver is dead is a run that was killed: its processes are
ended, its control groups and its temporary folder removed. What was archived stays, and the run
can be resumed.

A process belongs to a claim when its environment says `HEAPGATE_RUN=<claim>`, or when its program
or a file that it holds open lies in the claim's temporary folder.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from results.errors import HeapgateError
from workers.leases import RUN_MARKER, TEMP_PREFIX, Lease, leases_folder

if TYPE_CHECKING:
    import psutil

_GRACE_SECONDS = 2.0
_KILL_SECONDS = 10.0
_PROC = Path("/proc")


@dataclass(frozen=True, slots=True, kw_only=True)
class SweptRun:
    """What was cleaned up after one killed run; `problem` is what could not be, and why."""

    run_id: str
    node_id: str = ""
    run_dir: Path | None = None
    processes: int = 0
    groups: tuple[str, ...] = ()
    temp_dir: Path | None = None
    problem: str | None = None

    @property
    def line(self) -> str:
        """All of it in one line for the user."""
        resumable = self.run_dir is not None
        if self.problem and not resumable and not self.node_id:
            return f"{self.run_id}: {self.problem}"
        done = [_counted(self.processes, "process", "processes")] if self.processes else []
        done += [_counted(len(self.groups), "control group", "control groups")] * bool(self.groups)
        done += [f"its temporary folder {self.temp_dir}"] if self.temp_dir else []
        who = (
            f"on node {self.node_id}, whose worker ended"
            if self.node_id
            else "whose driver was killed"
        )
        what = "run" if resumable or self.node_id else "calibration"
        text = f"cleaned up after {what} {self.run_id}, {who}: "
        text += ", ".join(done) or "nothing was left"
        if self.problem:
            text += f"; but {self.problem}"
        return f"{text}; go on with: bench resume {self.run_id}" if resumable else text


def announce_sweep() -> None:
    """Clean up and tell the user, on standard error; never a reason for a command to fail."""
    try:
        swept = sweep()
    except OSError as error:
        sys.stderr.write(f"could not look for leftovers in {leases_folder()}: {error}\n")
        return
    for run in swept:
        sys.stderr.write(run.line + "\n")


def sweep() -> list[SweptRun]:
    """Clean up after every run of this user on this machine whose driver is dead.

    What belongs to a live run, or to another machine, is not touched. Only one process at a time
    sweeps; the others find nothing to do.
    """
    if not any(leases_folder().glob("*.json")):
        return []
    from filelock import FileLock, Timeout

    try:
        with FileLock(leases_folder() / "sweep.lock", timeout=0):
            paths = sorted(leases_folder().glob("*.json"))
            return [swept for path in paths for swept in _sweep_lease(path)]
    except Timeout:
        return []


def end_run_processes(
    claim: str, *, temp_dir: Path | None = None, grace_seconds: float = 0.0
) -> int:
    """End all processes of a run but this one and its ancestors; returns how many there were.

    They are asked to end (SIGTERM) and get `grace_seconds` for it, then they are killed; it looks
    again until there is none, because a process may start another meanwhile.
    """
    import psutil

    ended: set[psutil.Process] = set()
    deadline_s = time.monotonic() + _KILL_SECONDS
    left = list(_run_processes(claim, temp_dir))
    if left and grace_seconds > 0:
        _signal(left, "terminate")
        psutil.wait_procs(left, timeout=grace_seconds)
        ended.update(left)
        left = list(_run_processes(claim, temp_dir))
    while left and time.monotonic() < deadline_s:
        _signal(left, "kill")
        psutil.wait_procs(left, timeout=1.0)
        ended.update(left)
        left = list(_run_processes(claim, temp_dir))
    return len(ended.difference(left))


def abandon_run(claim: str, temp_dir: Path) -> None:
    """End and remove at once all that this process's own run holds; what is archived stays."""
    end_run_processes(claim, temp_dir=temp_dir)
    _remove_groups(claim)
    _remove_temp(temp_dir)
    Lease.forget(claim)


def _sweep_lease(path: Path) -> Iterator[SweptRun]:
    try:
        lease = Lease.read(path)
    except FileNotFoundError:
        return  # its run has just ended
    except ValueError as error:
        yield _set_aside(path, str(error))
        return
    if lease.driver.alive or lease.driver.elsewhere:
        return
    yield _clean_up(lease)


def _set_aside(path: Path, why: str) -> SweptRun:
    aside = path.parent / "unreadable"
    aside.mkdir(exist_ok=True)
    path.replace(aside / path.name)
    return SweptRun(run_id=path.stem, problem=f"{why}; moved to {aside / path.name}")


def _clean_up(lease: Lease) -> SweptRun:
    """End, remove, and give up the lease: last, so that a cleaner that is killed is followed."""
    ended = end_run_processes(lease.claim, temp_dir=lease.temp_dir, grace_seconds=_GRACE_SECONDS)
    problems = []
    if any(_run_processes(lease.claim, lease.temp_dir)):
        problems.append("some of its processes can't be ended by you")
    groups = _remove_groups(lease.claim)
    removed = _remove_temp(lease.temp_dir)
    if lease.temp_dir.exists():
        problems.append(f"{lease.temp_dir} is not yours to remove")
    if lease.run_dir:
        _mark_interrupted(lease.run_dir)
    if not problems:
        lease.release()
    return SweptRun(
        run_id=lease.run_id,
        node_id=lease.node_id,
        run_dir=lease.run_dir,
        processes=ended,
        groups=groups,
        temp_dir=lease.temp_dir if removed else None,
        problem=" and ".join(problems) or None,
    )


def _mark_interrupted(run_dir: Path) -> None:
    """The run's own document still says that it is running; a damaged one is left alone."""
    from results.archive.archive import Archive

    with contextlib.suppress(OSError, ValueError, HeapgateError):
        document = json.loads((run_dir / "run.json").read_bytes())
        if isinstance(document, dict) and document.get("status") == "running":
            ended = document | {"status": "interrupted"}
            Archive(run_dir.parent).write_run_document(run_dir, ended)


def _run_processes(claim: str, temp_dir: Path | None) -> Iterator[psutil.Process]:
    """All processes of a run that this user may see, but never this one or its ancestors."""
    import psutil

    this = psutil.Process()
    spared = {this, *this.parents()}
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process not in spared and _belongs(process, claim, temp_dir):
                yield process


def _belongs(process: psutil.Process, claim: str, temp_dir: Path | None) -> bool:
    import psutil

    if process.status() == psutil.STATUS_ZOMBIE:
        return False
    if temp_dir is not None and temp_dir.name.startswith(TEMP_PREFIX):
        with contextlib.suppress(psutil.Error, OSError):
            if any(path.startswith(f"{temp_dir}/") for path in _held_paths(process.pid)):
                return True
    return process.environ().get(RUN_MARKER) == claim


def _held_paths(pid: int) -> Iterator[str]:
    """The program and the open files of a process, removed ones too.

    Some of Ray's processes write their name over their environment, where the marker was; but they
    hold their logs open.
    """
    if sys.platform == "win32":
        return  # a job object ends what a node's worker started there
    yield str((_PROC / str(pid) / "exe").readlink())
    for descriptor in (_PROC / str(pid) / "fd").iterdir():
        with contextlib.suppress(OSError):  # closed meanwhile
            yield str(descriptor.readlink())


def _signal(processes: list[psutil.Process], how: str) -> None:
    """Each signal goes only to the process that was found: psutil compares the start time."""
    import psutil

    for process in processes:
        with contextlib.suppress(psutil.Error):
            getattr(process, how)()


def _remove_groups(claim: str) -> tuple[str, ...]:
    from workers.limits import remove_run_groups

    return tuple(remove_run_groups(claim))


def _remove_temp(path: Path) -> bool:
    if not _is_temp(path):
        return False
    shutil.rmtree(path, ignore_errors=True)
    return not path.exists()


def _is_temp(path: Path) -> bool:
    """Whether it is a temporary folder that a run of this user made, and nothing else."""
    try:
        status = path.lstat()
    except OSError:
        return False
    own = sys.platform == "win32" or status.st_uid == os.geteuid()
    return path.name.startswith(TEMP_PREFIX) and own and path.is_dir() and not path.is_symlink()


def _counted(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}"

"""What a killed run leaves behind, and how the next command cleans it up.

A run takes a *lease* when it starts: a small file that names the driver process and what the run
holds. A run that ends removes its lease. A lease whose driver is dead is therefore a run that was
killed: its processes are ended, its control groups and its temporary folder removed. What was
archived stays, and the run can be resumed.

A process belongs to a run when its environment says `HEAPGATE_RUN=<run_id>`, or when its program
or a file that it holds open lies in the run's temporary folder.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import platform
import re
import shutil
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from results.errors import EnvironmentLacks, HeapgateError
from results.files import write_whole

if TYPE_CHECKING:
    import psutil

RUN_MARKER = "HEAPGATE_RUN"
TEMP_PREFIX = "heapgate-"
_GRACE_SECONDS = 2.0
_KILL_SECONDS = 10.0
_PROC = Path("/proc")
_SAFE_RUN_ID = re.compile(r"(?!\.)[\w.~+-]+")


def state_folder() -> Path:
    """The folder for what outlives a command: `HEAPGATE_STATE`, or the one this system gives."""
    chosen = os.environ.get("HEAPGATE_STATE")
    if chosen:
        return Path(chosen).expanduser().absolute()
    from platformdirs import user_state_dir

    return Path(user_state_dir("heapgate"))


def leases_folder() -> Path:
    """Where the leases are."""
    return state_folder() / "leases"


@dataclass(frozen=True, slots=True, kw_only=True)
class Driver:
    """A process, told apart from any other that ever had its number.

    `start_ticks` is field 22 of /proc/PID/stat (clock ticks since boot); `boot_id` changes with
    each boot; `host` and `pid_namespace` say where the number means anything.
    """

    pid: int
    start_ticks: int
    boot_id: str
    host: str
    pid_namespace: str

    @classmethod
    def this_process(cls) -> Driver:
        """The process that calls."""
        ticks = _start_ticks(os.getpid())
        if ticks is None:
            raise EnvironmentLacks("/proc is not mounted: processes can't be told apart")
        return cls(
            pid=os.getpid(),
            start_ticks=ticks,
            boot_id=_boot_id(),
            host=platform.node(),
            pid_namespace=_pid_namespace(),
        )

    @property
    def elsewhere(self) -> bool:
        """Whether it runs where this process can't see: another machine or container."""
        if self.host != platform.node():
            return True
        return self.boot_id == _boot_id() and self.pid_namespace != _pid_namespace()

    @property
    def alive(self) -> bool:
        """Whether exactly this process is still there (a zombie is not)."""
        return self.boot_id == _boot_id() and _start_ticks(self.pid) == self.start_ticks


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """The claim of a live driver on a run and its temporary folder."""

    run_id: str
    run_dir: Path
    temp_dir: Path
    driver: Driver

    @classmethod
    def take(cls, *, run_id: str, run_dir: Path, temp_dir: Path) -> Lease:
        """Write the lease of a run that this process drives; the file appears whole or not at all.

        Raises EnvironmentLacks when the state folder can't be written to.
        """
        lease = cls(run_id=run_id, run_dir=run_dir, temp_dir=temp_dir, driver=Driver.this_process())
        text = json.dumps(dataclasses.asdict(lease), default=str, indent=1) + "\n"
        try:
            leases_folder().mkdir(parents=True, exist_ok=True)
            write_whole(_lease_path(run_id), text)
        except OSError as error:
            raise EnvironmentLacks(
                f"the state folder {state_folder()} can't be written to ({error.strerror}): "
                "make it writable, or set HEAPGATE_STATE to a folder elsewhere"
            ) from error
        return lease

    @classmethod
    def read(cls, path: Path) -> Lease:
        """Read a lease; raises ValueError for anything that is none."""
        try:
            facts = json.loads(path.read_bytes())
            lease = cls(
                run_id=facts["run_id"],
                run_dir=Path(facts["run_dir"]),
                temp_dir=Path(facts["temp_dir"]),
                driver=Driver(**facts["driver"]),
            )
            if _lease_path(lease.run_id).name != path.name:
                raise ValueError(f"it is the lease of {lease.run_id}")
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise ValueError(f"{path.name} is not a lease: {error}") from error
        return lease

    def release(self) -> None:
        """The run has ended and cleaned up after itself."""
        self.forget(self.run_id)

    @staticmethod
    def forget(run_id: str) -> None:
        """Remove the lease of a run, if there is one."""
        _lease_path(run_id).unlink(missing_ok=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class SweptRun:
    """What was cleaned up after one killed run; `problem` is what could not be, and why."""

    run_id: str
    run_dir: Path | None = None
    processes: int = 0
    groups: tuple[str, ...] = ()
    temp_dir: Path | None = None
    problem: str | None = None

    @property
    def line(self) -> str:
        """All of it in one line for the user."""
        if self.run_dir is None:
            return f"{self.run_id}: {self.problem}"
        done = [_counted(self.processes, "process", "processes")] if self.processes else []
        done += [_counted(len(self.groups), "control group", "control groups")] * bool(self.groups)
        done += [f"its temporary folder {self.temp_dir}"] if self.temp_dir else []
        text = f"cleaned up after run {self.run_id}, whose driver was killed: "
        text += ", ".join(done) or "nothing was left"
        if self.problem:
            text += f"; but {self.problem}"
        return f"{text}; go on with: bench resume {self.run_id}"


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
    run_id: str, *, temp_dir: Path | None = None, grace_seconds: float = 0.0
) -> int:
    """End all processes of a run but this one and its ancestors; returns how many there were.

    They are asked to end (SIGTERM) and get `grace_seconds` for it, then they are killed; it looks
    again until there is none, because a process may start another meanwhile.
    """
    import psutil

    ended: set[psutil.Process] = set()
    deadline_s = time.monotonic() + _KILL_SECONDS
    left = list(_run_processes(run_id, temp_dir))
    if left and grace_seconds > 0:
        _signal(left, "terminate")
        psutil.wait_procs(left, timeout=grace_seconds)
        ended.update(left)
        left = list(_run_processes(run_id, temp_dir))
    while left and time.monotonic() < deadline_s:
        _signal(left, "kill")
        psutil.wait_procs(left, timeout=1.0)
        ended.update(left)
        left = list(_run_processes(run_id, temp_dir))
    return len(ended.difference(left))


def abandon_run(run_id: str, temp_dir: Path) -> None:
    """End and remove at once all that this process's own run holds; what is archived stays."""
    end_run_processes(run_id, temp_dir=temp_dir)
    _remove_groups(run_id)
    _remove_temp(temp_dir)
    Lease.forget(run_id)


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
    ended = end_run_processes(lease.run_id, temp_dir=lease.temp_dir, grace_seconds=_GRACE_SECONDS)
    problems = []
    if any(_run_processes(lease.run_id, lease.temp_dir)):
        problems.append("some of its processes can't be ended by you")
    groups = _remove_groups(lease.run_id)
    removed = _remove_temp(lease.temp_dir)
    if lease.temp_dir.exists():
        problems.append(f"{lease.temp_dir} is not yours to remove")
    _mark_interrupted(lease.run_dir)
    if not problems:
        lease.release()
    return SweptRun(
        run_id=lease.run_id,
        run_dir=lease.run_dir,
        processes=ended,
        groups=groups,
        temp_dir=lease.temp_dir if removed else None,
        problem=" and ".join(problems) or None,
    )


def _mark_interrupted(run_dir: Path) -> None:
    """The run's own document still says that it is running; a damaged one is left alone."""
    from results.archive import Archive

    with contextlib.suppress(OSError, ValueError, HeapgateError):
        document = json.loads((run_dir / "run.json").read_bytes())
        if isinstance(document, dict) and document.get("status") == "running":
            ended = document | {"status": "interrupted"}
            Archive(run_dir.parent).write_run_document(run_dir, ended)


def _run_processes(run_id: str, temp_dir: Path | None) -> Iterator[psutil.Process]:
    """All processes of a run that this user may see, but never this one or its ancestors."""
    import psutil

    this = psutil.Process()
    spared = {this, *this.parents()}
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process not in spared and _belongs(process, run_id, temp_dir):
                yield process


def _belongs(process: psutil.Process, run_id: str, temp_dir: Path | None) -> bool:
    import psutil

    if process.status() == psutil.STATUS_ZOMBIE:
        return False
    if temp_dir is not None and temp_dir.name.startswith(TEMP_PREFIX):
        with contextlib.suppress(psutil.Error, OSError):
            if any(path.startswith(f"{temp_dir}/") for path in _held_paths(process.pid)):
                return True
    return process.environ().get(RUN_MARKER) == run_id


def _held_paths(pid: int) -> Iterator[str]:
    """The program and the open files of a process, removed ones too.

    Some of Ray's processes write their name over their environment, where the marker was; but they
    hold their logs open.
    """
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


def _remove_groups(run_id: str) -> tuple[str, ...]:
    from workers.limits import remove_run_groups

    return tuple(remove_run_groups(run_id))


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
    own = status.st_uid == os.geteuid()
    return path.name.startswith(TEMP_PREFIX) and own and path.is_dir() and not path.is_symlink()


def _lease_path(run_id: str) -> Path:
    if not isinstance(run_id, str) or not _SAFE_RUN_ID.fullmatch(run_id):
        raise ValueError(f"{run_id!r} can't be the id of a run")
    return leases_folder() / f"{run_id}.json"


def _start_ticks(pid: int) -> int | None:
    """When a process started, in ticks since boot; None when there is none, or a zombie only."""
    try:
        text = (_PROC / str(pid) / "stat").read_text(errors="replace")
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()  # the name before may hold blanks and brackets
    return None if fields[0] in "ZX" else int(fields[19])


def _boot_id() -> str:
    return (_PROC / "sys/kernel/random/boot_id").read_text().strip()


def _pid_namespace() -> str:
    return str((_PROC / "self/ns/pid").readlink())


def _counted(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}"

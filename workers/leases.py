"""Leases: who holds a run's folders and processes on this machine, so that they can be cleaned up.

A run takes a lease when it starts, on the machine of its driver and on every node that it uses: a
small file that names the process which holds the run there (the driver, a node's worker) and its
temporary folder. A run that ends removes its lease; one whose holder is dead was killed.
"""

from __future__ import annotations

import dataclasses
import json
import os
import platform
import re
import sys
from dataclasses import dataclass
from pathlib import Path

from results.errors import EnvironmentLacks
from results.files import write_whole

RUN_MARKER = "HEAPGATE_RUN"
TEMP_PREFIX = "heapgate-"
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

    `start_ticks` is field 22 of /proc/PID/stat (clock ticks since boot), on Windows milliseconds
    since the epoch; `boot_id` changes with each boot; `host` and `pid_namespace` say where the
    number means anything.
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


def claim_of(run_id: str, node_id: str = "") -> str:
    """What marks the processes and groups of a run's driver, or of one of its joined nodes.

    Several nodes may lie on one machine: each may end only what is its own.
    """
    return f"{run_id}~{node_id}" if node_id else run_id


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """The claim of a live process on its part of a run, and its temporary folder.

    `node_id` is empty for the run's driver; a joined node has a lease of its own, without a
    `run_dir`.
    """

    run_id: str
    run_dir: Path | None
    temp_dir: Path
    driver: Driver
    node_id: str = ""

    @classmethod
    def take(cls, *, run_id: str, run_dir: Path | None, temp_dir: Path, node_id: str = "") -> Lease:
        """Write the lease that this process holds; the file appears whole or not at all.

        Raises EnvironmentLacks when the state folder can't be written to.
        """
        lease = cls(
            run_id=run_id,
            run_dir=run_dir,
            temp_dir=temp_dir,
            driver=Driver.this_process(),
            node_id=node_id,
        )
        text = json.dumps(dataclasses.asdict(lease), default=str, indent=1) + "\n"
        try:
            leases_folder().mkdir(parents=True, exist_ok=True)
            write_whole(lease_path(lease.claim), text)
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
                run_dir=Path(facts["run_dir"]) if facts["run_dir"] else None,
                temp_dir=Path(facts["temp_dir"]),
                driver=Driver(**facts["driver"]),
                node_id=facts.get("node_id", ""),
            )
            if lease_path(lease.claim).name != path.name:
                raise ValueError(f"it is the lease of {lease.run_id}")
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise ValueError(f"{path.name} is not a lease: {error}") from error
        return lease

    @property
    def claim(self) -> str:
        """What marks the processes and groups that it covers."""
        return claim_of(self.run_id, self.node_id)

    def release(self) -> None:
        """The run has ended and cleaned up after itself."""
        self.forget(self.claim)

    @staticmethod
    def forget(claim: str) -> None:
        """Remove the lease of a claim, if there is one."""
        lease_path(claim).unlink(missing_ok=True)


def lease_path(claim: str) -> Path:
    """Where the lease of a claim is. Raises ValueError for what can't be the id of a run."""
    if not isinstance(claim, str) or not _SAFE_RUN_ID.fullmatch(claim):
        raise ValueError(f"{claim!r} can't be the id of a run")
    return leases_folder() / f"{claim}.json"


def _start_ticks(pid: int) -> int | None:
    """When a process started; None when there is none, or a zombie only."""
    if sys.platform == "win32":
        return _start_ms(pid)
    try:
        text = (_PROC / str(pid) / "stat").read_text(errors="replace")
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()  # the name before may hold blanks and brackets
    return None if fields[0] in "ZX" else int(fields[19])


def _start_ms(pid: int) -> int | None:
    import psutil

    try:
        return round(psutil.Process(pid).create_time() * 1000)
    except psutil.Error:
        return None


def _boot_id() -> str:
    """What changes with each boot; on Windows a process's start is told in absolute time."""
    if sys.platform == "win32":
        return ""
    return (_PROC / "sys/kernel/random/boot_id").read_text().strip()


def _pid_namespace() -> str:
    return "" if sys.platform == "win32" else str((_PROC / "self/ns/pid").readlink())

"""Which cgroup hierarchies this machine has and which of them carries the memory controller.

Formats: /proc/self/mountinfo in proc_pid_mountinfo(5), /proc/self/cgroup in cgroups(7).
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath


@dataclass(frozen=True, slots=True)
class Mount:
    """One mounted cgroup hierarchy: which part of it is seen (`root`) and where."""

    root: str
    point: Path
    controllers: frozenset[str]
    unified: bool


@dataclass(frozen=True, slots=True)
class Hierarchies:
    """The mounts of v1 controllers and of the unified (v2) hierarchy, as far as they exist."""

    memory_v1: Path | None
    cpu_v1: Path | None
    unified: Path | None
    unified_own: Path | None

    @property
    def version(self) -> str | None:
        """Where the memory controller is: "v1", "v2", or None when it is nowhere."""
        if self.memory_v1:
            return "v1"
        return "v2" if self.unified and "memory" in controllers_of(self.unified) else None


def controllers_of(group: Path) -> frozenset[str]:
    """Controllers that a v2 group may use; empty when the file can't be read."""
    try:
        return frozenset((group / "cgroup.controllers").read_text(encoding="ascii").split())
    except OSError:
        return frozenset()


def find_hierarchies(proc: Path = Path("/proc/self")) -> Hierarchies:
    """Read the mounts and the own groups of this process."""
    try:
        mounts = parse_mounts(_text(proc / "mountinfo"))
        own = parse_own_groups(_text(proc / "cgroup"))
    except OSError:
        return Hierarchies(None, None, None, None)
    unified = next((m for m in mounts if m.unified), None)
    return Hierarchies(
        memory_v1=_v1_mount(mounts, "memory"),
        cpu_v1=_v1_mount(mounts, "cpu"),
        unified=unified.point if unified else None,
        unified_own=_own_folder(unified, own.get("", "/")) if unified else None,
    )


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="surrogateescape")


def parse_mounts(text: str) -> list[Mount]:
    """The cgroup mounts among the lines of mountinfo."""
    mounts = []
    for line in text.splitlines():
        before, separator, after = line.partition(" - ")
        place, kind = before.split(), after.split()
        if not separator or len(place) < 5 or not kind or kind[0] not in ("cgroup", "cgroup2"):
            continue
        options = frozenset(kind[2].split(",")) if len(kind) > 2 else frozenset()
        mounts.append(
            Mount(_unescape(place[3]), Path(_unescape(place[4])), options, kind[0] == "cgroup2")
        )
    return mounts


def parse_own_groups(text: str) -> dict[str, str]:
    """Controller name → path of the own group; the unified hierarchy has the name ""."""
    groups: dict[str, str] = {}
    for line in text.splitlines():
        parts = line.split(":", 2)
        if len(parts) == 3:
            for controller in parts[1].split(","):
                groups[controller] = parts[2]
    return groups


def _v1_mount(mounts: list[Mount], controller: str) -> Path | None:
    return next((m.point for m in mounts if not m.unified and controller in m.controllers), None)


def _own_folder(mount: Mount, own: str) -> Path:
    """Folder of a group given by its path in the whole hierarchy, of which `mount` is a part."""
    try:
        inside = PurePosixPath(own).relative_to(mount.root)
    except ValueError:
        return mount.point
    folder = mount.point / inside
    return folder if folder.is_dir() else mount.point


def _unescape(text: str) -> str:
    """Mountinfo writes blanks and backslashes as three octal digits."""
    return re.sub(r"\\([0-7]{3})", lambda m: os.fsdecode(bytes([int(m[1], 8) & 0xFF])), text)

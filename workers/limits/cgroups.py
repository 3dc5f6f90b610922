"""The groups of Linux: one cgroup for each trial, `<hierarchy>/heapgate/<run>/<trial>`.

No other group is ever written to, but for enabling controllers in the cgroup v2 group above ours.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

from workers.limits.cgroup_v1 import CgroupV1
from workers.limits.cgroup_v2 import CgroupV2, writable_base
from workers.limits.groupfolder import PARENT_NAME, group_folder, remove_tree
from workers.limits.hierarchies import Hierarchies, find_hierarchies
from workers.limits.limiter import Limiter, LimitsUnavailable
from workers.limits.none import NoLimits


def open_limiter(run_id: str, trial_id: str) -> Limiter:
    """Make the group of a trial with what this machine has; `NoLimits` where that is nothing."""
    found = find_hierarchies()
    try:
        if found.memory_v1:
            return CgroupV1(found.memory_v1, found.cpu_v1, run_id, trial_id)
        if found.unified and found.unified_own:
            return CgroupV2(found.unified, found.unified_own, run_id, trial_id)
    except LimitsUnavailable as error:
        return NoLimits(str(error))
    return NoLimits("no cgroup hierarchy with a memory controller is mounted")


def run_groups() -> list[str]:
    """Ids of the runs that have groups on this machine, sorted."""
    return sorted({folder.name for base in _bases() for folder in _subgroups(base / PARENT_NAME)})


def remove_run_groups(run_id: str) -> list[str]:
    """Kill and remove all that a run left in its groups; the answer lists the removed groups.

    Removes the common parent too when no other run has groups.
    """
    removed = []
    for base in _bases():
        run = group_folder(base, run_id, "any").parent
        for folder in [*_subgroups(run), run]:
            if folder.is_dir() and remove_tree(folder):
                removed.append(str(folder))
        with contextlib.suppress(OSError):
            run.parent.rmdir()
    return removed


def _bases(found: Hierarchies | None = None) -> list[Path]:
    """Folders in which our common parent may lie."""
    found = found or find_hierarchies()
    bases = [base for base in (found.memory_v1, found.cpu_v1) if base]
    if found.unified and found.unified_own:
        base = writable_base(found.unified, found.unified_own)
        bases += [base] if base else []
    return bases


def _subgroups(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if path.is_dir())
    except OSError:
        return []

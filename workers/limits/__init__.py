"""Limits on a trial's processes, and the kernel's account of them: one group for each trial.

The mechanism is chosen by what this machine has; where there is none, `NoLimits` says why. On Linux
a group is a cgroup (`cgroups.py`), on Windows a job object (`job_object.py`).
"""

from __future__ import annotations

import sys

from workers.limits.limiter import GroupCounters, Limiter, LimitsUnavailable

if sys.platform == "win32":
    from workers.limits.job_object import open_limiter, remove_run_groups, run_groups
else:
    from workers.limits.cgroups import open_limiter, remove_run_groups, run_groups

__all__ = [
    "GroupCounters",
    "Limiter",
    "LimitsUnavailable",
    "open_limiter",
    "remove_run_groups",
    "run_groups",
]

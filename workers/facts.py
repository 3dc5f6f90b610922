"""What a node is: its facts for provenance, its class for comparison, its id for tables.

Nothing here names a person or a place: no host name, no address, no user. What this system does
not tell is None.
"""

from __future__ import annotations

import functools
import hashlib
import os
import platform
import re
import sys
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final

from workers.affinity import CoreSplit, allowed_cores, split_cores
from workers.spec import LimitsSpec

if sys.platform == "win32":
    from workers.facts_windows import identity_source, machine_source, system_facts
else:
    from workers.facts_linux import identity_source, machine_source, system_facts

PACKAGES: Final = ("heapgate", "ray", "locust", "pyarrow", "grpcio", "duckdb")
FACTS: Final = (
    "os", "distribution", "kernel", "architecture", "wine", "machine",
    "cpu_model", "hypervisor", "cores_online", "cores_allowed", "threads_per_core",
    "memory_bytes", "swap_bytes", "commit_limit_bytes", "huge_pages", "huge_pages_defrag",
    "governor", "clock_source", "cgroup", "limits_mechanism", "limits_unavailable", "root",
    "python",
)  # fmt: skip
"""Names of all facts, on every system.

`machine` is a short hash that is the same for all nodes on one machine under one kernel: two nodes
with the same one disturb each other. `limits_unavailable` says what can't be limited here and why,
empty when all can. `governor` is the power scheme on Windows.
"""

_PROBED: Final = LimitsSpec(memory_max_bytes=2**40, cpus=1.0)
"""Limits that Windows is asked for to learn whether it keeps them."""


def node_facts(cores: CoreSplit | None = None) -> dict[str, Any]:
    """Facts about this machine as plain data; bytes and counts carry their unit in the name.

    A process that keeps to its own cores must say how the node's cores were divided: it can't
    see the others. Without that, the cores of this process are the node's.
    """
    cores = cores or split_cores(allowed_cores(), None)
    mechanism, unavailable = _limits()
    return (
        dict.fromkeys(FACTS)
        | system_facts()
        | {
            "machine": _hashed(f"machine {source}") if (source := machine_source()) else None,
            "cores_online": os.cpu_count(),
            "cores_allowed": sorted({*cores.service, *cores.other}),
            "limits_mechanism": mechanism,
            "limits_unavailable": unavailable,
            "python": platform.python_version(),
        }
    )


def node_class(facts: dict[str, Any]) -> str:
    """What may be compared with each other: "linux · AMD EPYC 7B13 · 2 cores · 24 GiB"."""
    system = facts["os"]
    if facts.get("wine"):
        system = f"{system} (Wine {facts['wine']})"
    cores = len(facts["cores_allowed"])
    parts = [system, _short_model(facts["cpu_model"]), f"{cores} core{'s' * (cores != 1)}"]
    if facts["memory_bytes"]:
        parts.append(f"{max(1, round(facts['memory_bytes'] / 2**30))} GiB")
    return " · ".join(parts)


def node_id() -> str:
    """A short name of this node: always the same one, and nothing can be read from it.

    The machine's id itself is confidential (machine-id(5)): only a hash of it leaves the node.
    """
    return f"node-{_hashed(identity_source())}"


def _hashed(source: str) -> str:
    return hashlib.sha256(f"heapgate {source}".encode()).hexdigest()[:8]


@functools.cache
def _versions() -> tuple[tuple[str, str], ...]:
    found = []
    for name in PACKAGES:
        try:
            found.append((name, version(name)))
        except PackageNotFoundError:
            continue
    return (*found, ("python", platform.python_version()))


def versions() -> dict[str, str]:
    """Versions of Heapgate, what it measures with, and Python; what is missing is left out."""
    return dict(_versions())


def _short_model(model: str) -> str:
    """A processor's name without trade marks, core counts and clock rates."""
    model = re.sub(r"\((?:R|TM)\)|\bCPU\b|\bProcessor\b|\b\d+-Core\b|@.*$", " ", model)
    return " ".join(model.split())


@functools.cache
def _limits() -> tuple[str, str]:
    """How limits are set here, and why they can't be. Makes a group and removes it."""
    from workers.limits import open_limiter

    limiter = open_limiter("probe", f"facts-{os.getpid()}")
    try:
        reasons = [limiter.reason] if limiter.reason else []
        if sys.platform == "win32":
            found = limiter.apply(_PROBED)
            reasons += [f"{limit.name}: {limit.reason}" for limit in found if not limit.enforced]
        return limiter.mechanism, "; ".join(reasons)
    finally:
        limiter.remove()

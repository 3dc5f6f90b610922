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
import uuid
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

from workers.affinity import CoreSplit, split_cores

PACKAGES: Final = ("heapgate", "ray", "locust", "pyarrow", "grpcio", "duckdb")
_CPU = Path("/sys/devices/system/cpu")
_MACHINE_IDS = (Path("/etc/machine-id"), Path("/var/lib/dbus/machine-id"))


def node_facts(cores: CoreSplit | None = None) -> dict[str, Any]:
    """Facts about this machine as plain data; bytes and counts carry their unit in the name.

    A process that keeps to its own cores must say how the node's cores were divided: it can't
    see the others. Without that, the cores of this process are the node's.
    """
    from workers.limits.hierarchies import find_hierarchies

    cores = cores or split_cores(os.sched_getaffinity(0), None)
    memory = _meminfo()
    cpu = _text(Path("/proc/cpuinfo"))
    return {
        "os": platform.system().lower(),
        "distribution": _distribution(),
        "kernel": platform.release(),
        "machine": platform.machine(),
        "cpu_model": _field(cpu, "model name") or platform.processor() or platform.machine(),
        "hypervisor": _has_hypervisor(cpu),
        "cores_online": os.cpu_count(),
        "cores_allowed": sorted({*cores.service, *cores.other}),
        "threads_per_core": _threads_per_core(),
        "memory_bytes": memory.get("MemTotal"),
        "swap_bytes": memory.get("SwapTotal"),
        "huge_pages": _chosen(Path("/sys/kernel/mm/transparent_hugepage/enabled")),
        "huge_pages_defrag": _chosen(Path("/sys/kernel/mm/transparent_hugepage/defrag")),
        "governor": _text(_CPU / "cpu0/cpufreq/scaling_governor").strip() or None,
        "clock_source": _text(
            Path("/sys/devices/system/clocksource/clocksource0/current_clocksource")
        ).strip()
        or None,
        "cgroup": find_hierarchies().version,
        "limits_unavailable": _limits_unavailable(),
        "root": os.geteuid() == 0,
        "python": platform.python_version(),
    }


def node_class(facts: dict[str, Any]) -> str:
    """What may be compared with each other: "linux · AMD EPYC 7B13 · 2 cores · 24 GiB"."""
    cores = len(facts["cores_allowed"])
    parts = [facts["os"], _short_model(facts["cpu_model"]), f"{cores} core{'s' * (cores != 1)}"]
    if facts["memory_bytes"]:
        parts.append(f"{max(1, round(facts['memory_bytes'] / 2**30))} GiB")
    return " · ".join(parts)


def node_id() -> str:
    """A short name of this machine: always the same one, and nothing can be read from it."""
    machine = next((text for path in _MACHINE_IDS if (text := _text(path).strip())), None)
    # The machine's id itself is confidential (machine-id(5)): only a hash of it leaves the node.
    source = f"heapgate {machine or uuid.getnode()}"
    return f"node-{hashlib.sha256(source.encode()).hexdigest()[:8]}"


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
def _limits_unavailable() -> str:
    """Why limits can't be set here; empty when they can. Makes a group and removes it."""
    from workers.limits import open_limiter

    limiter = open_limiter("probe", f"facts-{os.getpid()}")
    try:
        return limiter.reason
    finally:
        limiter.remove()


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _field(text: str, name: str) -> str | None:
    """Value of the first `name : value` line of /proc/cpuinfo."""
    found = re.search(rf"^{name}\s*:\s*(.+)$", text, re.MULTILINE)
    return found[1].strip() if found else None


def _has_hypervisor(cpu: str) -> bool | None:
    """Whether the processor says that it is a virtual one (x86 only)."""
    flags = _field(cpu, "flags")
    return "hypervisor" in flags.split() if flags else None


def _meminfo() -> dict[str, int]:
    """Bytes by name, from /proc/meminfo (proc_meminfo(5)), which counts KiB."""
    lines = re.findall(r"^(\w+):\s+(\d+) kB$", _text(Path("/proc/meminfo")), re.MULTILINE)
    return {name: int(kib) * 1024 for name, kib in lines}


def _chosen(path: Path) -> str | None:
    """The word in brackets: how the kernel marks the choice in force among all."""
    found = re.search(r"\[(\w[\w+-]*)\]", _text(path))
    return found[1] if found else None


def _distribution() -> str | None:
    try:
        return platform.freedesktop_os_release().get("PRETTY_NAME")
    except OSError:
        return None


def _threads_per_core() -> int | None:
    text = _text(_CPU / "cpu0/topology/thread_siblings_list").strip()
    if not text:
        return None
    ends = [part.split("-") for part in text.split(",")]
    return sum(int(part[-1]) - int(part[0]) + 1 for part in ends)

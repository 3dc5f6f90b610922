"""Facts that Linux tells: from /proc, /sys and /etc."""

from __future__ import annotations

import os
import platform
import re
import sys
import uuid
from pathlib import Path
from typing import Any

from workers.limits.hierarchies import find_hierarchies

MACHINE_IDS = (Path("/etc/machine-id"), Path("/var/lib/dbus/machine-id"))
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_SYSTEM_NETWORK = 0xEFFFFFF9
"""Inode of the system's own network namespace, fixed since Linux 6.18 (linux/nsfs.h)."""

_CPU = Path("/sys/devices/system/cpu")


def system_facts() -> dict[str, Any]:
    """What this system tells of itself, by the names of `workers.facts.node_facts`."""
    memory = _meminfo()
    cpu = text_of(Path("/proc/cpuinfo"))
    return {
        "os": "linux",
        "distribution": _distribution(),
        "kernel": platform.release(),
        "architecture": platform.machine(),
        "cpu_model": _field(cpu, "model name") or platform.processor() or platform.machine(),
        "hypervisor": _has_hypervisor(cpu),
        "threads_per_core": _threads_per_core(),
        "memory_bytes": memory.get("MemTotal"),
        "swap_bytes": memory.get("SwapTotal"),
        "huge_pages": _chosen(Path("/sys/kernel/mm/transparent_hugepage/enabled")),
        "huge_pages_defrag": _chosen(Path("/sys/kernel/mm/transparent_hugepage/defrag")),
        "governor": text_of(_CPU / "cpu0/cpufreq/scaling_governor").strip() or None,
        "clock_source": text_of(
            Path("/sys/devices/system/clocksource/clocksource0/current_clocksource")
        ).strip()
        or None,
        "cgroup": find_hierarchies().version,
        "root": sys.platform != "win32" and os.geteuid() == 0,
    }


def machine_source() -> str:
    """What is the same for all that runs on this kernel until it boots again."""
    return text_of(BOOT_ID).strip()


def identity_source() -> str:
    """What is always the same on this machine, and another one in a network of its own."""
    machine = next((text for path in MACHINE_IDS if (text := text_of(path).strip())), None)
    return f"{machine or uuid.getnode()}{_own_network()}"


def _own_network() -> str:
    """Names the network namespace; empty in that of the system, and where that is unknown.

    /proc/PID/ns/net: namespaces(7). The first processes are in the system's, where we may look.
    """
    own = _network_of("self")
    known = (_SYSTEM_NETWORK, _network_of("1"), _network_of("2"))
    if own is None or own in known or not any(known[1:]):
        return ""
    return f" net {own}"


def _network_of(process: str) -> int | None:
    try:
        # Of the namespace, not of the link that stands for it.
        return os.stat(f"/proc/{process}/ns/net").st_ino  # noqa: PTH116
    except OSError:
        return None


def text_of(path: Path) -> str:
    """A file's text; empty when it can't be read."""
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
    lines = re.findall(r"^(\w+):\s+(\d+) kB$", text_of(Path("/proc/meminfo")), re.MULTILINE)
    return {name: int(kib) * 1024 for name, kib in lines}


def _chosen(path: Path) -> str | None:
    """The word in brackets: how the kernel marks the choice in force among all."""
    found = re.search(r"\[(\w[\w+-]*)\]", text_of(path))
    return found[1] if found else None


def _distribution() -> str | None:
    try:
        return platform.freedesktop_os_release().get("PRETTY_NAME")
    except OSError:
        return None


def _threads_per_core() -> int | None:
    text = text_of(_CPU / "cpu0/topology/thread_siblings_list").strip()
    if not text:
        return None
    ends = [part.split("-") for part in text.split(",")]
    return sum(int(part[-1]) - int(part[0]) + 1 for part in ends)

"""Facts that Windows tells: from the registry and a few calls, none of them through WMI.

Under Wine the machine is the Linux one below it, which Wine shows as drive Z:.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import psutil

from workers import win32
from workers.sampling.windows import SystemCounters

_CURRENT_VERSION = r"SOFTWARE\Microsoft\Windows NT\CurrentVersion"
_FIRST_PROCESSOR = r"HARDWARE\DESCRIPTION\System\CentralProcessor\0"
_CRYPTOGRAPHY = r"SOFTWARE\Microsoft\Cryptography"
_POWER = r"SYSTEM\CurrentControlSet\Control\Power\User\PowerSchemes"
_SCHEMES = {
    "381b4222-f694-41f0-9685-ff5bb260df2e": "balanced",
    "8c5e7fda-e8bf-4a96-9a85-a6e23a8c635c": "high performance",
    "a1841308-3541-4fab-bc81-f71556f20b4a": "power saver",
}
"""The power schemes of every Windows (learn.microsoft.com, "Power Policy Settings")."""

_WINDOWS_11_BUILD = 22_000
_WINE_BOOT_ID = Path("Z:/proc/sys/kernel/random/boot_id")
_WINE_MACHINE_IDS = (Path("Z:/etc/machine-id"), Path("Z:/var/lib/dbus/machine-id"))


def system_facts() -> dict[str, Any]:
    """What this system tells of itself, by the names of `workers.facts.node_facts`."""
    major, minor, build = _version()
    revision = registry(_CURRENT_VERSION, "UBR")
    parts = [major, minor, build, *([revision] if revision is not None else [])]
    system = SystemCounters()
    commit_limit_bytes = system.read().commit_limit_bytes
    architecture = os.environ.get("PROCESSOR_ARCHITECTURE", "unknown")
    return {
        "os": "windows",
        "distribution": edition(
            registry(_CURRENT_VERSION, "ProductName"),
            registry(_CURRENT_VERSION, "DisplayVersion"),
            build,
        ),
        "kernel": ".".join(map(str, parts)),
        "architecture": architecture,
        "wine": win32.wine_version(),
        "cpu_model": " ".join(
            str(registry(_FIRST_PROCESSOR, "ProcessorNameString") or architecture).split()
        ),
        "threads_per_core": _threads_per_core(),
        "memory_bytes": system.memory_bytes,
        "commit_limit_bytes": commit_limit_bytes,
        "governor": _power_scheme(),
        "clock_source": "QueryPerformanceCounter",
        "root": bool(win32.is_admin()),
    }


def machine_source() -> str:
    """What is the same for all that runs on this kernel until it boots again."""
    if win32.wine_version():
        return _first_text((_WINE_BOOT_ID,))
    return f"{_machine_guid()} {win32.boot_time()}"


def identity_source() -> str:
    """What is always the same on this machine, and another than that of a Linux below it."""
    below = _first_text(_WINE_MACHINE_IDS) if win32.wine_version() else ""
    return f"{_machine_guid()} windows {below}"


def edition(product: object, release: object, build: int) -> str | None:
    """Name and release of Windows, "Windows 11 Pro 23H2": the registry still says 10 for 11."""
    if product is None:
        return None
    name = str(product)
    if build >= _WINDOWS_11_BUILD:
        name = name.replace("Windows 10", "Windows 11")
    return f"{name} {release}" if release else name


def _version() -> tuple[int, int, int]:
    if sys.platform == "win32":
        return sys.getwindowsversion()[:3]
    raise OSError("this is not Windows")


def _machine_guid() -> str:
    return str(registry(_CRYPTOGRAPHY, "MachineGuid"))


def _power_scheme() -> str | None:
    scheme = registry(_POWER, "ActivePowerScheme")
    return _SCHEMES.get(str(scheme).lower(), str(scheme)) if scheme else None


def _threads_per_core() -> int | None:
    physical = psutil.cpu_count(logical=False)
    return (os.cpu_count() or 1) // physical if physical else None


def _first_text(paths: tuple[Path, ...]) -> str:
    for path in paths:
        try:
            return path.read_text(encoding="ascii").strip()
        except OSError:
            continue
    return ""


def registry(key: str, name: str) -> object:
    """A value below HKEY_LOCAL_MACHINE; None when it is not there."""
    if sys.platform == "win32":
        import winreg

        access = winreg.KEY_READ | winreg.KEY_WOW64_64KEY
        try:
            with winreg.OpenKey(winreg.HKEY_LOCAL_MACHINE, key, 0, access) as opened:
                value: object = winreg.QueryValueEx(opened, name)[0]
                return value
        except OSError:
            return None
    raise OSError("the registry is Windows'")

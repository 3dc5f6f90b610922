"""What this machine can and can't measure, found by trying, and what to do about it."""

from __future__ import annotations

import os
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Status = Literal["ok", "limited", "missing"]

STEAL_WATCH_S = 1.0
STEAL_SHARE_MAX = 0.02
FREE_BYTES_WANTED = 2 * 2**30
MEMORY_BYTES_WANTED = 3 * 2**30
"""Ray, the generator and a small service beside each other."""


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was tried.

    `limited`: runs work, and some figures are missing or weaker. `missing`: no run works.
    """

    name: str
    status: Status
    found: str
    consequence: str = ""
    remedy: str = ""


def examine() -> list[Check]:
    """Try everything that a run needs; takes about two seconds."""
    checks: tuple[Callable[[], Check], ...] = (
        _python,
        _cores,
        _memory,
        _limits,
        _unprivileged,
        _kernel_peaks,
        _governor,
        _huge_pages,
        _quiet,
        _calibration,
        _toolchains,
        _loopback,
        _free_space,
    )
    # A Windows machine is a node: its head builds, and Linux alone has such pages.
    skipped = (_huge_pages, _calibration, _toolchains) if sys.platform == "win32" else ()
    return [check() for check in checks if check not in skipped]


def _python() -> Check:
    found = ".".join(map(str, sys.version_info[:3]))
    return Check("Python", "ok", found)


def _cores() -> Check:
    from workers.affinity import allowed_cores, split_cores

    split = split_cores(allowed_cores(), None)
    if not split.shared:
        return Check(
            "cores",
            "ok",
            f"service on {_listed(split.service)}, load and the rest on {_listed(split.other)}",
        )
    return Check(
        "cores",
        "limited",
        f"only core {_listed(split.service)} may be used",
        "service and load generator share it: latency and throughput say little",
        "give this machine or container two cores or more",
    )


def _listed(cores: tuple[int, ...]) -> str:
    return ", ".join(map(str, cores))


def _memory() -> Check:
    import psutil

    free = psutil.virtual_memory().available
    found = f"{free / 2**30:.1f} GiB available"
    if free >= MEMORY_BYTES_WANTED:
        return Check("memory", "ok", found)
    return Check(
        "memory",
        "limited",
        found,
        "the service may be swapped out or killed while it is measured",
        "end other programs, or use a smaller live set",
    )


def _limits() -> Check:
    from workers.limits import open_limiter
    from workers.spec import LimitsSpec

    limiter = open_limiter("doctor", f"probe-{os.getpid()}")
    try:
        if limiter.reason:
            return Check(
                "memory limits",
                "limited",
                f"not available here: {limiter.reason}",
                "memory_max, memory_high and cpus are not enforced, and no cgroup figures",
                "run as root, or in a container or systemd scope with delegated cgroups",
            )
        records = limiter.apply(LimitsSpec(memory_max_bytes=64 * 2**20, cpus=0.5))
        weak = [f"{r.name}: {r.reason}" for r in records if not r.enforced]
    finally:
        limiter.remove()
    if weak:
        return Check("memory limits", "limited", "; ".join(weak), "these limits are not enforced")
    return Check("memory limits", "ok", f"{limiter.mechanism}, set and read back")


def _unprivileged() -> Check:
    if sys.platform == "win32":
        return Check("user", "ok", "services run as the same user")
    if os.geteuid() == 0:
        return Check("user", "ok", "root; services run as an unprivileged user")
    return Check("user", "ok", f"user {os.geteuid()}; services run as the same user")


def _kernel_peaks() -> Check:
    """Writing 5 to clear_refs resets VmHWM (proc(5)); not in every container and kernel."""
    if sys.platform == "win32":
        found = "Windows can't begin a new one for a phase"
        told = "a peak from before measure is not measure's: then the greatest sample is told"
        return Check("kernel peaks", "limited", found, told)
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError as error:
        return Check(
            "kernel peaks",
            "limited",
            f"/proc/PID/clear_refs: {error.strerror}",
            "peak RSS covers startup too, not the measure phase alone",
            "a kernel with CONFIG_PROC_PAGE_MONITOR",
        )
    return Check("kernel peaks", "ok", "can be reset for each phase")


def _governor() -> Check:
    path = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
    if not path.exists():
        return Check("CPU governor", "ok", "not visible here (a virtual machine, usually)")
    governor = path.read_text(encoding="ascii").strip()
    if governor == "performance":
        return Check("CPU governor", "ok", governor)
    return Check(
        "CPU governor",
        "limited",
        governor,
        "clock speed changes with load: latency is noisier",
        "cpupower frequency-set -g performance",
    )


def _huge_pages() -> Check:
    path = Path("/sys/kernel/mm/transparent_hugepage/enabled")
    try:
        text = path.read_text(encoding="ascii")
    except OSError:
        return Check("huge pages", "ok", "not there")
    chosen = text.partition("[")[2].partition("]")[0]
    if chosen == "always":
        return Check(
            "huge pages",
            "limited",
            "always",
            "resident memory moves in steps of 2 MiB: small differences drown",
            f"echo madvise > {path}",
        )
    return Check("huge pages", "ok", chosen)


def _quiet() -> Check:
    from workers.affinity import allowed_cores
    from workers.sampling.cores import CoreUsage

    cores = tuple(sorted(allowed_cores()))
    before, began_ns = CoreUsage.read(cores), time.monotonic_ns()
    time.sleep(STEAL_WATCH_S)
    took_ns = (time.monotonic_ns() - began_ns) * len(cores)
    usage = CoreUsage.read(cores).since(before)
    steal, busy = usage.steal_ns / took_ns, usage.busy_ns / took_ns
    found = f"{busy:.0%} busy, {steal:.1%} taken by the hypervisor"
    if steal <= STEAL_SHARE_MAX and busy <= 0.25:
        return Check("quiet", "ok", found)
    return Check(
        "quiet",
        "limited",
        found,
        "intervals get wider: more blocks are needed for a verdict",
        "end other work on this machine, or measure on one of its own",
    )


def _calibration() -> Check:
    """What `bench calibrate` found on such hardware, and whether it still holds."""
    from orchestrator.calibrate.calibration import standing_here

    standing = standing_here()
    found, remedy = standing.calibration, "bench calibrate"
    if found is None:
        others = f"; {standing.others} of other hardware" if standing.others else ""
        text = "neither the load generator's limits nor the noise floor are known"
        return Check("calibration", "limited", f"none of this hardware{others}", text, remedy)
    fastest = f", up to {found.open_rps:,.0f}/s in an open loop" if found.open_rps else ""
    told = f"of {found.made}{' (quick)' if found.quick else ''}{fastest}"
    if standing.age:
        text = f"it is old: made {standing.age}"
        return Check("calibration", "limited", told, text, remedy)
    return Check("calibration", "ok", told)


def _toolchains() -> Check:
    from orchestrator.builds import gobin, toolchains

    here = {t.version for t in toolchains.cached()} | {v for v, _, _ in toolchains.local()}
    listed = ", ".join(sorted(here, key=gobin.numbers)) or "none"
    try:
        served = gobin.served(toolchains.HOST_GOOS)
    except Exception as error:  # whatever the package index answers, it is only told here
        return Check(
            "Go toolchains",
            "limited" if here else "missing",
            f"here: {listed}; none can be fetched: {error}",
            "only these Go versions can be used" if here else "no Go service can be built",
            "check the network and `pip config list`, or point GOROOT at a Go installation",
        )
    return Check("Go toolchains", "ok", f"here: {listed}; {len(served)} can be fetched")


def _loopback() -> Check:
    try:
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
            socket.create_connection(("127.0.0.1", port), timeout=2.0).close()
    except OSError as error:
        return Check(
            "loopback",
            "missing",
            f"127.0.0.1: {error}",
            "neither Ray, nor the collector, nor a service can be reached",
            "ip link set lo up",
        )
    return Check("loopback", "ok", "127.0.0.1 answers")


def _free_space() -> Check:
    places = {Path(tempfile.gettempdir()), Path.cwd()}
    scarce = [(p, shutil.disk_usage(p).free) for p in sorted(places)]
    found = ", ".join(f"{free / 2**30:.1f} GiB in {place}" for place, free in scarce)
    if min(free for _, free in scarce) >= FREE_BYTES_WANTED:
        return Check("free space", "ok", found)
    return Check(
        "free space", "limited", found, "a long run may not fit", "make room, or set TMPDIR"
    )

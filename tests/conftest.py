"""What many tests share: a Go toolchain, the launcher, and what this machine allows."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from orchestrator.builds.builds import build_launcher
from orchestrator.builds.toolchains import Toolchain, ensure
from workers.limits import open_limiter

sys.path.insert(0, str(Path(__file__).parent / "results"))

settings.register_profile(
    "heapgate",
    deadline=None,
    max_examples=100,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    derandomize="CI" in os.environ,
)
settings.load_profile("heapgate")


@pytest.fixture(scope="session")
def toolchain() -> Toolchain:
    """The newest Go 1.23, fetched when it is not here."""
    return ensure("1.23")


@pytest.fixture(scope="session")
def launcher(toolchain: Toolchain) -> Path:
    """The program that starts services."""
    return build_launcher(toolchain)


@pytest.fixture
def needs_memory_cgroup() -> None:
    """Skip where no memory limits can be set, and say why."""
    limiter = open_limiter("probe", f"probe-{os.getpid()}")
    reason = limiter.reason
    limiter.remove()
    if reason:
        pytest.skip(f"no memory limits here: {reason}")

"""Which part of Heapgate runs on which system: runs and heads on Linux, nodes on both."""

from __future__ import annotations

import sys

from results.errors import EnvironmentLacks


def require_linux(what: str) -> None:
    """Raises EnvironmentLacks, with what is possible instead, on any other system."""
    if sys.platform != "linux":
        raise EnvironmentLacks(
            f"{what} needs Linux; a Windows machine can be a node of a cluster, whose head is a "
            "Linux machine: docs/windows.md"
        )

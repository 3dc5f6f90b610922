"""Packages that are not there for this process, though they may be installed.

Arrow imports pandas as soon as it makes a value, where pandas is installed: a fifth of a second of
every command that asks an archive, and none of them needs it. In Python (`results`) it stays.
"""

from __future__ import annotations

import sys
from typing import Final

ABSENT: Final = frozenset({"pandas"})


class _Absent:
    """A finder of modules that is asked first and knows what is not there."""

    @staticmethod
    def find_spec(name: str, path: object = None, target: object = None) -> None:
        """Leave all else to the other finders. Raises ModuleNotFoundError for what is absent."""
        if name in ABSENT:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def hide_packages() -> None:
    """Hide them until this process ends."""
    sys.meta_path.insert(0, _Absent)


def show_packages() -> None:
    """Leave them to be found again, for the few commands that need them."""
    sys.meta_path[:] = [finder for finder in sys.meta_path if finder is not _Absent]

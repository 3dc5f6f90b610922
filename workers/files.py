"""Renaming and removing where Windows may refuse for a moment.

There a file that anybody has open (a virus scanner, a process that is just ending) can't be
replaced or removed. So both are tried again for a while; on Linux the first try decides.
"""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path

PATIENCE_S = 2.0 if sys.platform == "win32" else 0.0
_PAUSE_S = 0.01


def put_in_place(temporary: Path, target: Path) -> None:
    """Rename a file, over an older one of that name if there is one. Raises OSError."""

    def rename() -> bool:
        temporary.replace(target)
        return True

    _patiently(rename)


def remove_folder(folder: Path) -> bool:
    """Remove a folder with all that is in it; False when something of it stays."""

    def remove() -> bool:
        shutil.rmtree(folder, ignore_errors=True)
        return not folder.exists()

    return _patiently(remove)


def _patiently(step: Callable[[], bool]) -> bool:
    """Try until it succeeds or the patience is over, when its last outcome is the answer."""
    deadline_s = time.monotonic() + PATIENCE_S
    while True:
        over = time.monotonic() >= deadline_s
        try:
            if (done := step()) or over:
                return done
        except PermissionError:
            if over:
                raise
        time.sleep(_PAUSE_S)

"""The last bounds of a query in a command of its own: what DuckDB can't stop ends with the process.

DuckDB counts the memory of its tables and listens between blocks of rows. A function that makes
one huge value (`repeat`, a list of a billion numbers) does neither: it takes what it likes and
hears nothing until it is done. Only a process that is our own may be bounded so.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Final

from results.errors import UserError
from results.sql.deadline import Deadline

GRACE_S: Final = 5.0
"""Beyond the time limit: what listens at all has ended by then."""

_AGAIN_S: Final = 0.1
_MORE: Final = 1.5
_BASE_BYTES: Final = 2**30


def bound_memory(query_bytes: int) -> None:
    """Let this process have half again as much as its queries may, and 1 GiB, beyond what it has.

    More is refused by the system, which DuckDB tells as an error. Linux only: elsewhere nothing
    counts what is a process's own.
    """
    if sys.platform != "linux":
        return
    import resource

    bound = _data_bytes() + int(query_bytes * _MORE) + _BASE_BYTES
    _, most = resource.getrlimit(resource.RLIMIT_DATA)
    with suppress(ValueError, OSError):
        if most == resource.RLIM_INFINITY or bound < most:
            resource.setrlimit(resource.RLIMIT_DATA, (bound, most))


def _data_bytes() -> int:
    """What this process has of its own now (VmData, proc_pid_status(5))."""
    import psutil

    return int(psutil.Process().memory_info().data)


@contextmanager
def ending_after(deadline: Deadline, tidy: Callable[[], None]) -> Iterator[None]:
    """End this process when what runs inside goes on for `GRACE_S` beyond its time.

    `tidy` removes what would be left behind. A reader of the answer who waits ends nothing.
    """
    done = threading.Event()

    def end() -> None:
        while deadline.over_s < GRACE_S:
            if done.wait(_AGAIN_S):
                return
        tidy()
        text = (
            f"{deadline.error()}, and this process with it: nothing else could stop it, as when it "
            "makes one huge value\n"
        )
        with suppress(OSError):
            os.write(2, text.encode())
        os._exit(UserError.exit_code)

    threading.Thread(target=end, name="last-resort", daemon=True).start()
    try:
        yield
    finally:
        done.set()

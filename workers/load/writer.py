"""Work for a thread of the operating system, so that the generator's loop never waits for a disk.

The queue and the thread are given by the generator, because its own `queue` and `threading` are
gevent's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

JOBS_MAX: Final = 128
"""Blocks of rows that may wait for a slow disk: about a million rows, 50 MB."""

Job = Callable[[], None]


class BackgroundWriter:
    """Does jobs in their order; what one of them raises is kept in `failures`."""

    def __init__(
        self,
        make_queue: Callable[[], Any],
        start_thread: Callable[[Callable[[], None], tuple[()]], object],
    ) -> None:
        self._jobs = make_queue()
        self.failures: list[Exception] = []
        start_thread(self._work, ())

    def put(self, job: Job) -> bool:
        """Do it later; False when too much waits already."""
        if self._jobs.qsize() >= JOBS_MAX:
            return False
        self._jobs.put(job)
        return True

    def after_all(self, done: Callable[[], object]) -> None:
        """Call `done` on the thread when everything until now is done."""
        self._jobs.put(done)

    def _work(self) -> None:
        while True:
            job = self._jobs.get()
            try:
                job()
            except Exception as error:
                self.failures.append(error)

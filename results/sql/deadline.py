"""Until when a query must be answered: everything that is done for it shares one bound.

What whoever reads the answer does with it meanwhile is not the query's time, and does not count.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Final

from results.errors import UserError


class NeedsMore(UserError):
    """A query needs more time or memory (`what`) than it may have.

    `option` is that of `bench sql` by which it may have more; other commands have none.
    """

    def __init__(self, text: str, what: str, option: str) -> None:
        super().__init__(text)
        self.what = what
        self.option = option


@dataclass(slots=True, eq=False)
class Deadline:
    """A moment, in seconds of the monotonic clock, and how long it was away at first."""

    seconds: float
    ends_s: float
    _paused_s: float | None = None

    @classmethod
    def after(cls, seconds: float) -> Deadline:
        """So many seconds from now."""
        return cls(seconds, time.monotonic() + seconds)

    def pause(self) -> None:
        """From here on time does not count."""
        if self._paused_s is None:
            self._paused_s = time.monotonic()

    def resume(self) -> None:
        """From here on it counts again."""
        if self._paused_s is not None:
            # In this order: another thread may ask in between whether it is over.
            self.ends_s += time.monotonic() - self._paused_s
            self._paused_s = None

    @property
    def over_s(self) -> float:
        """For how long it has passed; below 0 before."""
        now_s = time.monotonic() if self._paused_s is None else self._paused_s
        return now_s - self.ends_s

    @property
    def is_over(self) -> bool:
        """Whether it has passed."""
        return self.over_s >= 0

    def check(self) -> None:
        """Raise NeedsMore when it has passed."""
        if self.is_over:
            raise self.error()

    def error(self) -> NeedsMore:
        """What is told when it has."""
        return NeedsMore(f"the query was stopped after {self.seconds:g} s", "time", "--timeout")


NEVER: Final = Deadline(math.inf, math.inf)

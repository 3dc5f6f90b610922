"""Until when a query must be answered: everything that is done for it shares one bound."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Final

from results.errors import UserError


@dataclass(frozen=True, slots=True)
class Deadline:
    """A moment, in seconds of the monotonic clock, and how long it was away at first."""

    seconds: float
    ends_s: float

    @classmethod
    def after(cls, seconds: float) -> Deadline:
        """So many seconds from now."""
        return cls(seconds, time.monotonic() + seconds)

    @property
    def is_over(self) -> bool:
        """Whether it has passed."""
        return time.monotonic() >= self.ends_s

    def check(self) -> None:
        """Raise UserError when it has passed."""
        if self.is_over:
            raise self.error()

    def error(self) -> UserError:
        """What is told when it has."""
        return UserError(
            f"the query was stopped after {self.seconds:g} s; ask for less, or give it more time "
            "with --timeout"
        )


NEVER: Final = Deadline(math.inf, math.inf)

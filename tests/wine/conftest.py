"""A Windows machine for the tests of a module."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.wine.machine import WindowsPython
from tests.wine.prefix import need_wine, windows_python


@pytest.fixture(scope="module")
def machine() -> Iterator[WindowsPython]:
    """A Windows machine with this checkout installed; it takes some seconds to come up."""
    need_wine()
    with windows_python() as made:
        yield made

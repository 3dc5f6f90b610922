"""Where the matrices, scenarios and services that come with Heapgate lie."""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).resolve().parent


def matrix_path(name: str) -> Path:
    """The shipped matrix of that name, for example `demo`."""
    return FOLDER / "matrices" / f"{name}.yaml"

"""Where the matrices, scenarios and services that come with Heapgate lie."""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).resolve().parent


def matrix_path(name: str) -> Path:
    """The shipped matrix of that name, for example `demo`."""
    return FOLDER / "matrices" / f"{name}.yaml"


def scenario_path(name: str) -> Path | None:
    """The shipped scenario of that name, or None when there is none."""
    return FOLDER / "scenarios" / f"{name}.py" if name in shipped_scenarios() else None


def shipped_scenarios() -> list[str]:
    """Names of the scenarios that come with Heapgate."""
    return sorted(path.stem for path in (FOLDER / "scenarios").glob("[!_]*.py"))

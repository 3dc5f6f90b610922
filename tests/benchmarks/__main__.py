"""Measure Heapgate's own hot paths: `python -m tests.benchmarks --area core`.

Every module `bench_*.py` in this folder names its AREA and yields `figures()`. The exit code is
1 when a figure misses its target.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

from rich.console import Console

from tests.benchmarks.figures import Figure, keep, show

AREAS = ("core", "cluster", "load", "results", "signoff")


def main() -> int:
    """Measure what was asked for, print it, keep it, and give the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("--area", choices=(*AREAS, "all"), default="all")
    area = parser.parse_args().area
    console = Console(width=None if sys.stdout.isatty() else 120)
    measured = []
    for figure in _figures(area):
        console.print(f"{figure.name}: {figure.value:,.4g} {figure.unit}", style="dim")
        keep(figure)
        measured.append(figure)
    if not measured:
        console.print(f"nothing is measured in area {area} yet")
        return 0
    show(measured, console)
    return int(not all(figure.holds for figure in measured))


def _figures(area: str) -> Iterator[Figure]:
    for module in _modules():
        if area in ("all", module.AREA):
            yield from module.figures()


def _modules() -> Iterator[ModuleType]:
    for path in sorted(Path(__file__).parent.glob("bench_*.py")):
        module = importlib.import_module(f"tests.benchmarks.{path.stem}")
        assert module.AREA in AREAS, f"{path.name} names the unknown area {module.AREA}"
        yield module


if __name__ == "__main__":
    # The programs that are measured must be found whatever PATH says.
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    sys.exit(main())

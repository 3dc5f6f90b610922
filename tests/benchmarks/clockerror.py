"""How sure a node is of the head's clock: on loopback, over a cable, and from Windows."""

from __future__ import annotations

import json
import secrets
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

from orchestrator.membership.pki import Authority
from results.collecting.process import CollectorProcess
from tests.benchmarks.figures import Figure
from tests.benchmarks.keys import tls_folder
from tests.orchestrator.clusters import linked_namespaces
from tests.wine.machine import windows_path
from tests.wine.prefix import windows_python

AREA = "cluster"
TIMES = 40
ROOT = Path(__file__).resolve().parents[2]
MEASURE = f"""
import json, pathlib, sys
from workers.clockoffset import measure_at
address, tls = sys.argv[1], pathlib.Path(sys.argv[2])
found = [measure_at(address, tls) for _ in range({TIMES})]
print(json.dumps([[f.offset_ns, f.error_ns] for f in found]))
"""


def clock_error(folder: Path) -> Iterator[Figure]:
    """The error bound that a node would write down, and how far off it really was.

    All these nodes show this machine's clock, so the true offset is nought.
    """
    folder.mkdir()
    authority = Authority.make(days=1)
    node = tls_folder(folder / "node", authority, "node", "node")
    with _head(folder / "here", authority, "127.0.0.1") as address:
        yield from _figures("loopback", _on_linux([], address, node), 1.0)
        with windows_python() as windows:
            found = windows.run(["-c", MEASURE, address, windows_path(node)]).stdout
        yield from _figures("from Windows under Wine", found, None)
    with (
        linked_namespaces("hgclk", "10.231.9") as (first, second),
        _head(folder / "far", authority, "10.231.9.1", first) as address,
    ):
        inside = ["ip", "netns", "exec", second]
        yield from _figures("over a cable", _on_linux(inside, address, node), 1.0)


@contextmanager
def _head(folder: Path, authority: Authority, listen: str, namespace: str = "") -> Iterator[str]:
    """A collector, which has the head's clock; its address."""
    folder.mkdir()
    (folder / "token").write_text(secrets.token_hex(32), encoding="ascii")
    tls = tls_folder(folder / "tls", authority, "head", "head", listen)
    inside = ["ip", "netns", "exec", namespace] if namespace else []
    command = [
        *(*inside, sys.executable, "-m", "results.collecting.collector", "--archive", str(folder)),
        *("--run-id", "20260101-000000-c10c", "--token-file", str(folder / "token")),
        *("--listen", listen, "--tls", str(tls)),
    ]
    log = folder / "collector.log"
    collector = CollectorProcess(command, log, token_file=folder / "token", tls=tls)
    try:
        yield collector.address
    finally:
        collector.stop()


def _on_linux(inside: list[str], address: str, tls: Path) -> str:
    command = [*inside, sys.executable, "-c", MEASURE, address, str(tls)]
    return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout


def _figures(name: str, told: str, most_ms: float | None) -> Iterator[Figure]:
    found = [(offset / 1e6, error / 1e6) for offset, error in json.loads(told)]
    error_ms, worst_ms = median(e for _, e in found), max(e for _, e in found)
    name = f"clock offset {name}"
    if most_ms is None:
        yield Figure.told(AREA, f"{name}: error bound, median", error_ms, "ms")
    else:
        yield Figure.at_most(AREA, f"{name}: error bound, median", error_ms, "ms", most_ms)
    yield Figure.told(AREA, f"{name}: error bound, worst of {len(found)}", worst_ms, "ms")
    outside = sum(abs(offset) > error for offset, error in found)
    yield Figure.at_most(AREA, f"{name}: truth outside of the bound", outside, "", 0)

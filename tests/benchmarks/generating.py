"""A load generator against a server, each on cores of its own, for measuring the generator."""

from __future__ import annotations

import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from orchestrator.builds.builds import build_go
from orchestrator.builds.toolchains import ensure
from results.clock import ClockMap, steady_ns
from results.record import LoadRecord
from workers.affinity import allowed_cores, pin
from workers.load.group import GeneratorGroup
from workers.load.process import generator_document
from workers.spec import LoadSpec

ROOT = Path(__file__).resolve().parents[2]
WARMUP_NS = 500_000_000
LEAD_NS = 100_000_000


@dataclass(frozen=True)
class Cores:
    """Which cores the server has, and which the generator."""

    server: tuple[int, ...]
    generator: tuple[int, ...]

    @classmethod
    def apart(cls) -> Cores:
        """The first core for the load, the last for the server."""
        cores = sorted(allowed_cores())
        return cls((cores[-1],), (cores[0],))


@contextmanager
def serving(source: Path, cores: Sequence[int], *arguments: str) -> Iterator[str]:
    """A Go service on these cores; gives its address."""
    built = build_go(ensure("1.23"), source)
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    process = subprocess.Popen(
        [built.path, "-addr", f"127.0.0.1:{port}", *arguments], stdout=subprocess.DEVNULL
    )
    try:
        pin(process.pid, tuple(cores))
        _until_open(port)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(10)


def _until_open(port: int) -> None:
    deadline_s = time.monotonic() + 10
    while time.monotonic() < deadline_s:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.02)
        else:
            return
    raise TimeoutError(f"nothing listens on port {port}")


@dataclass(frozen=True)
class Made:
    """What one load came to."""

    account: LoadRecord
    seconds: float
    rows: pa.Table

    @property
    def rate_rps(self) -> float:
        """Requests a second in measure."""
        return self.account.measured / self.seconds


def make_load(url: str, load: LoadSpec, seconds: float, cores: Sequence[int]) -> Made:
    """Run a load to its end; every request is written to the spool on the way."""
    with tempfile.TemporaryDirectory(prefix="hgload-") as name:
        folder = Path(name)
        document = generator_document(
            load=load, base_url=url, spool_root=folder / "spool", run_id="r", trial_id="t",
            clock=ClockMap.read(), warmup_ns=WARMUP_NS, measure_ns=round(seconds * 1e9),
        )  # fmt: skip
        group = GeneratorGroup(document, folder / "generator.log", tuple(cores))
        try:
            group.wait_ready(timeout_s=60)
            group.prepare(timeout_s=60)
            group.go(steady_ns() + LEAD_NS)
            account, _ = group.wait_done(lambda: False)
        finally:
            group.close()
        if account is None:
            raise RuntimeError((folder / "generator.log").read_text(encoding="utf-8"))
        return Made(account, seconds, _rows(folder / "spool"))


def _rows(spool: Path) -> pa.Table:
    batches = []
    for path in sorted(spool.glob("t/requests*/*.arrow")):
        with pa.ipc.open_stream(path.read_bytes()) as reader:
            batches.append(reader.read_all())
    return pa.concat_tables(batches).unify_dictionaries()


def scenario(folder: Path, text: str) -> str:
    """The path of a locustfile with this text."""
    path = folder / f"scenario_{abs(hash(text))}.py"
    path.write_text(text, encoding="utf-8")
    return str(path)

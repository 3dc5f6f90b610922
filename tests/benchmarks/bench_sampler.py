"""What sampling costs: the sampler's own CPU time, as a share of one processor core.

Beside it stands what it is made of: waking up, and looking at the kernel's files. The rest is
making rows and handing them over. A machine that does other work makes all of it dearer, for each
look begins with caches that hold something else: compare figures of one run.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

from results.clock import ClockMap
from results.schema import MEMORY
from tests.benchmarks.figures import Figure
from workers.limits import Limiter, open_limiter
from workers.sampling.linux import ProcessSampler
from workers.sampling.loop import SampleLoop
from workers.spec import LimitsSpec
from workers.spool import Spool

AREA = "core"
RESIDENT_BYTES = 2**30
LENGTH_S = 10.0
PROGRAM = """\
import sys, threading
held = bytearray(int(sys.argv[1]))
held[::4096] = bytes([1]) * len(held[::4096])
for _ in range(7):
    threading.Thread(target=threading.Event().wait, daemon=True).start()
print("ready", flush=True)
sys.stdin.read()
"""


def figures() -> Iterator[Figure]:
    """The sampler at its usual rate and at its highest, every column, into a real spool."""
    with _service() as (pid, limiter), closing(ProcessSampler(pid, limiter)) as sampler:
        _share(pid, limiter, 100, length_s=1.0)  # what is paid once in a node's life
        for rate_hz, most in ((10, 0.1), (100, 1.0)):
            # On a virtual machine waking alone costs much: this part no sampler can save.
            for what, work in (("only wakes", lambda: None), ("wakes and looks", sampler.look)):
                name = f"a thread that {what} at {rate_hz} Hz"
                yield Figure.told(AREA, name, _share_of(work, rate_hz), "% core")
            share = _share(pid, limiter, rate_hz)
            yield Figure.at_most(
                AREA, f"sampler at {rate_hz} Hz, 1 GiB, {limiter.mechanism}", share, "% core", most
            )


@contextmanager
def _service() -> Iterator[tuple[int, Limiter]]:
    """A process of 1 GiB with eight threads, in a control group of its own."""
    limiter = open_limiter(f"bench-{os.getpid()}", "sampler")
    with ExitStack() as stack:
        stack.callback(limiter.remove)
        limiter.apply(LimitsSpec(memory_max_bytes=2 * RESIDENT_BYTES))
        join = "".join(f"echo $$ > {path}; " for path in limiter.join_paths)
        process = subprocess.Popen(
            ["/bin/sh", "-c", f'{join}exec "$0" "$@"', sys.executable, "-c", PROGRAM,
             str(RESIDENT_BYTES)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )  # fmt: skip
        stack.enter_context(process)
        stack.callback(process.kill)
        assert process.stdout
        assert process.stdout.readline() == b"ready\n"
        yield process.pid, limiter


def _share(pid: int, limiter: Limiter, rate_hz: int, length_s: float = LENGTH_S) -> float:
    """Percent of one core that the sampling thread uses, batches written to disk among it.

    What a sample costs, times the rate: on a full machine some instants pass without one.
    """
    with tempfile.TemporaryDirectory() as folder:
        stream = Spool(Path(folder), "bench", "sampler").stream(MEMORY)
        loop = SampleLoop(
            pid,
            limiter,
            interval_ns=1_000_000_000 // rate_hz,
            sink=stream.append,
            phase=lambda: "measure",
            clock=ClockMap.read(),
        )
        loop.start()
        time.sleep(length_s)
        loop.stop()
    return 100 * rate_hz * loop.cpu_ns / 1e9 / loop.samples


def _share_of(work: Callable[[], object], rate_hz: int) -> float:
    """Percent of one core of a thread that does one thing at a rate."""
    began_s, began_ns = time.monotonic(), time.thread_time_ns()
    for _ in range(int(LENGTH_S / 2 * rate_hz)):
        time.sleep(1 / rate_hz)
        work()
    return 100 * (time.thread_time_ns() - began_ns) / 1e9 / (time.monotonic() - began_s)

"""What takes long: each job in a process of its own, so that pages stay quick and it can be ended.

One process waits ahead, its imports done. A job is killed when its time is over, when nobody waits
for it any more, and when the server ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from results.errors import EnvironmentLacks, UserError

AT_ONCE: Final = 2
WAITING_MAX: Final = 16
SQL_TIMEOUT_S: Final = 30.0
PAGE_TIMEOUT_S: Final = 300.0
GRACE_S: Final = 10.0
"""A query ends itself in time; this much later its process is killed."""

_LINE_MAX_BYTES: Final = 64 * 2**20


@dataclass(slots=True, eq=False)
class _Process:
    """A worker, and the folder in which it may write."""

    process: asyncio.subprocess.Process
    folder: Path

    async def end(self) -> None:
        """Kill it, and what it started, and remove its folder."""
        if self.process.returncode is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                if sys.platform == "win32":
                    self.process.kill()
                else:
                    os.killpg(self.process.pid, signal.SIGKILL)
        await self.process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)


class Jobs:
    """All jobs of one server; `close` ends them."""

    def __init__(self, archives: Sequence[str | Path]) -> None:
        self._archives = archives
        self._root = Path(tempfile.mkdtemp(prefix="heapgate-serve-"))
        self._places = asyncio.Semaphore(AT_ONCE)
        self._waiting = 0
        self._running: set[_Process] = set()
        self._spare: asyncio.Task[_Process] | None = None

    def prepare(self) -> None:
        """Start the process that waits for the next job."""
        self._spare = asyncio.create_task(self._started())

    async def close(self) -> None:
        """End everything and leave nothing."""
        if self._spare:
            self._spare.cancel()
            with contextlib.suppress(asyncio.CancelledError, OSError):
                self._running.add(await self._spare)
        for worker in list(self._running):
            await worker.end()
        shutil.rmtree(self._root, ignore_errors=True)

    async def page(
        self, name: str, archives: Sequence[str | Path] | None = None, **arguments: Any
    ) -> str:
        """A job that makes a page, of some of the archives or of all.

        Raises UserError as the job does, or when it takes too long.
        """
        async with self._done(name, PAGE_TIMEOUT_S, arguments, archives) as (_, payload):
            return payload.decode()

    async def query(self, sql: str) -> dict[str, Any]:
        """The first rows of the answer to a query. Raises UserError."""
        arguments = {"query": sql, "timeout_s": SQL_TIMEOUT_S}
        async with self._done("sql", SQL_TIMEOUT_S + GRACE_S, arguments) as (told, _):
            return told

    @contextlib.asynccontextmanager
    async def file(self, sql: str, form: str) -> AsyncIterator[Path]:
        """The whole answer to a query as a file, gone afterwards. Raises UserError."""
        arguments = {"query": sql, "timeout_s": SQL_TIMEOUT_S, "form": form}
        async with self._done("download", SQL_TIMEOUT_S + GRACE_S, arguments) as (told, _):
            yield Path(told["path"])

    @contextlib.asynccontextmanager
    async def _done(
        self,
        name: str,
        timeout_s: float,
        arguments: dict[str, Any],
        archives: Sequence[str | Path] | None = None,
    ) -> AsyncIterator[tuple[dict[str, Any], bytes]]:
        if self._waiting >= WAITING_MAX:
            raise EnvironmentLacks("too much is asked for at once; try again in a moment")
        self._waiting += 1
        worker = None
        try:
            async with self._places:
                worker = await self._taken()
                named = [str(archive) for archive in archives or self._archives]
                job = {"name": name, "archives": named, "arguments": arguments}
                answer = await _asked(worker, job, timeout_s)
            yield answer  # how long a file takes to be sent keeps nobody waiting
        finally:
            self._waiting -= 1
            if worker:
                await asyncio.shield(worker.end())
                self._running.discard(worker)

    async def _taken(self) -> _Process:
        """The process that waits; the next one is started at once."""
        if self._spare is None:
            self.prepare()
        assert self._spare is not None
        spare, self._spare = self._spare, None
        worker = await spare
        self._running.add(worker)
        self.prepare()
        return worker

    async def _started(self) -> _Process:
        folder = Path(tempfile.mkdtemp(prefix="job-", dir=self._root))
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "results.serve.worker", str(folder)),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            limit=_LINE_MAX_BYTES,
            start_new_session=True,
        )
        return _Process(process, folder)


async def _asked(
    worker: _Process, job: dict[str, Any], timeout_s: float
) -> tuple[dict[str, Any], bytes]:
    stdin, stdout = worker.process.stdin, worker.process.stdout
    assert stdin is not None and stdout is not None
    try:
        async with asyncio.timeout(timeout_s):
            stdin.write(json.dumps(job).encode() + b"\n")
            await stdin.drain()
            told = json.loads(await stdout.readline())
            payload = await stdout.readexactly(told["length"])
    except TimeoutError as error:
        raise UserError(f"it was stopped after {timeout_s:g} s") from error
    except (ValueError, OSError, asyncio.IncompleteReadError) as error:
        raise EnvironmentLacks(
            "the process that answers ended without an answer; it may have needed more memory "
            "than a page may take: ask for less, or use the command instead"
        ) from error
    if "error" in told:
        raise UserError(told["error"])
    if "fault" in told:
        raise RuntimeError(told["fault"])
    return told, payload

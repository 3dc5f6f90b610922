"""One question to the archive, in a process of its own: python -m results.serve.worker FOLDER.

It reads one line of JSON, answers with one line of JSON and the bytes that this announces, and
ends. All that it writes lies in FOLDER. It is started ahead, so that an answer does not wait for
imports. When the server is gone, its end of the pipe is closed: then this process removes the
server's folder and ends.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from results.errors import HeapgateError, UserError
from results.sql.deadline import NeedsMore

SQL_MEMORY: Final = "2GiB"
"""What a query may hold; more goes to FOLDER."""

PROCESS_MEMORY_BYTES: Final = 4 * 2**30
"""What the whole process may hold, on Linux: one cell of an answer may be as large as one likes."""

FILE_MAX_BYTES: Final = 2**30
"""The largest download, on Linux."""

Answer = tuple[dict[str, Any], bytes]
"""What is told in the line of JSON, and the bytes behind it."""


def report(archives: list[str], run_id: str) -> Answer:
    """The report of a run of the one archive, a whole page."""
    from results.report.page import render_report

    (archive,) = archives
    return {}, render_report(Path(archive), run_id).encode()


def compare(archives: list[str], run_ids: list[str]) -> Answer:
    """Several runs compared as one, a whole page."""
    from results.serve.comparepage import render_comparison
    from results.sql.database import open_archives

    with open_archives(archives, run_ids) as database:
        return {}, render_comparison(database.comparison(), database.notes).encode()


def sql(archives: list[str], query: str, timeout_s: float) -> Answer:
    """The first rows of the answer to a query, as text."""
    from results.sql.query import first_rows

    began_s = time.monotonic()
    with _database(archives) as database:
        with database.stream(query, timeout_s=timeout_s) as answer:
            shown = first_rows(answer)
        notes = list(database.notes)
    return {
        "names": shown.names,
        "numbers": shown.numbers,
        "cells": shown.cells,
        "more": shown.more,
        "notes": notes,
        "took_s": time.monotonic() - began_s,
    }, b""


def download(archives: list[str], query: str, timeout_s: float, form: str) -> Answer:
    """The whole answer to a query as a file in this process's folder."""
    from results.sql.query import write_result

    path = Path.cwd() / f"answer.{form}"
    try:
        with (
            _database(archives) as database,
            database.stream(query, timeout_s=timeout_s) as answer,
            path.open("w", encoding="utf-8", newline="") as file,
        ):
            write_result(answer, form, file)
    except OSError as error:
        if error.errno != errno.EFBIG:
            raise
        raise UserError(
            f"the answer is larger than {FILE_MAX_BYTES / 2**30:g} GiB; ask for less, or use: "
            "bench sql"
        ) from error
    return {"path": str(path)}, b""


JOBS: Final[dict[str, Callable[..., Answer]]] = {
    "report": report,
    "compare": compare,
    "sql": sql,
    "download": download,
}


def _database(archives: list[str]) -> Any:
    from results.sql.database import Limits, open_archives

    _limit("RLIMIT_DATA", PROCESS_MEMORY_BYTES)
    _limit("RLIMIT_FSIZE", FILE_MAX_BYTES)
    # What this server found right needs no second look; nothing of it stays.
    checked = Path.cwd().parent / "checked.json"
    limits = Limits(memory=SQL_MEMORY)
    return open_archives(archives, checked=lambda _: checked, limits=limits, leave_out=True)


def _limit(name: str, value: int) -> None:
    if sys.platform == "linux":
        import resource

        resource.setrlimit(getattr(resource, name), (value, value))


def main() -> None:
    """Wait for one job, do it, end."""
    folder = Path(sys.argv[1])
    os.chdir(folder)
    tempfile.tempdir = str(folder)
    if hasattr(os, "nice"):
        os.nice(10)  # a run that measures on this machine goes first
    import results.sql.database
    import results.sql.query  # noqa: F401 — what every job needs is there when it comes

    line = sys.stdin.buffer.readline()
    if not line:
        _end_with_server(folder)
    threading.Thread(target=_watch_server, args=(folder,), daemon=True).start()
    told, payload = _answer(json.loads(line))
    out = sys.stdout.buffer
    out.write(json.dumps(told | {"length": len(payload)}).encode() + b"\n" + payload)
    out.flush()


def _answer(job: dict[str, Any]) -> Answer:
    try:
        return JOBS[job["name"]](job["archives"], **job["arguments"])
    except NeedsMore as error:
        more = f"ask for less, or give it more {error.what} with: bench sql {error.option}"
        return {"error": f"{error}; {more}" if "query" in job["arguments"] else str(error)}, b""
    except HeapgateError as error:
        return {"error": str(error)}, b""
    except MemoryError:
        return {"error": "it needs more memory than a page may take; use the command instead"}, b""
    except Exception as error:
        return {"fault": f"{type(error).__name__}: {error}"}, b""


def _watch_server(folder: Path) -> None:
    # Not through Python's buffer: its lock, held here, would be missing when this process ends.
    while os.read(sys.stdin.fileno(), 1):
        pass
    _end_with_server(folder)


def _end_with_server(folder: Path) -> None:
    with suppress(OSError):
        shutil.rmtree(folder.parent, ignore_errors=True)
    os._exit(0)


if __name__ == "__main__":
    main()

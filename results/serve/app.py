"""Which path is which page. Nothing here changes anything: it reads, and lays out.

What is quick is read in a thread; what takes long is a job (jobs.py).
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import re
import sys
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Sequence
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp

from results.archive.archive import RunEntry
from results.errors import EnvironmentLacks, HeapgateError
from results.serve import trial as trials
from results.serve.access import Access, Guard, read_form, refusal
from results.serve.jobs import SQL_TIMEOUT_S, Jobs
from results.serve.live import Live, figures
from results.serve.pages import render
from results.serve.runs import STATUSES, Filter, NotFound, Runs, newer_format, state_of

STATIC: Final = {
    "report.css": ("results.report", "style.css", "text/css"),
    "serve.css": ("results.serve", "static/serve.css", "text/css"),
    "serve.js": ("results.serve", "static/serve.js", "text/javascript"),
}
"""The report's style is where the colours are; ours adds to it."""

DOWNLOADS: Final = {
    "csv": "text/csv; charset=utf-8",
    "json": "application/json",
    "parquet": "application/vnd.apache.parquet",
}
REPORTS_KEPT: Final = 8
FRAME_POLICY: Final = "default-src 'none'; img-src data:; frame-ancestors 'self'; sandbox"
"""What stands in the report's place when there is none."""

TRIALS_SHOWN: Final = 500
_PIECE_BYTES: Final = 2**18
_META_POLICY: Final = re.compile(r'<meta http-equiv="Content-Security-Policy" content="([^"<>]*)">')
_STARTED_QUERY: Final = """\
select run_id, configuration, workload, metric, n, median, mad
from cells
where metric in ('peak_rss', 'latency_p99', 'throughput')
order by run_id desc, workload, metric, configuration"""


def make_app(archives: Sequence[str | Path], access: Access) -> ASGIApp:
    """The server's application for these archives, by folder or pattern."""
    site = Site(archives)
    routes = [
        Route("/", site.list_runs),
        Route("/runs/{run_id}", site.show_run),
        Route("/runs/{run_id}/report", site.report),
        Route("/runs/{run_id}/trials", site.list_trials),
        Route("/runs/{run_id}/trials/{trial_id}", site.show_trial),
        Route("/runs/{run_id}/live", site.show_live),
        Route("/runs/{run_id}/live/part", site.live_part),
        Route("/compare", site.compare),
        Route("/sql", site.ask, methods=["GET", "POST"]),
        Route("/sql/download", site.download, methods=["POST"]),
        Route("/static/{name}", site.static),
    ]
    app = Starlette(
        routes=routes,
        exception_handlers={
            HeapgateError: _told,
            HTTPException: _http_error,
            Exception: _our_fault,
        },
        lifespan=site.lifespan,
    )
    # Around all of it, what Starlette answers to errors included.
    return Guard(app, access)


class Site:
    """The pages of some archives."""

    def __init__(self, archives: Sequence[str | Path]) -> None:
        self._archives = archives
        self._runs = Runs(archives)
        self._live = Live(self._runs)
        self._jobs: Jobs
        self._reports: OrderedDict[str, str] = OrderedDict()

    @contextlib.asynccontextmanager
    async def lifespan(self, _: Starlette) -> AsyncIterator[None]:
        """From the first request to the last."""
        self._jobs = Jobs(self._archives)
        self._jobs.prepare()
        try:
            yield
        finally:
            await self._jobs.close()

    async def list_runs(self, request: Request) -> Response:
        """All runs, those that are wanted."""
        wanted = Filter.of(request.query_params)
        page = await asyncio.to_thread(self._runs.page, wanted)
        return _page("runs", page=page, wanted=wanted, statuses=STATUSES)

    async def show_run(self, request: Request) -> Response:
        """A run: its report in a frame of its own, which may do nothing but draw itself."""
        entry = await asyncio.to_thread(self._runs.entry, request.path_params["run_id"])
        return _page("run", entry=entry, newer=newer_format(entry))

    async def report(self, request: Request) -> Response:
        """The report alone. It has an origin of its own, so it can't use this one's session."""
        entry = await asyncio.to_thread(self._runs.entry, request.path_params["run_id"])
        state = await asyncio.to_thread(self._state_of_report, entry)
        page = self._reports.get(state)
        if page is None:
            job = self._jobs.page("report", [entry.path.parent], run_id=entry.run_id)
            try:
                page = await _while_wanted(request, job)
            except HeapgateError as error:
                # Without the session, as the frame is, it could not load our style.
                return refusal(422, str(error), headers={"Content-Security-Policy": FRAME_POLICY})
            self._reports[state] = page
            while len(self._reports) > REPORTS_KEPT:
                self._reports.popitem(last=False)
        headers = {"Content-Security-Policy": _report_policy(page)}
        if "download" not in request.query_params:
            # Its own head would stand below ours, and say the same.
            page = page.replace("</head>", "<style>.top{display:none}</style></head>", 1)
        else:
            headers["Content-Disposition"] = (
                f'attachment; filename="{_file_name(entry.run_id)}.html"'
            )
        return HTMLResponse(page, headers=headers)

    def _state_of_report(self, entry: RunEntry) -> str:
        """What changes with everything that a report shows."""
        states = [entry.run_id, *map(state_of, self._runs.beside(entry))]
        return hashlib.sha256(repr(states).encode()).hexdigest()

    async def list_trials(self, request: Request) -> Response:
        """Every trial of a run, with its reasons for doubt."""
        entry = await asyncio.to_thread(self._runs.entry, request.path_params["run_id"])
        records, lost = await asyncio.to_thread(self._runs.read_records, entry)
        return _page(
            "trials",
            entry=entry,
            newer=newer_format(entry),
            records=[(record, figures(record)) for record in records[:TRIALS_SHOWN]],
            left_out=len(records[TRIALS_SHOWN:]),
            lost=lost,
        )

    async def show_trial(self, request: Request) -> Response:
        """One trial."""
        entry = await asyncio.to_thread(self._runs.entry, request.path_params["run_id"])
        record, folder = await asyncio.to_thread(
            self._runs.trial, entry, request.path_params["trial_id"]
        )
        return _page(
            "trial",
            entry=entry,
            newer=None,
            record=record,
            facts=trials.facts(record),
            grids=trials.grids(record),
            provenance=trials.provenance(record),
            log=await asyncio.to_thread(trials.log_tail, folder),
        )

    async def show_live(self, request: Request) -> Response:
        """A run that goes on; the page asks again by itself."""
        entry = await asyncio.to_thread(self._runs.entry, request.path_params["run_id"])
        if newer_format(entry) is not None:
            return RedirectResponse(f"/runs/{quote(entry.run_id)}", 303)
        live = await asyncio.to_thread(self._live.look, entry.run_id)
        return _page("live", entry=entry, newer=None, live=live)

    async def live_part(self, request: Request) -> Response:
        """What has changed on that page; nothing when nothing has."""
        live = await asyncio.to_thread(self._live.look, request.path_params["run_id"])
        part = render("livepart", live=live)
        tag = f'"{hashlib.sha256(part.encode()).hexdigest()[:32]}"'
        headers = {"ETag": tag, "Heapgate-Running": "yes" if live.running else "no"}
        if request.headers.get("if-none-match") == tag:
            return Response(status_code=304, headers=headers)
        return HTMLResponse(part, headers=headers)

    async def compare(self, request: Request) -> Response:
        """Runs that were chosen from the list, compared as one."""
        chosen = list(dict.fromkeys(request.query_params.getlist("run")))
        entries = await asyncio.to_thread(lambda: [self._runs.entry(name) for name in chosen])
        if not entries:
            return RedirectResponse("/", 303)
        run_ids = [entry.run_id for entry in entries]
        page = await _while_wanted(request, self._jobs.page("compare", run_ids=run_ids))
        return HTMLResponse(page)

    async def ask(self, request: Request) -> Response:
        """The box for SQL, and the first rows of an answer."""
        context: dict[str, Any] = {"query": _STARTED_QUERY, "answer": None, "error": ""}
        status = 200
        if request.method == "POST":
            context["query"] = query = await _query_of(request)
            try:
                context["answer"] = await _while_wanted(request, self._jobs.query(query))
            except HeapgateError as error:
                context["error"], status = str(error), 422
        archives = len(await asyncio.to_thread(self._runs.archives))
        views = await asyncio.to_thread(_views)
        running = await asyncio.to_thread(self._running)
        context |= {"archives": archives, "views": views, "running": running}
        return _page("sql", status, seconds=SQL_TIMEOUT_S, **context)

    def _running(self) -> list[str]:
        with contextlib.suppress(HeapgateError):
            return [entry.run_id for entry in self._runs.entries() if entry.status == "running"]
        return []

    async def download(self, request: Request) -> Response:
        """The whole answer as a file. It is complete before it is sent, or it is an error."""
        form = request.query_params.get("form", "")
        if form not in DOWNLOADS:
            raise NotFound("there is no such form of an answer")
        query = await _query_of(request)
        stack = contextlib.AsyncExitStack()
        path = await _while_wanted(request, stack.enter_async_context(self._jobs.file(query, form)))
        headers = {
            "Content-Disposition": f'attachment; filename="answer.{form}"',
            "Content-Length": str(path.stat().st_size),
        }
        return StreamingResponse(_pieces(path, stack), media_type=DOWNLOADS[form], headers=headers)

    async def static(self, request: Request) -> Response:
        """Our own few files."""
        name = request.path_params["name"]
        if name not in STATIC:
            raise NotFound("there is no such file")
        package, file, kind = STATIC[name]
        return Response(resources.files(package).joinpath(file).read_bytes(), media_type=kind)


async def _pieces(path: Path, stack: contextlib.AsyncExitStack) -> AsyncIterator[bytes]:
    async with stack:
        with path.open("rb") as file:
            while piece := await asyncio.to_thread(file.read, _PIECE_BYTES):
                yield piece


async def _query_of(request: Request) -> str:
    try:
        fields = await read_form(request)
    except ValueError as error:
        raise HTTPException(413, str(error)) from error
    return fields.get("sql", [""])[0].replace("\r\n", "\n")


async def _while_wanted(request: Request, job: Awaitable[Any]) -> Any:
    """The outcome of a job, which is cancelled when nobody waits for it any more."""

    async def gone() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    working, leaving = asyncio.ensure_future(job), asyncio.create_task(gone())
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        raise HTTPException(499, "the browser has gone")
    finally:
        for task in (working, leaving):
            task.cancel()
        await asyncio.wait({working, leaving})


def _report_policy(page: str) -> str:
    """The report's own policy, and that it has no origin: it may run its own scripts, alone."""
    own = _META_POLICY.search(page)
    policy = own[1].replace("&#39;", "'") if own else "default-src 'none'"
    return (
        f"{policy}; base-uri 'none'; form-action 'none'; frame-ancestors 'self'; "
        "sandbox allow-scripts allow-downloads allow-modals"
    )


def _file_name(text: str) -> str:
    return re.sub(r"[^\w.-]", "_", text, flags=re.ASCII)


@cache
def _views() -> list[Any]:
    from results.sql.reference import described_views

    return described_views()


def _page(template: str, status: int = 200, **context: Any) -> HTMLResponse:
    return HTMLResponse(render(template, **context), status)


async def _told(_: Request, error: Exception) -> Response:
    """What a person can do something about."""
    status = 404 if isinstance(error, NotFound) else 422
    if isinstance(error, EnvironmentLacks):
        status = 503
    return _page("error", status, text=str(error))


async def _http_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    text = "There is no such page." if error.status_code == 404 else str(error.detail)
    return _page("error", error.status_code, text=text)


async def _our_fault(_: Request, error: Exception) -> Response:
    """A page that can't be made takes no other with it."""
    what = str(error) if type(error) is RuntimeError else f"{type(error).__name__}: {error}"
    sys.stderr.write(f"a page could not be made: {what}\n")
    return _page("error", 500, text=f"This page could not be made: {what}")

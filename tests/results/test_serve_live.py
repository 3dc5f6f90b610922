"""The page of a run that goes on, from the journals that a real collector writes meanwhile."""

from __future__ import annotations

import queue
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from archives import RUN_ID, write_archive
from served import Served, change_run, serving
from test_collector import encoded

from results.collecting.collector import serve
from results.schema import EVENTS, MEMORY, REQUESTS, SCHEMA_VERSION, TableSchema
from results.serve.tail import TrialTail
from results.wire import telemetry_pb2 as wire
from results.wire import telemetry_pb2_grpc as wire_grpc

MISSING = "b02-2-optimised-steady"
BASE_NS = 1_790_000_000 * 10**9
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


class Trial:
    """A trial that a node streams to a collector, step by step."""

    def __init__(self, archive: Path) -> None:
        self._server, port = serve(archive, RUN_ID, "secret", 0)
        self._channel = grpc.insecure_channel(f"127.0.0.1:{port}")
        self._outbox: queue.Queue[wire.FromAgent | None] = queue.Queue()
        self._sequences: dict[str, int] = {}
        self._answers = wire_grpc.TelemetryStub(self._channel).Publish(
            iter(self._outbox.get, None),
            metadata=(("authorization", "Bearer secret"),),
            timeout=120,
        )
        opening = wire.OpenTrial(run_id=RUN_ID, trial_id=MISSING, schema_version=SCHEMA_VERSION)
        self._tell(wire.FromAgent(open=opening))

    def _tell(self, message: wire.FromAgent) -> None:
        self._outbox.put(message)
        next(self._answers)

    def send(self, table: TableSchema, rows: list[dict[str, Any]]) -> None:
        """One batch, on disk when this returns."""
        sequence = self._sequences[table.name] = self._sequences.get(table.name, 0) + 1
        batch = wire.Batch(
            trial_id=MISSING,
            stream=table.name,
            sequence=sequence,
            arrow_ipc=encoded(table, rows),
        )
        self._tell(wire.FromAgent(batch=batch))

    def close(self) -> None:
        self._outbox.put(None)
        self._channel.close()
        self._server.stop(grace=None).wait()


def event(second: float, phase: str, **fields: Any) -> dict[str, Any]:
    plain = {"kind": "phase", "level": "info", "message": f"{phase} begins", "value": None}
    return {"time_ns": BASE_NS + int(second * 1e9), "phase": phase} | plain | fields


def sample(second: float, rss_mib: int) -> dict[str, Any]:
    time_ns = BASE_NS + int(second * 1e9)
    return {"time_ns": time_ns, "phase": "measure", "rss_bytes": rss_mib * 2**20}


def request(second: float, latency_ms: int, error: str | None = None) -> dict[str, Any]:
    return {
        "start_ns": BASE_NS + int(second * 1e9),
        "lag_ns": 0,
        "phase": "measure",
        "service_ns": latency_ms * 10**6,
        "method": "GET",
        "name": "/",
        "status": 200,
        "error": error,
    }


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    root = write_archive(
        tmp_path / "archive",
        configurations={"default": {}, "optimised": {}},
        blocks=2,
        missing={MISSING},
        invalid={"b01-1-default-steady"},
    )
    change_run(root, RUN_ID, status="running", finished_ns=None, started_ns=time.time_ns())
    return root


@pytest.fixture
def trial(archive: Path) -> Iterator[Trial]:
    opened = Trial(archive)
    yield opened
    opened.close()


@pytest.fixture
def server(archive: Path, tmp_path: Path) -> Iterator[Served]:
    with serving(archive, tmp_path / "tmp") as served:
        yield served


def measured(trial: Trial, *, seconds: range, rss_mib: int) -> None:
    """A hundred requests a second of 5 ms, every tenth failed, ten samples a second."""
    trial.send(MEMORY, [sample(s + n / 10, rss_mib) for s in seconds for n in range(10)])
    trial.send(
        REQUESTS,
        [
            request(s + n / 100, 5, "refused" if n % 10 == 0 else None)
            for s in seconds
            for n in range(100)
        ],
    )


def test_it_tells_where_the_trial_is(server: Served, trial: Trial) -> None:
    trial.send(EVENTS, [event(0, "idle", value=2.0), event(2, "measure", value=30.0)])
    measured(trial, seconds=range(2, 10), rss_mib=200)
    page = server.ask(f"/runs/{RUN_ID}/live").text
    assert "2 of 4 trials are valid" in page
    assert "too late" in page, "what was found is told while the run goes on"
    assert MISSING in page and "measure" in page
    assert "22 s left" in page
    for figure in ("200.0 MiB", "100/s", "5 ms", "800", "80"):
        assert f'<span class="big">{figure}</span>' in page


def test_what_has_not_changed_is_not_sent_again_and_what_has_is(
    server: Served, trial: Trial
) -> None:
    trial.send(EVENTS, [event(0, "measure", value=30.0)])
    measured(trial, seconds=range(0, 5), rss_mib=200)
    path = f"/runs/{RUN_ID}/live/part"
    first = server.ask(path)
    assert first.headers["heapgate-running"] == "yes"
    same = {"If-None-Match": first.headers["etag"]}
    assert server.ask(path, headers=same).status == 304
    measured(trial, seconds=range(5, 8), rss_mib=300)
    trial.send(EVENTS, [event(8, "measure", kind="sample_gap", level="warning", message="a <gap>")])
    second = server.ask(path, headers=same)
    assert second.status == 200
    assert '<span class="big">300.0 MiB</span>' in second.text
    assert "a &lt;gap&gt;" in second.text
    assert '<span class="big">800</span>' in second.text, "each request once"


def test_a_run_that_is_over_says_so(server: Served, archive: Path) -> None:
    change_run(archive, RUN_ID, status="interrupted")
    answer = server.ask(f"/runs/{RUN_ID}/live/part")
    assert answer.headers["heapgate-running"] == "no"
    assert "The run is over: 2 of 4 trials are valid" in answer.text


def test_a_torn_batch_is_read_once_it_is_whole(archive: Path, trial: Trial) -> None:
    measured(trial, seconds=range(0, 3), rss_mib=200)
    folder = archive / RUN_ID / "trials" / f"{MISSING}.partial"
    journal = folder / "requests.journal"
    whole = journal.read_bytes()
    copy = archive / "copy"
    copy.mkdir()
    tail = TrialTail(copy)
    for cut in (0, 10, 60, len(whole) - 1, len(whole), len(whole)):
        (copy / "requests.journal").write_bytes(whole[:cut])
        tail.update()
        assert tail.sent == (300 if cut == len(whole) else 0)
    shutil.rmtree(copy)
    tail.update()
    assert tail.sent == 300


def test_the_page_follows_by_itself_and_says_when_nobody_answers(
    archive: Path, trial: Trial, tmp_path: Path
) -> None:
    if not CHROMIUM:
        pytest.skip("no chromium here: apt-get install chromium")
    playwright = pytest.importorskip("playwright.sync_api", reason="no playwright here")
    trial.send(EVENTS, [event(0, "measure", value=30.0)])
    measured(trial, seconds=range(0, 5), rss_mib=200)
    errors: list[str] = []
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        tab = browser.new_page()
        tab.set_default_timeout(120_000)
        tab.on("pageerror", lambda error: errors.append(str(error)))
        with serving(archive, tmp_path / "tmp") as served:
            tab.goto(served.url)
            tab.locator(f"a[href='/runs/{RUN_ID}/live']").click()
            tab.get_by_text("200.0 MiB", exact=True).wait_for()
            # Without a new batch it would be taken for cut off.
            beating = threading.Event()
            heart = threading.Thread(target=beat, args=(trial, beating))
            heart.start()
            tab.get_by_text("333.0 MiB", exact=True).wait_for()
            assert tab.locator(".spark polyline").count() == 2
            beating.set()
            heart.join()
        tab.get_by_text("does not answer any more").wait_for()
        browser.close()
    assert errors == []


def beat(trial: Trial, stop: threading.Event) -> None:
    second = 5
    while not stop.wait(0.5):
        measured(trial, seconds=range(second, second + 1), rss_mib=333)
        second += 1

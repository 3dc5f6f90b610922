"""Asking a service for profiles: what is no profile, or never ends, is named in time."""

from __future__ import annotations

import http.server
import threading
import time
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from results.clock import ClockMap, steady_ns
from workers.sampling import profiles
from workers.sampling.profiles import NotInTime, ProfileFailed, ProfileTaker, fetch
from workers.spec import ProfilesSpec

Answer = Callable[[http.server.BaseHTTPRequestHandler], None]


class Asked:
    """A server with answers of the test's own, on a port of loopback."""

    def __init__(self) -> None:
        self.answer: Answer = lambda _: None
        self.paths: list[str] = []
        asked = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                asked.paths.append(self.path)
                asked.answer(self)

            def log_message(self, *_: object) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.server.handle_error = lambda *_: None  # type: ignore[method-assign]
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        self._thread = threading.Thread(target=self.server.serve_forever, args=(0.02,))
        self._thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self._thread.join()
        self.server.server_close()


@pytest.fixture(scope="module")
def asked() -> Iterator[Asked]:
    made = Asked()
    yield made
    made.close()


def whole(content: bytes, status: int = 200) -> Answer:
    def answer(request: http.server.BaseHTTPRequestHandler) -> None:
        request.send_response(status)
        request.send_header("Content-Length", str(len(content)))
        request.end_headers()
        request.wfile.write(content)

    return answer


def get(asked: Asked, patience_s: float = 20.0, bytes_max: int = 1000) -> bytes:
    return fetch(asked.url, "/debug/pprof/heap", patience_s, bytes_max, threading.Event())


@given(st.binary(max_size=1000))
def test_a_whole_answer_is_kept_as_it_is(asked: Asked, content: bytes) -> None:
    asked.answer = whole(content)
    assert get(asked) == content


def test_what_is_no_whole_answer_is_named(asked: Asked) -> None:
    def cut_off(request: http.server.BaseHTTPRequestHandler) -> None:
        request.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")

    def rubbish(request: http.server.BaseHTTPRequestHandler) -> None:
        request.wfile.write(b"\xff\xfe no HTTP at all\r\n\r\n")

    bad: dict[str, Answer] = {
        "HTTP status 404": whole(b"page not found", 404),
        "more than 1,000 bytes": whole(bytes(1001)),
        "IncompleteRead": cut_off,
        "/debug/pprof/heap: ": rubbish,
    }
    for why, answer in bad.items():
        asked.answer = answer
        with pytest.raises(ProfileFailed, match=why):
            get(asked)


def test_an_answer_that_trickles_or_never_comes_is_cut(asked: Asked) -> None:
    """Each byte comes in time, the whole does not: a limit on each read would never end it."""

    def trickles(request: http.server.BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.end_headers()
        while True:
            request.wfile.write(b"x")
            time.sleep(0.01)

    asked.answer = trickles
    with pytest.raises(NotInTime, match=r"within 0\.2 s"):
        get(asked, patience_s=0.2, bytes_max=10**9)
    never = threading.Event()
    asked.answer = lambda _: never.wait(30) and None
    with pytest.raises(NotInTime, match=r"within 0\.2 s"):
        get(asked, patience_s=0.2)
    never.set()


def test_nobody_listens() -> None:
    with pytest.raises(ProfileFailed, match="refused"):
        fetch("http://127.0.0.1:1", "/x", 5.0, 10, threading.Event())


class Taking:
    """A taker with a phase and a memory that the test sets."""

    def __init__(self, asked: Asked, spec: ProfilesSpec) -> None:
        self.phase = "measure"
        self.resident = 0
        self.rows: list[dict[str, list]] = []
        self.taker = ProfileTaker(
            asked.url,
            spec,
            sink=self.rows.append,
            phase=lambda: self.phase,
            clock=ClockMap.read(),
            resident_bytes=lambda: self.resident,
        )


def wanted(**changed: object) -> ProfilesSpec:
    plain = {
        "at": "end",
        "memory_over_bytes": None,
        "kinds": ("heap", "allocs"),
        "trace_ns": None,
        "path": "/debug/pprof",
        "port": None,
    }
    return ProfilesSpec(**(plain | changed))  # type: ignore[arg-type]


def test_no_collection_is_forced_and_each_kind_is_asked_for_once(asked: Asked) -> None:
    asked.paths.clear()
    asked.answer = whole(b"profile")
    taking = Taking(asked, wanted(trace_ns=1_500_000_000))
    taking.taker.start(steady_ns())
    taking.phase = "cooldown"
    taking.taker.finish(now=False)
    assert asked.paths == [
        "/debug/pprof/trace?seconds=1.5",
        "/debug/pprof/heap",
        "/debug/pprof/allocs",
    ]
    assert [row["content"] for row in taking.rows] == [[b"profile"]] * 3


def test_the_peak_is_waited_for_and_taken_once(asked: Asked) -> None:
    asked.answer = whole(b"profile")
    taking = Taking(asked, wanted(at="peak", memory_over_bytes=100, kinds=("heap",)))
    taking.taker.start(steady_ns())
    taking.resident = 100  # not above it
    time.sleep(3 * profiles.POLL_S)
    assert taking.rows == []
    taking.resident = 101
    taking.taker.finish(now=False)
    (row,) = taking.rows
    assert (row["phase"], row["reason"], row["resident_bytes"]) == (
        ["measure"], ["memory_over"], [101],
    )  # fmt: skip
    assert taking.taker.taken == {"heap": "measure"}


def test_a_run_that_is_stopped_does_not_wait(asked: Asked) -> None:
    never = threading.Event()
    asked.answer = lambda _: never.wait(60) and None
    taking = Taking(asked, wanted())
    taking.phase = "cooldown"
    taking.taker.start(steady_ns())
    taking.taker.finish(now=True)
    never.set()
    assert taking.rows == [] and not taking.taker._thread.is_alive()


def test_a_full_disk_is_told_at_the_end(asked: Asked) -> None:
    asked.answer = whole(b"profile")
    taking = Taking(asked, wanted(kinds=("heap",)))

    def fail(_columns: dict[str, list]) -> None:
        raise OSError("no space left on device")

    taking.taker._sink = fail
    taking.phase = "cooldown"
    taking.taker.start(steady_ns())
    with pytest.raises(OSError, match="no space"):
        taking.taker.finish(now=False)

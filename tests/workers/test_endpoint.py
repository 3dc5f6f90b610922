"""The metrics endpoint of a service: both forms, and endpoints that fail."""

from __future__ import annotations

import json
import math
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from results.clock import ClockMap
from results.schema import RUNTIME
from workers.sampling.endpoint import (
    EndpointReader,
    parse_expvar,
    parse_prometheus,
    verify_applied,
)
from workers.spec import EndpointSpec

MS = 1_000_000

PROMETHEUS = """\
# HELP go_gc_gogc_percent Heap size target percentage configured by the user.
# TYPE go_gc_gogc_percent gauge
go_gc_gogc_percent 30
# TYPE go_gc_gomemlimit_bytes gauge
go_gc_gomemlimit_bytes 1.34217728e+09
# TYPE go_sched_gomaxprocs_threads gauge
go_sched_gomaxprocs_threads 2
# TYPE go_gc_duration_seconds summary
go_gc_duration_seconds{quantile="0.5"} 5.1e-05
go_gc_duration_seconds_sum 0.25
go_gc_duration_seconds_count 12
# TYPE http_requests_total counter
http_requests_total{method="GET",path="/a\\"b"} 7
"""


class Page(BaseHTTPRequestHandler):
    """Answers with what the test put on the server."""

    protocol_version = "HTTP/1.1"
    server: Server

    def do_GET(self) -> None:
        self.server.asked.append((self.path, self.client_address[1]))
        status, body = self.server.answer
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


class Server(ThreadingHTTPServer):
    """A service with a metrics endpoint, on a free port of the loopback."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Page)
        self.answer = (200, PROMETHEUS.encode())
        self.asked: list[tuple[str, int]] = []
        self.url = f"http://127.0.0.1:{self.server_port}"


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    thread = threading.Thread(target=made.serve_forever, args=(0.01,))
    thread.start()
    yield made
    made.shutdown()
    made.server_close()
    thread.join()


def spec(kind: Any = "prometheus", interval_ns: int = 10 * MS) -> EndpointSpec:
    return EndpointSpec(kind=kind, path="/metrics", interval_ns=interval_ns)


class Rows:
    """A sink that takes only what fits the runtime table."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []

    def __call__(self, columns: dict[str, list[Any]]) -> None:
        self.rows += pa.RecordBatch.from_pydict(columns, schema=RUNTIME.arrow).to_pylist()


def wait_for(condition: Callable[[], object], what: str) -> None:
    until_s = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < until_s, f"waited in vain for {what}"
        threading.Event().wait(0.005)


def read_until(reader: EndpointReader, condition: Callable[[], object]) -> None:
    reader.start()
    try:
        wait_for(condition, "the endpoint's reader")
    finally:
        reader.stop()


def test_prometheus_rows(server: Server) -> None:
    rows = Rows()
    reader = EndpointReader(
        server.url, spec(), sink=rows, phase=lambda: "measure", clock=ClockMap.read()
    )
    read_until(reader, lambda: reader.readings >= 3)
    first = {row["metric"]: row["value"] for row in rows.rows[:7]}
    assert first["go_gc_gogc_percent"] == 30
    assert first['go_gc_duration_seconds{quantile="0.5"}'] == 5.1e-05
    assert first['http_requests_total{method="GET",path="/a\\"b"}'] == 7
    assert len(rows.rows) == 7 * reader.readings
    assert {row["phase"] for row in rows.rows} == {"measure"}
    assert reader.failures == 0
    ports = {port for _, port in server.asked}
    assert len(ports) == 1, "one connection for all readings"
    assert {path for path, _ in server.asked} == {"/metrics"}


def test_expvar_rows(server: Server) -> None:
    document = {"cmdline": ["x"], "memstats": {"Alloc": 5, "BySize": [{"Size": 0}]}, "up": True}
    server.answer = 200, json.dumps(document).encode()
    rows = Rows()
    reader = EndpointReader(
        server.url, spec("expvar"), sink=rows, phase=lambda: "idle", clock=ClockMap.read()
    )
    read_until(reader, lambda: reader.readings)
    assert [(r["metric"], r["value"]) for r in rows.rows[:2]] == [("memstats.Alloc", 5), ("up", 1)]


@pytest.mark.parametrize(
    ("status", "body", "want"),
    [
        (404, b"no such page", "HTTP status 404"),
        (200, b"<html>", "not in prometheus form"),
        (200, b"\xff\xfe{", "not in prometheus form"),
    ],
)
def test_a_failing_endpoint_is_counted_and_told(
    server: Server, status: int, body: bytes, want: str
) -> None:
    server.answer = status, body
    rows = Rows()
    reader = EndpointReader(
        server.url, spec(), sink=rows, phase=lambda: "idle", clock=ClockMap.read()
    )
    read_until(reader, lambda: reader.failures >= 2)
    assert rows.rows == [] and reader.readings == 0
    assert reader.last_failure and want in reader.last_failure
    assert want in verify_applied(server.url, spec())["unread"]


def test_an_endpoint_that_comes_back(server: Server) -> None:
    server.answer = 503, b""
    reader = EndpointReader(
        server.url, spec(), sink=Rows(), phase=lambda: "idle", clock=ClockMap.read()
    )

    def recovered() -> bool:
        if reader.failures:
            server.answer = 200, PROMETHEUS.encode()
        return reader.readings > 0

    read_until(reader, recovered)
    assert reader.failures >= 1


def test_nobody_listens() -> None:
    gone = Server()
    gone.server_close()
    assert "refused" in verify_applied(gone.url, spec())["unread"]
    reader = EndpointReader(
        gone.url, spec(), sink=Rows(), phase=lambda: "idle", clock=ClockMap.read()
    )
    read_until(reader, lambda: reader.failures)


def test_a_broken_sink_is_told_at_the_end(server: Server) -> None:
    def fail(_columns: dict[str, list[Any]]) -> None:
        raise RuntimeError("spool is broken")

    reader = EndpointReader(
        server.url, spec(), sink=fail, phase=lambda: "idle", clock=ClockMap.read()
    )
    with pytest.raises(RuntimeError, match="spool is broken"):
        read_until(reader, lambda: reader.readings)


def test_what_the_runtime_applied(server: Server) -> None:
    assert verify_applied(server.url, spec()) == {
        "GOGC": 30,
        "GOMEMLIMIT": 1280 * 2**20,
        "GOMAXPROCS": 2,
    }


def test_what_is_switched_off(server: Server) -> None:
    # GOGC=off is -1 as an unsigned 64-bit number, no memory limit the largest signed one.
    text = f"go_gc_gogc_percent {float(2**64 - 1)}\ngo_gc_gomemlimit_bytes {float(2**63 - 1)}\n"
    server.answer = 200, text.encode()
    assert verify_applied(server.url, spec()) == {"GOGC": "off", "GOMEMLIMIT": "off"}


def test_expvar_tells_no_settings(server: Server) -> None:
    assert verify_applied(server.url, spec("expvar")) == {}
    assert server.asked == []


values = st.floats(allow_nan=False)
names = st.from_regex(r"[a-z_][a-z0-9_]{0,20}", fullmatch=True)


@given(st.dictionaries(names, values))
def test_prometheus_values_are_read_as_written(metrics: dict[str, float]) -> None:
    # One untyped metric a line; names that end in a type's suffix are still themselves.
    text = "".join(f"{name} {value!r}\n" for name, value in metrics.items())
    assert dict(parse_prometheus(text)) == metrics


numbers = st.recursive(
    st.integers(-(2**53), 2**53) | values,
    lambda inner: st.dictionaries(st.text(alphabet="abc", min_size=1), inner, max_size=4),
    max_leaves=10,
)


@given(st.dictionaries(st.text(alphabet="abc", min_size=1), numbers, max_size=4))
def test_expvar_numbers_are_found_at_every_depth(document: dict[str, Any]) -> None:
    def leaves(value: Any) -> list[float]:
        if isinstance(value, dict):
            return [leaf for inner in value.values() for leaf in leaves(inner)]
        return [float(value)]

    found = [value for _, value in parse_expvar(json.dumps(document))]
    assert found == leaves(document)
    assert not any(map(math.isnan, found))

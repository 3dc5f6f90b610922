"""The fast HTTP client against servers that do right in odd ways, and servers that do wrong."""

from __future__ import annotations

import gzip
import os
import ssl
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import gevent
import httptools
import pytest
from hostile import END, RESET, Hostile, hostile_server
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from workloads.http1.client import HttpClient, Settings
from workloads.http1.response import HttpError

CASES = int(os.environ.get("HEAPGATE_HOSTILE_CASES", "150"))
GOOD = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ngood"
PATIENCE_S = 1.0


@dataclass
class Log:
    """Keeps rows as the generator would."""

    rows: list[tuple[Any, ...]] = field(default_factory=list)
    kinds: list[tuple[str, str]] = field(default_factory=list)
    watched: list[Any] = field(default_factory=list)
    told: list[dict[str, Any]] = field(default_factory=list)
    listeners: bool = False

    def now_ns(self) -> int:
        return time.monotonic_ns()

    def kind_of(self, method: str, name: str) -> int:
        self.kinds.append((method, name))
        return len(self.kinds) - 1

    def due_ns(self, _start_ns: int) -> int | None:
        return None

    def add(self, *row: Any) -> None:
        self.rows.append(row)

    def watch(self, under_way: Any) -> None:
        self.watched.append(under_way)

    def tell(self, **request: Any) -> None:
        self.told.append(request)

    @property
    def errors(self) -> list[str | None]:
        return [row[6] for row in self.rows]


def client_of(url: str, log: Log | None = None, **options: Any) -> HttpClient:
    kept = Settings(
        connect_timeout_s=2.0,
        timeout_s=options.pop("timeout_s", PATIENCE_S),
        tls=options.pop("tls", None) or ssl.create_default_context(),
        headers={"User-Agent": "test"},
    )
    return HttpClient(url, log or Log(), kept, **options)


@pytest.fixture(scope="module")
def server() -> Iterator[Hostile]:
    with hostile_server() as running:
        yield running


@pytest.fixture(autouse=True)
def fresh(server: Hostile) -> None:
    server.forget()


# Right, in odd ways

token = st.text("abcdefghijklmnopqrstuvwxyz-", min_size=1, max_size=12).filter(
    lambda name: (
        name not in ("connection", "upgrade", "content-length", "transfer-encoding", "te")
        and not name.startswith("content-encoding")
    )
)
header_values = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=0, max_size=60)


@dataclass
class Made:
    """A valid answer: its bytes, and what a client should understand of it."""

    data: bytes
    status: int
    body: bytes
    headers: dict[str, str]
    keep: bool
    until_end: bool


@st.composite
def answers(draw: st.DrawFn) -> Made:
    status = draw(st.sampled_from([200, 201, 204, 206, 301, 304, 400, 404, 429, 500, 503, 599]))
    headers = draw(st.dictionaries(token, header_values, max_size=5))
    body = b"" if status in (204, 304) else draw(st.binary(max_size=3000))
    framing = draw(st.sampled_from(["length", "chunked", "end"]))
    keep = framing != "end" and draw(st.booleans())
    lines = [f"{name}: {value}" for name, value in headers.items()]
    interim = b"".join(
        draw(
            st.lists(
                st.sampled_from(
                    [
                        b"HTTP/1.1 100 Continue\r\n\r\n",
                        b"HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n",
                    ]
                ),
                max_size=2,
            )
        )
    )
    sent = body
    if status in (204, 304):
        framing = "none"
    if framing == "length":
        lines.append(f"Content-Length: {len(body)}")
    elif framing == "chunked":
        lines.append("Transfer-Encoding: chunked")
        sent = draw(chunked(body))
    if not keep:
        lines.append("Connection: close")
    head = "\r\n".join([f"HTTP/1.1 {status} Some Reason", *lines, "", ""]).encode("latin-1")
    return Made(interim + head + sent, status, body, headers, keep, framing == "end")


@st.composite
def chunked(draw: st.DrawFn, body: bytes) -> bytes:
    cuts = sorted(draw(st.sets(st.integers(0, len(body)), max_size=5)))
    pieces = [body[a:b] for a, b in zip([0, *cuts], [*cuts, len(body)], strict=True) if a < b]
    extension = draw(st.sampled_from([b"", b";a=1", b';name="value"']))
    trailer = draw(st.sampled_from([b"", b"X-Trailer: 1\r\n"]))
    chunks = b"".join(b"%x%s\r\n%s\r\n" % (len(p), extension, p) for p in pieces)
    return chunks + b"0\r\n" + trailer + b"\r\n"


@st.composite
def pieces_of(draw: st.DrawFn, data: bytes) -> list[bytes]:
    cuts = sorted(draw(st.sets(st.integers(0, len(data)), max_size=6)))
    return [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True) if a < b]


many = settings(
    max_examples=CASES,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@many
@given(data=st.data())
def test_every_valid_answer_is_understood_however_it_is_cut(
    server: Hostile, data: st.DataObject
) -> None:
    server.forget()
    made = data.draw(answers())
    pieces = data.draw(pieces_of(made.data))
    log = Log()
    client = client_of(server.url, log)
    server.will(*pieces, then=END if made.until_end or not made.keep else "stay")
    server.will(GOOD)
    before = server.connections
    answer = client.get("/first")
    assert (answer.status_code, answer.content, answer.error) == (
        made.status,
        made.body,
        f"HTTP {made.status}" if made.status >= 400 else None,
    )
    for name, value in made.headers.items():
        assert answer.headers[name] == value.strip()
    assert client.get("/second").content == b"good"
    assert server.connections - before == (1 if made.keep else 2)
    assert [row[4] for row in log.rows] == [made.status, 200]
    assert [row[5] for row in log.rows] == [len(made.body), 4]
    client.close()


# Wrong

spoiled = st.one_of(
    st.binary(min_size=1, max_size=200),
    st.builds(
        lambda made, place, junk: made.data[: place % (len(made.data) + 1)] + junk,
        answers(),
        st.integers(0, 5000),
        st.binary(min_size=1, max_size=40),
    ),
    st.builds(
        lambda made, place, byte: (
            made.data[: (p := place % len(made.data))] + bytes([byte]) + made.data[p + 1 :]
        ),
        answers(),
        st.integers(0, 5000),
        st.integers(0, 255),
    ),
    st.builds(lambda a, b: a.data + b.data, answers(), answers()),
)


@many
@given(bytes_sent=spoiled, then=st.sampled_from([END, RESET]))
def test_any_bytes_give_an_answer_or_a_named_error_and_never_spoil_the_next(
    server: Hostile, bytes_sent: bytes, then: str
) -> None:
    server.forget()
    log = Log()
    client = client_of(server.url, log)
    server.will(bytes_sent, then=then)
    first = client.post("/first", data=b"x")  # a POST is not sent again
    assert (first.status_code > 0) != (first.error is not None and first.status_code == 0)
    server.will(GOOD)
    second = client.get("/second")
    assert second.content == b"good"
    assert second.error is None
    assert len(log.rows) == 2
    assert all(e is None or (0 < len(e) <= 120 and "\n" not in e) for e in log.errors)
    client.close()


@many
@given(made=answers(), place=st.integers(0, 5000))
def test_an_answer_that_is_cut_off_is_an_error(server: Hostile, made: Made, place: int) -> None:
    server.forget()
    cut = made.data[: place % len(made.data)]
    log = Log()
    client = client_of(server.url, log)
    server.will(cut, then=END)
    first = client.post("/first", data=b"x")
    if first.status_code:
        # Only a body that lasts until the end of the stream can be cut without anyone knowing,
        # and nothing is missing when the cut lies behind the last byte that matters.
        assert made.until_end or first.content == made.body
    else:
        closed = (
            "connection closed before the answer",
            "connection closed in the middle of the answer",
        )
        assert first.error in closed
    client.close()


@pytest.mark.parametrize(
    ("sent", "then", "error"),
    [
        (b"", END, "connection closed before the answer"),
        (b"", RESET, "connection reset"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc", END, "in the middle of the answer"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc", RESET, "connection reset"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", END, "malformed answer"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: ten\r\n\r\n", END, "malformed answer"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab", END, "malformed"),
        (
            b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            END,
            "malformed",
        ),
        (b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n", END, "protocol"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"y" * 300_000, END, "headers of more than 256 KiB"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", END, "malformed answer"),
    ],
)
def test_what_is_wrong_has_a_name(server: Hostile, sent: bytes, then: str, error: str) -> None:
    log = Log()
    server.will(sent, then=then)
    answer = client_of(server.url, log).post("/", data=b"x")
    assert answer.status_code == 0
    assert not answer.ok
    assert error in (answer.error or "")
    assert log.errors == [answer.error]
    with pytest.raises(HttpError, match=error):
        answer.raise_for_status()


def test_nobody_listens_and_nobody_knows_the_host() -> None:
    with hostile_server() as gone:
        url = gone.url
    log = Log()
    assert client_of(url, log).get("/").error == "connection refused"
    assert client_of("http://no-such-host.invalid", log).get("/").error == "unknown host"
    assert log.errors == ["connection refused", "unknown host"]


def test_a_server_that_is_silent_or_drips_ends_with_the_timeout(server: Hostile) -> None:
    log = Log()
    client = client_of(server.url, log, timeout_s=0.2)
    for pieces, pause_s in (((), 0.0), (tuple(GOOD[i : i + 1] for i in range(40)), 0.05)):
        server.will(*pieces, pause_s=pause_s)
        began = time.monotonic()
        assert client.get("/").error == "no answer within 0.2 s"
        assert time.monotonic() - began < 2
    server.will(GOOD, pause_s=0.1)
    assert client.get("/", timeout=0.05).error == "no answer within 0.05 s"
    server.will(GOOD)
    assert client.get("/").content == b"good"


def test_what_comes_unasked_is_never_taken_for_the_next_answer(server: Hostile) -> None:
    client = client_of(server.url)
    server.will(GOOD, b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nbad", pause_s=0.03)
    assert client.get("/").content == b"good"
    gevent.sleep(0.1)
    server.will(GOOD)
    assert client.get("/").content == b"good"
    assert server.connections >= 2


def test_a_connection_that_was_closed_while_it_rested_is_opened_again(server: Hostile) -> None:
    log = Log()
    client = client_of(server.url, log)
    server.will(GOOD, then=END)  # keep-alive, says the answer, and then it hangs up
    assert client.get("/").content == b"good"
    server.will(GOOD)
    server.will(GOOD)
    assert client.get("/").content == b"good"
    gevent.sleep(0.05)
    assert client.post("/", data=b"x").content == b"good"
    assert log.errors == [None, None, None]


def test_head_has_no_body_although_its_length_is_told(server: Hostile) -> None:
    client = client_of(server.url)
    before = server.connections
    for _ in range(2):
        server.will(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
        answer = client.head("/")
        assert (answer.status_code, answer.content) == (200, b"")
    server.will(GOOD)
    assert client.get("/").content == b"good"
    assert server.connections - before == 1


def test_compressed_bodies_are_opened_and_counted_as_sent(server: Hostile) -> None:
    text = b"the same again and again " * 100
    raw_deflate = zlib.compressobj(wbits=-15)
    for encoding, sent in (
        ("gzip", gzip.compress(text)),
        ("deflate", zlib.compress(text)),
        ("deflate", raw_deflate.compress(text) + raw_deflate.flush()),
    ):
        log = Log()
        lines = f"Content-Encoding: {encoding}\r\nContent-Length: {len(sent)}\r\n"
        head = f"HTTP/1.1 200 OK\r\n{lines}\r\n"
        server.will(head.encode() + sent)
        answer = client_of(server.url, log).get("/")
        assert answer.content == text
        assert log.rows[0][5] == len(sent)
    server.will(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 3\r\n\r\nabc")
    broken = client_of(server.url).get("/")
    with pytest.raises(ValueError, match="not gzip"):
        _ = broken.content


def test_redirects_are_followed_on_demand_and_are_one_row(server: Hostile) -> None:
    log = Log()
    client = client_of(server.url, log)
    moved = b"HTTP/1.1 302 Found\r\nLocation: /there?x=1\r\nContent-Length: 0\r\n\r\n"
    server.will(moved)
    assert client.get("/here").status_code == 302
    server.will(moved)
    server.will(GOOD)
    answer = client.post("/here", data=b"body", allow_redirects=True)
    assert answer.content == b"good"
    assert server.requests[-1].startswith(b"GET /there?x=1 HTTP/1.1\r\n")
    assert b"Content-Length" not in server.requests[-1]
    for _ in range(20):
        server.will(b"HTTP/1.1 307 Again\r\nLocation: /here\r\nContent-Length: 0\r\n\r\n")
    assert client.get("/here", allow_redirects=True).error == "more than 10 redirects"
    assert len(log.rows) == 3


def test_cookies_come_back_where_they_belong(server: Hostile) -> None:
    client = client_of(server.url)
    server.will(
        b"HTTP/1.1 200 OK\r\nSet-Cookie: id=7; Path=/\r\nset-cookie: deep=1; Path=/deep\r\n"
        b"Content-Length: 0\r\n\r\n"
    )
    client.get("/deep/x")
    for path, expected in (("/", b"Cookie: id=7\r\n"), ("/deep/y", b"deep=1")):
        server.will(GOOD)
        client.get(path)
        assert expected in server.requests[-1]
    assert client.cookies["id"] == "7"


def test_bodies_are_sent_as_they_are_meant(server: Hostile) -> None:
    client = client_of(server.url)
    for options, end in (
        ({"json": {"a": [1]}}, b'Content-Length: 10\r\n\r\n{"a": [1]}'),
        ({"data": {"a": "1 2", "b": ["x", "y"]}}, b"\r\n\r\na=1+2&b=x&b=y"),
        ({"data": "ä"}, b"Content-Length: 2\r\n\r\n\xc3\xa4"),
        ({"data": iter([b"one", b"", b"two"])}, b"\r\n\r\n3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n"),
    ):
        server.will(GOOD)
        assert client.post("/", **options).ok
        assert server.requests[-1].endswith(end)
    server.will(GOOD)
    client.get("/", auth=("me", "secret"), params={"q": "a b"}, headers={"user-agent": "mine"})
    assert server.requests[-1].startswith(b"GET /?q=a+b HTTP/1.1\r\n")
    assert b"Authorization: Basic bWU6c2VjcmV0\r\n" in server.requests[-1]
    assert server.requests[-1].lower().count(b"user-agent") == 1


class Seen:
    def __init__(self) -> None:
        self.messages = 0
        self.target = b""

    def on_url(self, url: bytes) -> None:
        self.target += url

    def on_message_complete(self) -> None:
        self.messages += 1


@many
@given(
    path=st.text(max_size=40),
    params=st.dictionaries(st.text(max_size=8), st.text(max_size=8), max_size=3),
    header=st.text(max_size=20),
    body=st.one_of(st.none(), st.binary(max_size=50), st.text(max_size=50)),
)
def test_nothing_that_a_scenario_says_becomes_a_second_request(
    server: Hostile, path: str, params: dict[str, str], header: str, body: bytes | str | None
) -> None:
    server.forget()
    server.will(GOOD)
    client = client_of(server.url)
    try:
        client.request("POST", f"/{path}", params=params, headers={"X-Any": header}, data=body)
    except (ValueError, UnicodeEncodeError):
        assert not server.requests
        return
    seen = Seen()
    httptools.HttpRequestParser(seen).feed_data(server.requests[-1])
    assert seen.messages == 1
    assert seen.target.startswith(b"/")
    client.close()


def test_a_scenario_judges_what_it_catches(server: Hostile) -> None:
    log = Log(listeners=True)
    client = client_of(server.url, log)
    server.will(GOOD)
    with client.get("/", catch_response=True) as answer:
        answer.failure("not good enough")
    server.will(b"HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n")
    with client.get("/", catch_response=True, name="missing is fine") as answer:
        answer.success()
    server.will(GOOD)
    with pytest.raises(KeyError), client.get("/", catch_response=True):
        raise KeyError("in the scenario")
    server.will(GOOD)
    client.get("/", catch_response=True)  # and thrown away
    assert log.errors == ["not good enough", None, "'in the scenario'", None]
    assert [told["name"] for told in log.told] == ["/", "missing is fine", "/", "/"]
    assert str(log.told[0]["exception"]) == "not good enough"


def test_what_has_no_answer_yet_can_be_seen(server: Hostile) -> None:
    log = Log()
    client = client_of(server.url, log)
    waiting = gevent.spawn(client.get, "/slow", name="slow one")
    gevent.sleep(0.05)
    (under_way,) = (r for watched in log.watched for r in watched if r.busy_since_ns)
    assert log.kinds[under_way.kind] == ("GET", "slow one")
    server.will(GOOD)
    waiting.join(2)
    assert waiting.value.content == b"good"
    assert under_way.busy_since_ns == 0


def test_ten_requests_of_one_user_at_a_time(server: Hostile) -> None:
    log = Log()
    client = client_of(server.url, log)
    for _ in range(10):
        server.will(GOOD, pause_s=0.05)
    began = time.monotonic()
    gevent.joinall([gevent.spawn(client.get, f"/{n}") for n in range(10)])
    assert time.monotonic() - began < 0.45
    assert log.errors == [None] * 10

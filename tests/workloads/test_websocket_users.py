"""WebSocket scenarios by real generators against a real server."""

from __future__ import annotations

import socket
import threading
from collections import Counter
from collections.abc import Iterator

import pytest
from certificates import certificate_for
from driven import MS, constant, driven
from servers import Server, serving

HEAD = """
from locust import task
from workloads.websocket_users import WebSocketError, WebSocketUser
import gevent

class Talker(WebSocketUser):
"""
DONE = (101, None)


@pytest.fixture(scope="module")
def shared() -> Iterator[Server]:
    with serving("talk_server.py") as server:
        yield server


def by_name(done) -> Counter[tuple[object, ...]]:
    return Counter((row["name"], row["status"], row["error"]) for row in done.rows)


def test_connecting_and_each_round_trip_are_rows(tmp_path, shared) -> None:
    text = (
        HEAD
        + """
    @task
    def talk(self):
        with self.connect("/talk") as talk:
            assert talk.ask("hello", name="greet") == "hello"
            assert talk.ask(b"\\x00\\xff") == b"\\x00\\xff"
            assert talk.ask("wait 0.05", name="slow") == "wait 0.05"
            talk.send("kept")
            assert talk.receive() == "kept"
            talk.ping()
            assert talk.ask("ping") == "pinged"
"""
    )
    done = driven(tmp_path, text, shared.base_url, arrivals=constant(40))
    assert done.events == []
    assert done.load.planned == 24
    assert Counter((row["method"], row["name"]) for row in done.rows) == {
        ("WebSocket", "/talk"): 24,
        ("WebSocket message", "greet"): 24,
        ("WebSocket message", "/talk message"): 48,
        ("WebSocket message", "slow"): 24,
        ("WebSocket message", "/talk ping"): 24,
    }
    assert {(row["status"], row["error"]) for row in done.rows} == {DONE}
    assert min(row["service_ns"] for row in done.named("slow")) >= 50 * MS
    assert {row["response_bytes"] for row in done.named("greet")} == {5}
    # The connection carries the arrival's intended start; what follows is meant when it is sent.
    assert {row["lag_ns"] for row in done.named("greet")} == {0}
    starts = sorted(row["start_ns"] - row["lag_ns"] for row in done.named("/talk"))
    assert starts[-1] - starts[0] == 23 * 25 * MS


def test_an_answer_is_found_among_messages_that_nobody_asked_for(tmp_path, shared) -> None:
    text = (
        HEAD
        + """
    subprotocols = ["talk.v2"]
    headers = {"X-Tenant": "seven"}

    @task
    def talk(self):
        with self.connect("/talk") as talk:
            answer = talk.ask("push 3", name="pushed", until=lambda text: text.startswith("push"))
            assert answer == "push 3"
            assert [talk.receive() for _ in range(3)] == ["news 0", "news 1", "news 2"]
            assert talk.ask("header") == "seven"
            assert talk.subprotocol == talk.ask("subprotocol") == "talk.v2"
            talk.send("wait 0.05")
            talk.receive(name="event")
"""
    )
    done = driven(tmp_path, text, shared.base_url, arrivals=constant(20), measure_ms=300)
    assert done.events == []
    assert by_name(done) == {
        ("/talk", *DONE): 6,
        ("pushed", *DONE): 6,
        ("/talk message", *DONE): 12,
        ("event", *DONE): 6,
    }
    assert min(row["service_ns"] for row in done.named("event")) > 40 * MS


@pytest.mark.parametrize("compression", [False, True])
def test_large_and_fragmented_messages_arrive_whole(tmp_path, shared, compression) -> None:
    text = (
        HEAD
        + f"""
    compression = {compression}

    @task
    def talk(self):
        with self.connect("/talk") as talk:
            large = "grüße " * 500_000
            assert talk.ask(large, name="large") == large
            pieces = "pieces " + "abc" * 1000
            assert talk.ask(pieces, name="pieces") == pieces
"""
    )
    done = driven(tmp_path, text, shared.base_url, arrivals=constant(10), measure_ms=300)
    assert done.events == []
    assert {row["error"] for row in done.rows} == {None}
    assert {row["response_bytes"] for row in done.named("large")} == {4_000_000}
    assert len(done.named("pieces")) == 3


def test_what_goes_wrong_is_named(tmp_path, shared) -> None:
    text = (
        HEAD
        + """
    message_bytes_max = 1000

    def attempt(self, word, **how):
        try:
            with self.connect("/talk", name="fine") as talk:
                talk.ask(word, name=word[:8], **how)
        except WebSocketError as error:
            print("raised", error)

    @task
    def wrong(self):
        for word in ("close 1011", "close 4000", "drop", "nonsense", "x" * 1001):
            self.attempt(word)
        self.attempt("wait 9", timeout=0.1)
        try:
            self.connect("/forbidden")
        except WebSocketError as error:
            print("raised", error)
        try:
            self.connect("ws://127.0.0.1:9/", name="refused")
        except WebSocketError as error:
            print("raised", error)
        try:
            with self.connect("/talk", name="fine") as talk, gevent.Timeout(0.05):
                talk.ask("wait 8")
        except gevent.Timeout:
            pass
        try:
            with self.connect("/talk", name="fine") as talk:
                talk.close()
                talk.ask("late", name="after the end")
        except WebSocketError as error:
            print("raised", error)
"""
    )
    done = driven(tmp_path, text, shared.base_url, arrivals=constant(10), measure_ms=200)
    assert done.events == []
    assert by_name(done) == {
        ("fine", *DONE): 16,
        ("close 10", None, "closed by the service: 1011: as it was told to"): 2,
        ("close 40", None, "closed by the service: 4000: as it was told to"): 2,
        ("drop", None, "connection lost"): 2,
        ("nonsense", None, "broken off: 1002: invalid opcode"): 2,
        (
            "xxxxxxxx",
            None,
            "broken off: 1009: frame with 1001 bytes exceeds limit of 1000 bytes",
        ): 2,
        ("wait 9", None, "no answer within 0.1 s"): 2,
        ("/forbidden", 403, "HTTP 403"): 2,
        ("refused", None, "connection refused"): 2,
        ("fine message", None, "given up by the scenario"): 2,
        ("after the end", None, "closed: 1000"): 2,
    }
    assert done.log.count("raised ") == 18


def test_messages_without_an_answer_at_the_end_are_rows_too(tmp_path, shared) -> None:
    text = (
        HEAD
        + """
    @task
    def talk(self):
        with self.connect("/talk") as talk:
            talk.ask("wait 60", name="hung")
"""
    )
    done = driven(tmp_path, text, shared.base_url, users=3, measure_ms=300)
    hung = done.named("hung")
    assert len(hung) == done.load.unanswered == 3
    assert {row["error"] for row in hung} == {"no answer when the load generator ended"}
    assert {row["lag_ns"] for row in done.rows} == {None}


def test_tls_is_spoken_and_checked(tmp_path) -> None:
    certificate, key = certificate_for("localhost", tmp_path)
    text = (
        HEAD
        + f"""
    verify = {str(certificate)!r}

    @task
    def talk(self):
        with self.connect(self.host.replace("127.0.0.1", "localhost") + "/talk", "tls") as talk:
            talk.ask("hello")

class Stranger(WebSocketUser):
    @task
    def talk(self):
        try:
            self.connect(self.host.replace("127.0.0.1", "localhost") + "/talk", "stranger")
        except WebSocketError:
            pass
"""
    )
    with serving("talk_server.py", str(certificate), str(key)) as server:
        url = server.base_url.replace("http", "https")
        done = driven(tmp_path, text, url, arrivals=constant(40), measure_ms=300)
    assert done.events == []
    assert {row["error"] for row in done.named("tls")} == {None}
    assert {row["error"][:4] for row in done.named("stranger")} == {"TLS:"}


def test_what_is_no_websocket_server_is_named(tmp_path) -> None:
    text = (
        HEAD
        + """
    connect_timeout = 0.2

    @task
    def talk(self):
        try:
            self.connect("/", name="answer")
        except WebSocketError:
            pass
"""
    )
    answers = [
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
        b"\x00\x01\x02\r\n\r\n",
        b"",
        None,
    ]
    held = []
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def answer() -> None:
            for raw in answers:
                connection, _ = listening.accept()
                held.append(connection)
                connection.recv(4096)
                if raw is not None:
                    connection.sendall(raw)
                    connection.close()

        thread = threading.Thread(target=answer)
        thread.start()
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        done = driven(tmp_path, text, url, arrivals=constant(20), measure_ms=200)
        thread.join()
    assert by_name(done) == {
        ("answer", 200, "HTTP 200"): 1,
        ("answer", None, "no WebSocket: did not receive a valid HTTP response"): 2,
        ("answer", None, "no connection within 0.2 s"): 1,
    }

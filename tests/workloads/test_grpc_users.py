"""gRPC scenarios by real generators against a real server: every call is a row that tells true."""

from __future__ import annotations

import itertools
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from driven import MS, constant, driven, driving, scenario
from servers import HERE, Server, serving

from results.errors import UserError
from workers.load.process import check_scenario
from workers.spec import LoadSpec

SAY = "heapgate.test.v1.Echo/Say"
HEAD = """
from locust import task
from workloads.grpc_users import GrpcUser
import gevent
import grpc

class Caller(GrpcUser):
    protos = "echo.proto"
"""


@pytest.fixture(scope="module")
def code(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the code that is generated for the server."""
    folder = tmp_path_factory.mktemp("code")
    subprocess.run(
        [sys.executable, "-m", "grpc_tools.protoc", f"-I{HERE}", f"--python_out={folder}",
         f"--grpc_python_out={folder}", "echo.proto"],
        check=True,
    )  # fmt: skip
    return folder


@pytest.fixture(scope="module")
def shared(code: Path) -> Iterator[Server]:
    with serving("echo_server.py", str(code)) as server:
        yield server


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    shutil.copy(HERE / "echo.proto", tmp_path)
    return tmp_path


def test_every_arrival_is_a_call_and_a_row(folder, shared) -> None:
    text = (
        HEAD
        + """
    @task
    def say(self):
        word = self.stub("Echo").Say({"text": "hello", "count": 3})
        assert (word.text, word.count) == ("hello", 3)
"""
    )
    done = driven(folder, text, shared.base_url, arrivals=constant(100))
    assert len(done.rows) == done.load.sent == done.load.planned == 60
    assert done.load.failed == done.load.unrecorded == done.load.unanswered == 0
    assert done.events == []
    for row in done.rows:
        assert (row["method"], row["name"], row["status"], row["error"]) == ("gRPC", SAY, 200, None)
        assert row["response_bytes"] == 9, "a tag, a length and five letters; a tag and a number"
        assert row["lag_ns"] >= 0
        assert row["service_ns"] > 0
    intended = sorted(row["start_ns"] - row["lag_ns"] for row in done.rows)
    assert {b - a for a, b in itertools.pairwise(intended)} == {10 * MS}


def test_many_calls_under_way_do_not_wait_for_each_other(folder, shared) -> None:
    # grpcio's own blocking calls would: its threads under gevent are ten.
    text = (
        HEAD
        + """
    @task
    def say(self):
        self.stub("Echo").Say({"wait": "0.4s"})
"""
    )
    done = driven(folder, text, shared.base_url, arrivals=constant(150, 128), measure_ms=800)
    assert len(done.rows) == 120
    # Sixty are under way at any time. One that had to wait for another would take twice as long.
    assert max(row["service_ns"] for row in done.rows) < 790 * MS
    assert min(row["service_ns"] for row in done.rows) >= 400 * MS


def test_the_server_is_asked_for_what_no_file_tells(folder, shared) -> None:
    text = (
        HEAD.replace('    protos = "echo.proto"\n', "")
        + """
    @task
    def say(self):
        assert self.stub("heapgate.test.v1.Echo").Say({"text": "hi"}).text == "hi"
        try:
            self.stub("Nowhere")
        except LookupError as error:
            print(error)
"""
    )
    done = driven(folder, text, shared.base_url, arrivals=constant(50))
    assert [row["name"] for row in done.rows] == [SAY] * 30
    assert "the server has no service Nowhere, it has: " in done.log
    assert "heapgate.test.v1.Echo" in done.log


@pytest.mark.parametrize("how", ["set", "generated"])
def test_descriptor_sets_and_generated_stubs_do_as_well(folder, shared, code, how) -> None:
    if how == "set":
        subprocess.run(
            [sys.executable, "-m", "grpc_tools.protoc", f"-I{HERE}", "echo.proto",
             "--include_imports", f"--descriptor_set_out={folder / 'api.binpb'}"],
            check=True,
        )  # fmt: skip
        text = (
            HEAD.replace("echo.proto", "api.binpb")
            + """
    @task
    def say(self):
        word = self.message("heapgate.test.v1.Word")(text="hi")
        assert self.stub("Echo").Say(word, name="said").text == "hi"
"""
        )
    else:
        for path in code.glob("*.py"):
            shutil.copy(path, folder)
        text = (
            "import echo_pb2, echo_pb2_grpc\n"
            + HEAD.replace('    protos = "echo.proto"\n', "")
            + """
    @task
    def say(self):
        stub = echo_pb2_grpc.EchoStub(self.channel)
        assert stub.Say(echo_pb2.Word(text="hi"), name="said").text == "hi"
"""
        )
    done = driven(folder, text, shared.base_url, arrivals=constant(50))
    assert Counter((row["name"], row["error"]) for row in done.rows) == {("said", None): 30}
    assert done.events == []


def test_streams_are_one_row_with_all_their_bytes_and_the_first_message_one_more(
    folder, shared
) -> None:
    text = (
        HEAD
        + """
    first_messages = True

    @task
    def streams(self):
        stub = self.stub("Echo")
        got = [w.count for w in stub.Scatter({"count": 4, "data": "AAAA", "wait": "0.02s"})]
        assert got == [0, 1, 2, 3]
        gathered = stub.Gather({"text": t} for t in ("a", "b", "c"))
        assert (gathered.count, gathered.text) == (3, "a b c")
        assert [w.text for w in stub.Chat([{"text": "x"}, {"text": "y"}])] == ["x", "y"]
"""
    )
    done = driven(folder, text, shared.base_url, arrivals=constant(20), measure_ms=500)
    assert done.events == []
    service = "heapgate.test.v1.Echo"
    assert Counter((row["method"], row["name"]) for row in done.rows) == {
        ("gRPC", f"{service}/Scatter"): 10,
        ("gRPC message", f"{service}/Scatter first message"): 10,
        ("gRPC", f"{service}/Gather"): 10,
        ("gRPC", f"{service}/Chat"): 10,
        ("gRPC message", f"{service}/Chat first message"): 10,
    }
    whole = sorted(done.named(f"{service}/Scatter"), key=lambda row: row["start_ns"])
    first = sorted(done.named(f"{service}/Scatter first message"), key=lambda r: r["start_ns"])
    for call, message in zip(whole, first, strict=True):
        # Four messages of three bytes of data with tag and length, three of them with a count.
        assert call["response_bytes"] == 4 * 5 + 3 * 2
        assert call["start_ns"] == message["start_ns"]
        assert call["lag_ns"] == message["lag_ns"]
        assert 20 * MS <= message["service_ns"] <= call["service_ns"] - 50 * MS
    # Only the first call of the task has the arrival's intended start.
    assert {row["lag_ns"] for row in done.named(f"{service}/Gather")} == {0}


def test_a_conversation_is_a_row_and_each_question_in_it_one_more(folder, shared) -> None:
    text = (
        HEAD
        + """
    @task
    def talk(self):
        with self.stub("Echo").Chat.open(name="talk") as chat:
            assert chat.ask({"text": "one"}).text == "one"
            assert chat.ask({"text": "two", "wait": "0.05s"}, name="slow").text == "two"
            chat.send({"text": "three"})
            assert next(chat).text == "three"
        with self.stub("Echo").Chat.open(name="short") as chat:
            try:
                chat.ask({"text": "bye"})
            except EOFError as error:
                print("ended:", error)
"""
    )
    done = driven(folder, text, shared.base_url, arrivals=constant(20), measure_ms=500)
    assert done.events == []
    assert Counter((r["method"], r["name"], r["status"], r["error"]) for r in done.rows) == {
        ("gRPC", "talk", 200, None): 10,
        ("gRPC message", "talk message", 200, None): 10,
        ("gRPC message", "slow", 200, None): 10,
        ("gRPC", "short", 200, None): 10,
        ("gRPC message", "short message", None, "the server ended the stream"): 10,
    }
    assert min(row["service_ns"] for row in done.named("slow")) >= 50 * MS
    assert min(row["service_ns"] for row in done.named("talk")) >= 50 * MS


def test_a_call_that_fails_is_a_row_with_its_code_and_is_raised(folder, shared) -> None:
    text = (
        HEAD
        + """
    @task
    def say(self):
        echo = self.stub("Echo")
        for call in (
            lambda: echo.Say({"fail": "NOT_FOUND"}),
            lambda: echo.Say({"fail": "RESOURCE_EXHAUSTED"}),
            lambda: echo.Say({"fail": "UNAVAILABLE"}),
            lambda: echo.Say({"wait": "5s"}, timeout=0.1),
            lambda: echo.Gather(iter([{"text": 7}])),
        ):
            try:
                call()
            except grpc.RpcError as error:
                print("raised", error.code().name)
"""
    )
    done = driven(folder, text, shared.base_url, arrivals=constant(20), measure_ms=250)
    want = {
        (404, "NOT_FOUND: as it was told to"),
        (429, "RESOURCE_EXHAUSTED: as it was told to"),
        (None, "UNAVAILABLE: as it was told to"),
        (None, "DEADLINE_EXCEEDED: Deadline Exceeded"),
        (None, "UNKNOWN: Exception iterating requests!"),
    }
    found = Counter((row["status"], row["error"]) for row in done.rows)
    assert found == dict.fromkeys(want, 5)
    assert done.load.failed == done.log.count("raised ") == 25
    assert done.events == []


def test_streams_that_fail_or_are_given_up_are_rows_that_say_so(folder, shared) -> None:
    text = (
        HEAD
        + """
    accepted = ("OK", "ALREADY_EXISTS")

    @task
    def streams(self):
        stub = self.stub("Echo")
        try:
            for word in stub.Scatter({"count": 2, "fail": "DATA_LOSS"}, name="broken"):
                pass
        except grpc.RpcError as error:
            print("raised", error.code().name)
        with stub.Scatter({"count": 100, "wait": "0.01s"}, name="left") as words:
            next(words)
        try:
            with gevent.Timeout(0.05):
                stub.Say({"wait": "9s"}, name="impatient")
        except gevent.Timeout:
            pass
        try:
            stub.Say({"fail": "ALREADY_EXISTS"}, name="known")
        except grpc.RpcError:
            pass
"""
    )
    done = driven(folder, text, shared.base_url, arrivals=constant(10), measure_ms=500)
    assert Counter((row["name"], row["status"], row["error"]) for row in done.rows) == {
        ("broken", 500, "DATA_LOSS: as it was told to"): 5,
        ("left", None, "given up by the scenario"): 5,
        ("impatient", None, "given up by the scenario"): 5,
        ("known", 409, None): 5,
    }
    assert done.load.failed == 15


def test_large_messages_and_metadata_arrive(folder, shared) -> None:
    text = (
        HEAD
        + """
    metadata = [("x-tenant", "seven")]

    @task
    def say(self):
        word = self.message("heapgate.test.v1.Word")(data=b"x" * 6_000_000)
        assert len(self.stub("Echo").Say(word, name="large").data) == 6_000_000
        word = self.stub("Echo").Say({"text": "metadata"}, metadata=[("x-id", "1")], name="told")
        assert word.text == "x-tenant=seven,x-id=1"
"""
    )
    done = driven(folder, text, shared.base_url, arrivals=constant(5), measure_ms=400)
    assert done.events == []
    assert Counter((row["name"], row["status"]) for row in done.rows) == {
        ("large", 200): 2,
        ("told", 200): 2,
    }
    assert {row["response_bytes"] for row in done.named("large")} == {6_000_005}


def test_a_server_that_dies_is_an_error_of_every_call_after_it(folder, code) -> None:
    text = (
        HEAD
        + """
    @task
    def say(self):
        self.stub("Echo").Say({"fail": "die"})
"""
    )
    with serving("echo_server.py", str(code)) as server:
        done = driven(folder, text, server.base_url, arrivals=constant(20), measure_ms=500)
    assert len(done.rows) == done.load.failed == 10
    assert {row["status"] for row in done.rows} == {None}
    assert all(row["error"].startswith("UNAVAILABLE: ") for row in done.rows)
    assert all("RpcError" in event or "RPC" in event for event in done.events)


def test_calls_without_an_answer_at_the_end_are_rows_too(folder, shared) -> None:
    text = (
        HEAD
        + """
    @task
    def say(self):
        self.stub("Echo").Say({"wait": "60s"})
"""
    )
    done = driven(folder, text, shared.base_url, arrivals=constant(20), measure_ms=250)
    assert len(done.rows) == done.load.unanswered == 5
    assert {row["error"] for row in done.rows} == {"no answer when the load generator ended"}
    assert done.load.unrecorded == 0
    assert min(row["service_ns"] for row in done.rows) > 4_500 * MS


def test_tls_is_spoken_and_checked(folder, code) -> None:
    from certificates import certificate_for

    certificate, key = certificate_for("echo.test", folder)
    text = (
        HEAD
        + """
    tls = True
    verify = "echo.test.crt"
    server_name = "echo.test"

    @task
    def say(self):
        assert self.stub("Echo").Say({"text": "hi"}).text == "hi"

class Stranger(GrpcUser):
    protos = "echo.proto"
    tls = True
    server_name = "echo.test"

    @task
    def say(self):
        try:
            self.stub("Echo").Say({"text": "hi"}, name="stranger")
        except grpc.RpcError:
            pass
"""
    )
    with serving("echo_server.py", str(code), str(certificate), str(key)) as server:
        done = driven(folder, text, server.base_url, arrivals=constant(40), measure_ms=500)
    strangers = done.named("stranger")
    assert {row["error"] for row in done.named(SAY)} == {None}
    assert strangers
    assert all(row["error"].startswith("UNAVAILABLE") for row in strangers)
    assert len(done.rows) == 20


@pytest.mark.parametrize(
    ("protos", "content", "want_words"),
    [
        ("echo.proto", "service Half {\n", "echo.proto:2:1"),
        ("none.proto", "", "there is no file"),
        ("echo.proto", 'syntax = "proto3";\nimport "other.proto";\n', "other.proto"),
    ],
)
def test_a_wrong_proto_is_told_before_any_trial(tmp_path, protos, content, want_words) -> None:
    (tmp_path / "echo.proto").write_text(content)
    path = scenario(tmp_path, HEAD.replace("echo.proto", protos) + "    tasks = [print]\n")
    load = LoadSpec(scenario=str(path), users=1, arrivals=None, seed=1)
    with pytest.raises(UserError) as caught:
        check_scenario(load, tmp_path)
    assert want_words in str(caught.value)
    assert "locustfile.py:7" in str(caught.value)


def test_a_server_without_reflection_is_named_as_such(folder) -> None:
    text = (
        HEAD.replace('    protos = "echo.proto"\n', "")
        + """
    @task
    def say(self):
        self.stub("Echo").Say({})
"""
    )
    scenario(folder, text)
    with driving(folder, "http://127.0.0.1:9", arrivals=constant(20), measure_ms=200) as drive:
        drive.go()
        done = drive.outcome()
    assert done.rows == []
    assert any("the server can't be asked for its services: UNAVAILABLE" in e for e in done.events)

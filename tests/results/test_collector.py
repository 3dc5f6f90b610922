"""The collector over real gRPC: several writers, odd messages, a full disk, what a crash left."""

from __future__ import annotations

import hashlib
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pyarrow as pa
import pyarrow.dataset as ds
import pytest
from hypothesis import given
from hypothesis import strategies as st

from results.archive.trialfiles import Account, BadBatch, TableFile
from results.archive.unpacked import unpacked_bytes
from results.collecting.collector import serve
from results.record import TrialRecord
from results.schema import EVENTS, REQUESTS, SCHEMA_VERSION, TableSchema
from results.wire import telemetry_pb2 as wire
from results.wire import telemetry_pb2_grpc as wire_grpc

RUN = "20260101-000000-abcd"
TRIAL = "b01-1-default-steady"
Talk = Callable[..., list[wire.FromCollector]]


def encoded(table: TableSchema, rows: list[dict[str, object]]) -> bytes:
    """One batch as a writer of its own would send it, with its own dictionaries."""
    sink = pa.BufferOutputStream()
    batch = pa.RecordBatch.from_pylist(rows, schema=table.arrow)
    with pa.ipc.new_stream(sink, table.arrow) as writer:
        writer.write_batch(batch)
    return bytes(sink.getvalue())


def event(
    number: int, kind: str | None = "ready", message: str = "it happened"
) -> dict[str, object]:
    return {
        "time_ns": number,
        "phase": "measure" if number % 2 else "idle",
        "kind": kind,
        "level": "info",
        "message": message,
        "value": None,
    }


def opening(trial_id: str = TRIAL) -> wire.FromAgent:
    message = wire.OpenTrial(run_id=RUN, trial_id=trial_id, schema_version=SCHEMA_VERSION)
    return wire.FromAgent(open=message)


def sending(
    sequence: int, data: bytes, stream: str = "events", trial_id: str = TRIAL
) -> wire.FromAgent:
    message = wire.Batch(trial_id=trial_id, stream=stream, sequence=sequence, arrow_ipc=data)
    return wire.FromAgent(batch=message)


def total(stream: str, rows: int, batches: list[bytes]) -> wire.StreamTotal:
    chain = hashlib.sha256(b"".join(hashlib.sha256(data).digest() for data in batches))
    return wire.StreamTotal(stream=stream, batches=len(batches), rows=rows, digest=chain.digest())


def finishing(
    *totals: wire.StreamTotal, trial_json: bytes | None = None, trial_id: str = TRIAL
) -> wire.FromAgent:
    record = TrialRecord(
        schema_version=SCHEMA_VERSION, run_id=RUN, trial_id=trial_id, block=1, position=1,
        attempt=1, configuration="default", baseline=True, workload="steady", node_id="n",
        node_class="c", started_ns=1, finished_ns=2, spec={}, node={}, versions={}, clock={},
    )  # fmt: skip
    return wire.FromAgent(
        finish=wire.FinishTrial(
            trial_id=trial_id,
            totals=totals,
            trial_json=record.to_json().encode() if trial_json is None else trial_json,
        )
    )


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    return tmp_path


@pytest.fixture
def talk(archive: Path) -> Iterator[Talk]:
    """Send messages to a collector that has just started; all its answers."""

    def say(*messages: wire.FromAgent) -> list[wire.FromCollector]:
        server, port = serve(archive, RUN, "secret", 0)
        try:
            with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
                answers = wire_grpc.TelemetryStub(channel).Publish(
                    iter(messages), metadata=(("authorization", "Bearer secret"),), timeout=30
                )
                return list(answers)
        finally:
            server.stop(grace=None).wait()

    yield say


def kinds(answers: list[wire.FromCollector]) -> list[str | None]:
    return [answer.WhichOneof("kind") for answer in answers]


def column(path: Path, name: str) -> list[Any]:
    found: list[Any] = ds.dataset([str(path)], format="ipc").to_table()[name].to_pylist()
    return found


def test_words_of_different_writers_read_back_as_they_were_sent(talk: Talk, archive: Path) -> None:
    words = [["a", "b"], ["b", None], ["c", "a"], [None, None], ["b", "é"]]
    batches = [encoded(EVENTS, [event(n, word) for n, word in enumerate(pair)]) for pair in words]
    messages = [sending(n, data) for n, data in enumerate(batches, 1)]
    answers = talk(opening(), *messages, finishing(total("events", 10, batches)))
    assert list(answers[-1].finished.differences) == []
    sealed = archive / RUN / "trials" / TRIAL / "events.arrow"
    assert column(sealed, "kind") == [word for pair in words for word in pair]


def test_a_sealed_file_has_no_growing_dictionaries(
    talk: Talk, archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Parallel readers crash on them: many batches with new words must still be safe to read."""
    monkeypatch.setattr("results.archive.trialfiles.SEALED_ROWS", 7)
    batches = [encoded(EVENTS, [event(n, f"kind {n}")]) for n in range(60)]
    messages = [sending(n, data) for n, data in enumerate(batches, 1)]
    talk(opening(), *messages, finishing(total("events", 60, batches)))
    sealed = archive / RUN / "trials" / TRIAL / "events.arrow"
    with pa.ipc.open_file(str(sealed)) as reader:
        assert reader.read_all().num_rows == 60
        assert reader.num_record_batches == 9
        assert reader.stats.num_dictionary_deltas == 0
    for _ in range(20):
        assert column(sealed, "kind") == [f"kind {n}" for n in range(60)]
    assert sorted(path.name for path in sealed.parent.iterdir()) == [
        "SHA256SUMS",
        "events.arrow", "service.log", "trial.json",
    ]  # fmt: skip


def test_batches_after_a_restart_go_on_in_the_same_file(talk: Talk, archive: Path) -> None:
    batches = [encoded(EVENTS, [event(n, f"kind {n}")]) for n in range(6)]
    talk(opening(), *(sending(n, data) for n, data in enumerate(batches[:3], 1)))
    answers = talk(
        opening(),
        *(sending(n, data) for n, data in enumerate(batches[3:], 4)),
        finishing(total("events", 6, batches)),
    )
    assert answers[0].opened.last_sequence == {"events": 3}
    assert list(answers[-1].finished.differences) == []
    sealed = archive / RUN / "trials" / TRIAL / "events.arrow"
    assert column(sealed, "kind") == [f"kind {n}" for n in range(6)]


def test_trials_of_several_agents_do_not_mix(talk: Talk, archive: Path) -> None:
    batches = {name: encoded(EVENTS, [event(1, message=name)]) for name in ("one", "two")}
    answers = talk(
        *(opening(name) for name in batches),
        *(sending(1, data, trial_id=name) for name, data in batches.items()),
        *(finishing(total("events", 1, [data]), trial_id=name) for name, data in batches.items()),
    )
    assert kinds(answers).count("finished") == 2
    for name in batches:
        assert column(archive / RUN / "trials" / name / "events.arrow", "message") == [name]


def test_rows_that_never_came_make_the_trial_invalid(talk: Talk, archive: Path) -> None:
    data = encoded(EVENTS, [event(1)])
    answers = talk(
        opening(), sending(1, data), finishing(total("events", 1, [data]), total("gc", 7, [b"?"]))
    )
    (difference,) = answers[-1].finished.differences
    assert "gc" in difference
    assert "7 rows" in difference
    record = TrialRecord.read(archive / RUN / "trials" / TRIAL / "trial.json")
    assert [finding.code for finding in record.findings] == ["rows_lost"]
    assert not record.valid


def test_rows_of_which_no_disk_took_any_make_the_trial_invalid(talk: Talk, archive: Path) -> None:
    answers = talk(opening(), finishing(total("requests", 7, []), total("gc", 0, [])))
    (difference,) = answers[-1].finished.differences
    assert difference == "requests: 7 rows were measured, the archive has 0 rows"
    assert not TrialRecord.read(archive / RUN / "trials" / TRIAL / "trial.json").valid


def test_rows_that_nobody_counted_make_the_trial_invalid(talk: Talk) -> None:
    answers = talk(opening(), sending(1, encoded(EVENTS, [event(1)])), finishing())
    assert len(answers[-1].finished.differences) == 1


def test_finishing_twice_tells_the_same_differences(talk: Talk) -> None:
    finish = finishing(total("gc", 7, [b"?"]))
    first = talk(opening(), finish)[-1].finished
    again = talk(opening(), finish)[-1].finished
    assert first.differences
    assert list(again.differences) == list(first.differences)


def test_a_small_message_that_unpacks_to_gigabytes_is_refused_before_it_is_unpacked(
    talk: Talk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One row whose column has very many empty words: next to nothing on the wire."""
    monkeypatch.setattr("results.archive.trialfiles.BATCH_BYTES_MAX", 2**20)
    place = EVENTS.arrow.get_field_index("kind")
    row = pa.RecordBatch.from_pylist([event(1)], schema=EVENTS.arrow)
    words = pa.array([""]).take(pa.array([0] * 2**18))
    kinds = pa.DictionaryArray.from_arrays(pa.array([0], pa.int32()), words)
    sink = pa.BufferOutputStream()
    options = pa.ipc.IpcWriteOptions(compression="zstd")
    with pa.ipc.new_stream(sink, EVENTS.arrow, options=options) as writer:
        writer.write_batch(row.set_column(place, EVENTS.arrow.field(place), kinds))
    data = bytes(sink.getvalue())
    assert len(data) < 10_000
    assert "1,048,576 bytes in memory" in talk(opening(), sending(1, data))[-1].refused.reason
    assert talk(opening())[0].opened.last_sequence["events"] == 0


def test_a_gap_in_the_sequence_is_refused(talk: Talk) -> None:
    data = encoded(EVENTS, [event(1)])
    answers = talk(opening(), sending(1, data), sending(3, data))
    assert "batch 3 came after batch 1" in answers[-1].refused.reason
    assert talk(opening())[0].opened.last_sequence == {"events": 1}


def test_more_words_than_a_column_can_number_are_refused(talk: Talk) -> None:
    """Phases are numbered in 8 bits; each of the two batches is right by itself."""
    phases = [f"phase {n}" for n in range(200)]
    rows = [event(n) | {"phase": phase} for n, phase in enumerate(phases)]
    batches = [encoded(EVENTS, rows[:100]), encoded(EVENTS, rows[100:])]
    answers = talk(opening(), *(sending(n, data) for n, data in enumerate(batches, 1)))
    assert "more than 128 different words" in answers[-1].refused.reason


def test_the_first_error_after_many_answers_without_one_is_kept(talk: Talk, archive: Path) -> None:
    words = [None, None, "timeout", None, "refused"]
    batches = [encoded(EVENTS, [event(n, word)]) for n, word in enumerate(words)]
    messages = [sending(n, data) for n, data in enumerate(batches, 1)]
    talk(opening(), *messages, finishing(total("events", 5, batches)))
    assert column(archive / RUN / "trials" / TRIAL / "events.arrow", "kind") == words


@pytest.mark.parametrize("stream", ["", "../events", "events-2", "nonsense"])
def test_a_stream_that_is_no_table_is_refused(talk: Talk, archive: Path, stream: str) -> None:
    answers = talk(opening(), sending(1, encoded(EVENTS, [event(1)]), stream))
    assert kinds(answers) == ["opened", "refused"]
    assert not list(archive.rglob("*.arrow"))


def test_a_batch_of_an_unopened_trial_is_refused(talk: Talk) -> None:
    assert "not opened" in talk(sending(1, b""))[0].refused.reason


def test_one_refused_trial_leaves_the_others_alone(talk: Talk) -> None:
    data = encoded(EVENTS, [event(1)])
    answers = talk(
        opening("bad"),
        opening("good"),
        sending(1, data, trial_id="good"),
        sending(1, b"nonsense", trial_id="bad"),
        finishing(total("events", 1, [data]), trial_id="good"),
    )
    refused = [answer.refused.trial_id for answer in answers if answer.HasField("refused")]
    assert refused == ["bad"]
    assert answers[-1].finished.trial_id == "good"


@pytest.mark.parametrize("trial_json", [b"", b"{}", b"null", b"[]", b'"text"', b"\xff\xfe", b"{"])
def test_a_record_that_can_not_be_read_is_refused(talk: Talk, trial_json: bytes) -> None:
    answers = talk(opening(), finishing(trial_json=trial_json))
    assert "record can't be read" in answers[-1].refused.reason


def test_an_empty_message_is_passed_over(talk: Talk) -> None:
    assert kinds(talk(wire.FromAgent(), opening())) == ["opened"]


def test_a_message_beyond_the_size_limit_ends_only_its_own_stream(talk: Talk) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        talk(opening(), sending(1, bytes(64 * 2**20 + 1)))
    assert isinstance(caught.value, grpc.Call)
    assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert kinds(talk(opening())) == ["opened"]


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to mount a small file system")
def test_a_full_disk_refuses_and_keeps_what_was_acknowledged(tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=128k", "none", str(small)], check=True)
    try:
        _fill_and_go_on(small)
    finally:
        subprocess.run(["umount", "--lazy", str(small)], check=True)


def _fill_and_go_on(small: Path) -> None:
    batches = [encoded(EVENTS, [event(n, message="x" * 5000)]) for n in range(40)]
    server, port = serve(small, RUN, "secret", 0)
    channel = grpc.insecure_channel(f"127.0.0.1:{port}")

    def say(*messages: wire.FromAgent) -> list[wire.FromCollector]:
        metadata = (("authorization", "Bearer secret"),)
        stub = wire_grpc.TelemetryStub(channel)
        return list(stub.Publish(iter(messages), metadata=metadata, timeout=30))

    try:
        answers = say(opening(), *(sending(n, data) for n, data in enumerate(batches, 1)))
        reasons = [answer.refused.reason for answer in answers if answer.HasField("refused")]
        assert "No space left" in reasons[0]
        acknowledged = max(
            (a.acknowledged.sequence for a in answers if a.HasField("acknowledged")), default=0
        )
        subprocess.run(["mount", "-o", "remount,size=4m", str(small)], check=True)
        last = say(opening())[0].opened.last_sequence["events"]
        assert acknowledged <= last < len(batches)
        rest = [sending(n, data) for n, data in enumerate(batches, 1) if n > last]
        sealed = say(opening(), *rest, finishing(total("events", len(batches), batches)))
        assert list(sealed[-1].finished.differences) == []
        path = small / RUN / "trials" / TRIAL / "events.arrow"
        assert column(path, "time_ns") == list(range(40))
    finally:
        channel.close()
        server.stop(grace=None).wait()


REQUEST_ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "start_ns": st.integers(-(2**63), 2**63 - 1),
            "lag_ns": st.none() | st.integers(-(2**63), 2**63 - 1),
            "phase": st.sampled_from(["warmup", "measure"]),
            "service_ns": st.integers(0, 2**63 - 1),
            "method": st.sampled_from(["GET", "PUT"]),
            "name": st.text(max_size=5),
            "status": st.none() | st.integers(0, 999),
            "response_bytes": st.none() | st.integers(0, 2**40),
            "error": st.none() | st.text(max_size=5),
        }
    ),
    max_size=6,
)


@given(REQUEST_ROWS, st.sampled_from([None, "zstd", "lz4"]))
def test_what_a_message_unpacks_to_is_told_by_its_heads(
    rows: list[dict[str, object]], compression: str | None
) -> None:
    batch = pa.RecordBatch.from_pylist(rows * 50, schema=REQUESTS.arrow)
    sink = pa.BufferOutputStream()
    options = pa.ipc.IpcWriteOptions(compression=compression)
    with pa.ipc.new_stream(sink, REQUESTS.arrow, options=options) as writer:
        writer.write_batch(batch)
    with pa.ipc.open_stream(sink.getvalue()) as reader:
        (read,) = list(reader)
    told = unpacked_bytes(bytes(sink.getvalue()))
    # Each of its buffers is filled up to 8 bytes, and bitmaps may be whole bytes more.
    assert read.nbytes <= told <= read.nbytes + 16 * 3 * len(REQUESTS.columns)


def test_a_length_below_nothing_makes_no_room_for_another() -> None:
    """It would make the sum small, and what is unpacked first is large."""
    rows = pa.RecordBatch.from_pylist([event(n) for n in range(2000)], schema=EVENTS.arrow)
    sink = pa.BufferOutputStream()
    options = pa.ipc.IpcWriteOptions(compression="zstd")
    with pa.ipc.new_stream(sink, EVENTS.arrow, options=options) as writer:
        writer.write_batch(rows)
    data = bytes(sink.getvalue())
    times = (2000 * 8).to_bytes(8, "little")
    assert times in data
    assert unpacked_bytes(data) > 2000 * 8
    with pytest.raises(ValueError, match="below nothing"):
        unpacked_bytes(data.replace(times, (-(2**40)).to_bytes(8, "little", signed=True), 1))


@given(st.lists(REQUEST_ROWS, max_size=5), st.data())
def test_a_file_cut_anywhere_keeps_every_whole_batch_and_grows_on(
    tmp_path_factory: pytest.TempPathFactory,
    groups: list[list[dict[str, object]]],
    data: st.DataObject,
) -> None:
    path = tmp_path_factory.mktemp("cut") / "requests.arrow"
    journal = path.with_suffix(".journal")
    batches = [encoded(REQUESTS, rows) for rows in groups]
    ends = []
    file = TableFile(path, REQUESTS)
    for number, batch in enumerate(batches, 1):
        file.add(number, batch)
        file.sync()
        ends.append(journal.stat().st_size)
    file.abandon()
    cut = data.draw(st.integers(0, journal.stat().st_size))
    os.truncate(journal, cut)

    grown = TableFile(path, REQUESTS)
    assert grown.batches == sum(end <= cut for end in ends)
    for number, batch in enumerate(batches, 1):
        grown.add(number, batch)
    grown.close()
    chain = hashlib.sha256(b"".join(hashlib.sha256(batch).digest() for batch in batches))
    rows = [row for group in groups for row in group]
    assert grown.account == Account(len(batches), len(rows), chain.hexdigest())
    with pa.ipc.open_file(str(path)) as reader:
        assert reader.read_all().to_pylist() == rows


@given(st.binary(max_size=200), st.integers(0, 2000), st.integers(1, 255))
def test_bytes_from_outside_are_a_batch_or_an_error(
    tmp_path_factory: pytest.TempPathFactory, junk: bytes, position: int, flip: int
) -> None:
    """Whatever comes by the wire ends as rows or as BadBatch, never as another exception."""
    whole = bytearray(encoded(EVENTS, [event(n, f"kind {n}") for n in range(3)]))
    whole[position % len(whole)] ^= flip
    for data in (junk, bytes(whole)):
        file = TableFile(tmp_path_factory.mktemp("junk") / "events.arrow", EVENTS)
        try:
            file.add(1, data)
        except BadBatch:
            assert file.account.batches == 0
        file.close()

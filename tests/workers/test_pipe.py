"""From the spool through agent and collector to the archive: nothing lost, nothing doubled."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from results.archive.archive import Archive
from results.archive.trialfiles import salvaged_table
from results.collecting.process import CollectorProcess
from results.record import TrialRecord
from results.schema import EVENTS, MEMORY, SCHEMA_VERSION
from results.wire import telemetry_pb2 as wire
from results.wire import telemetry_pb2_grpc as wire_grpc
from workers.agent import AgentProcess, wait_delivered
from workers.spool import Spool

RUN = "20260101-000000-abcd"
TRIAL = "b01-1-default-steady"
DOCUMENT = {"schema_version": 1, "run_id": RUN, "status": "running", "started_ns": 1}


def record(trial_id: str = TRIAL) -> str:
    return TrialRecord(
        schema_version=SCHEMA_VERSION, run_id=RUN, trial_id=trial_id, block=1, position=1,
        attempt=1, configuration="default", baseline=True, workload="steady", node_id="n",
        node_class="c", started_ns=1, finished_ns=2, spec={}, node={}, versions={}, clock={},
    ).to_json()  # fmt: skip


@dataclass
class Pipe:
    archive: Archive
    root: Path
    token_file: Path
    collector: CollectorProcess
    agent: AgentProcess

    @property
    def trials(self) -> Path:
        return self.archive.path / RUN / "trials"

    def events(self, trial_id: str = TRIAL) -> pa.Table:
        with pa.ipc.open_file(str(self.trials / trial_id / "events.arrow")) as reader:
            return reader.read_all()


@pytest.fixture
def pipe(tmp_path: Path) -> Iterator[Pipe]:
    (tmp_path / "matrix.yaml").write_text("")
    archive = Archive.create(tmp_path / "archive")
    archive.create_run(RUN, DOCUMENT, tmp_path / "matrix.yaml")
    token_file = tmp_path / "token"
    token_file.write_text("secret")
    spool = tmp_path / "spool"
    spool.mkdir()
    collector = CollectorProcess.start(
        archive=archive.path, run_id=RUN, token_file=token_file, log=tmp_path / "collector.log"
    )
    agent = AgentProcess.start(
        spool=spool,
        collector=collector.address,
        token_file=token_file,
        log=tmp_path / "agent.log",
    )
    yield Pipe(archive, spool, token_file, collector, agent)
    agent.stop()
    collector.stop()


def event(number: int) -> dict[str, list[object]]:
    return {
        "time_ns": [number],
        "phase": ["measure" if number % 2 else "idle"],
        "kind": [f"kind {number % 40}"],
        "level": ["info"],
        "message": [f"event {number}"],
        "value": [None if number % 3 else float(number)],
    }


def write_events(spool: Spool, first: int, last: int) -> None:
    writer = spool.stream(EVENTS)
    for number in range(first, last):
        writer.append(event(number))
        writer.flush()


def numbers(table: pa.Table) -> list[int]:
    return table.column("time_ns").to_pylist()


def test_rows_arrive_whole_and_the_trial_is_sealed(pipe: Pipe, tmp_path: Path) -> None:
    spool = Spool(pipe.root, RUN, TRIAL)
    write_events(spool, 0, 300)
    log = tmp_path / "service.log"
    log.write_text("its own words\n")
    spool.finish(record(), log)
    assert wait_delivered(pipe.root, TRIAL, 20.0) == []
    table = pipe.events()
    assert table.to_pylist() == [
        {name: values[0] for name, values in event(n).items()} for n in range(300)
    ]
    sealed = TrialRecord.read(pipe.trials / TRIAL / "trial.json")
    assert sealed.valid
    assert sealed.rows == {"events": 300}
    assert (pipe.trials / TRIAL / "service.log").read_text() == "its own words\n"
    assert not list(pipe.root.iterdir()), "the spool is empty again"


@pytest.mark.parametrize("victim", ["agent", "collector"])
def test_a_killed_process_loses_and_doubles_nothing(pipe: Pipe, victim: str) -> None:
    spool = Spool(pipe.root, RUN, TRIAL)
    write_events(spool, 0, 200)
    partial = pipe.trials / f"{TRIAL}.partial" / "events.journal"
    while not (partial.exists() and partial.stat().st_size > 4096):
        pass
    process = getattr(pipe, victim)
    process._process.kill()
    process._process.wait()
    write_events(spool, 200, 400)
    assert process.ensure_alive()
    write_events(spool, 400, 500)
    spool.finish(record(), None)
    assert wait_delivered(pipe.root, TRIAL, 30.0) == []
    assert numbers(pipe.events()) == list(range(500))
    assert TrialRecord.read(pipe.trials / TRIAL / "trial.json").valid


def test_what_a_dead_collector_left_can_be_read(pipe: Pipe) -> None:
    spool = Spool(pipe.root, RUN, TRIAL)
    write_events(spool, 0, 50)
    while list(spool.folder.glob("*/*.arrow")):
        pass
    pipe.collector._process.kill()
    left = pipe.trials / f"{TRIAL}.partial" / "events.journal"
    assert numbers(salvaged_table(left)) == list(range(50))


def test_a_changed_byte_on_the_way_makes_the_trial_invalid(pipe: Pipe) -> None:
    pipe.agent._process.kill()
    pipe.agent._process.wait()
    spool = Spool(pipe.root, RUN, TRIAL)
    write_events(spool, 0, 3)
    path = spool.folder / "events" / "00000002.arrow"
    data = bytearray(path.read_bytes())
    data[data.index(b"event 1") + 6] ^= 1
    path.write_bytes(data)
    spool.finish(record(), None)
    assert pipe.agent.ensure_alive()
    (difference,) = wait_delivered(pipe.root, TRIAL, 20.0)
    assert "other bytes" in difference
    sealed = TrialRecord.read(pipe.trials / TRIAL / "trial.json")
    assert not sealed.valid
    assert sealed.findings[0].code == "rows_lost"


def test_a_missing_batch_is_refused(pipe: Pipe) -> None:
    pipe.agent.stop()
    spool = Spool(pipe.root, RUN, TRIAL)
    write_events(spool, 0, 3)
    (spool.folder / "events" / "00000001.arrow").unlink()
    spool.finish(record(), None)
    assert wait_delivered(pipe.root, TRIAL, 0.5) != []


def talk(pipe: Pipe, *messages: wire.FromAgent, token: str = "secret") -> list[wire.FromCollector]:
    with grpc.insecure_channel(pipe.collector.address) as channel:
        answers = wire_grpc.TelemetryStub(channel).Publish(
            iter(messages), metadata=(("authorization", f"Bearer {token}"),)
        )
        return list(answers)


def opening(
    trial_id: str = "t", run_id: str = RUN, version: int = SCHEMA_VERSION
) -> wire.FromAgent:
    return wire.FromAgent(
        open=wire.OpenTrial(run_id=run_id, trial_id=trial_id, schema_version=version)
    )


def batch(sequence: int, data: bytes, stream: str = "events") -> wire.FromAgent:
    return wire.FromAgent(
        batch=wire.Batch(trial_id="t", stream=stream, sequence=sequence, arrow_ipc=data)
    )


def encoded(number: int, tmp_path: Path, table: object = EVENTS) -> bytes:
    spool = Spool(tmp_path / f"made{number}", RUN, "x")
    spool.stream(EVENTS).append(event(number))
    spool.row_counts()
    return (spool.folder / "events" / "00000001.arrow").read_bytes()


def test_a_stranger_is_refused(pipe: Pipe) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        talk(pipe, opening(), token="guess")
    assert caught.value.code() == grpc.StatusCode.UNAUTHENTICATED
    assert not list(pipe.trials.iterdir())


@pytest.mark.parametrize("trial_id", ["../escape", "a/b", "", ".hidden", "x" * 300])
def test_an_id_that_is_a_path_is_refused(pipe: Pipe, trial_id: str) -> None:
    (answer,) = talk(pipe, opening(trial_id))
    assert answer.WhichOneof("kind") == "refused"
    assert not list(pipe.trials.iterdir())


def test_another_run_or_release_is_refused(pipe: Pipe) -> None:
    assert "run" in talk(pipe, opening(run_id="other"))[0].refused.reason
    assert "releases" in talk(pipe, opening(version=99))[0].refused.reason


@pytest.mark.parametrize("data", [b"", b"nonsense", b"\xff" * 100])
def test_what_is_no_batch_is_refused_and_disturbs_nothing(
    pipe: Pipe, data: bytes, tmp_path: Path
) -> None:
    good = encoded(1, tmp_path)
    answers = talk(pipe, opening(), batch(1, good), batch(2, data))
    assert answers[-1].WhichOneof("kind") == "refused"
    again = talk(pipe, opening())
    assert again[0].opened.last_sequence == {"events": 1}


def test_a_table_with_other_columns_is_refused(pipe: Pipe, tmp_path: Path) -> None:
    answers = talk(pipe, opening(), batch(1, encoded(1, tmp_path), stream=MEMORY.name))
    assert "schema" in answers[-1].refused.reason


def test_a_replayed_batch_is_acknowledged_and_dropped(pipe: Pipe, tmp_path: Path) -> None:
    data = encoded(1, tmp_path)
    talk(pipe, opening(), batch(1, data), batch(1, data))
    assert talk(pipe, opening())[0].opened.last_sequence == {"events": 1}
    totals = [
        wire.StreamTotal(
            stream="events",
            batches=1,
            rows=1,
            digest=hashlib.sha256(hashlib.sha256(data).digest()).digest(),
        )
    ]
    finish = wire.FinishTrial(trial_id="t", totals=totals, trial_json=record("t").encode())
    answers = talk(pipe, opening(), wire.FromAgent(finish=finish))
    assert list(answers[-1].finished.differences) == []
    assert numbers(pipe.events("t")) == [1]


def test_agent_and_collector_end_with_the_process_that_started_them(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("secret")
    (tmp_path / "spool").mkdir()
    code = (
        "import sys, os; from pathlib import Path\n"
        "from results.collecting.process import CollectorProcess\n"
        "from workers.agent import AgentProcess\n"
        "root = Path(sys.argv[1])\n"
        "c = CollectorProcess.start(archive=root, run_id='r', token_file=root / 'token',"
        " log=root / 'c.log')\n"
        "a = AgentProcess.start(spool=root / 'spool', collector=c.address,"
        " token_file=root / 'token', log=root / 'a.log')\n"
        "print(c._process.pid, a._process.pid, flush=True)\n"
        "os.kill(os.getpid(), 9)\n"
    )
    import sys

    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True, check=False
    )
    left = {int(pid) for pid in done.stdout.split()}
    assert len(left) == 2
    pause = threading.Event()
    for _ in range(200):
        left = {pid for pid in left if _runs(pid)}
        if not left:
            return
        pause.wait(0.05)
    raise AssertionError(f"{left} still run")


def _runs(pid: int) -> bool:
    try:
        return "(python" in Path(f"/proc/{pid}/stat").read_text() and (
            Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
        )
    except OSError:
        return False


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to mount a small file system")
def test_a_full_archive_is_told_at_once_though_its_log_is_full_too(tmp_path: Path) -> None:
    small, spool_root = tmp_path / "small", tmp_path / "spool"
    small.mkdir()
    spool_root.mkdir()
    token_file = tmp_path / "token"
    token_file.write_text("secret")
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "none", str(small)], check=True)
    try:
        (small / RUN / "trials").mkdir(parents=True)
        collector = CollectorProcess.start(
            archive=small, run_id=RUN, token_file=token_file, log=small / "collector.log"
        )
        agent = AgentProcess.start(
            spool=spool_root,
            collector=collector.address,
            token_file=token_file,
            log=tmp_path / "agent.log",
        )
        spool = Spool(spool_root, RUN, TRIAL)
        for number in range(40):
            spool.stream(EVENTS).append(event(number) | {"message": ["m" * 20_000]})
            spool.stream(EVENTS).flush()
        spool.finish(record(), None)
        (told,) = wait_delivered(spool_root, TRIAL, 30.0, agent)
        assert "No space left" in told
        agent.stop()
        collector.stop()
    finally:
        subprocess.run(["umount", "--lazy", str(small)], check=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to mount a small file system")
def test_a_full_disk_under_the_spool_is_counted_and_told(tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(small)], check=True)
    try:
        spool = Spool(small, RUN, TRIAL)
        write_events(spool, 0, 100)
        assert spool.stream(EVENTS).lost_rows > 0
        assert spool.stream(EVENTS).rows + spool.stream(EVENTS).lost_rows == 100
    finally:
        subprocess.run(["umount", str(small)], check=True)


@given(
    st.lists(
        st.tuples(st.integers(-(2**63), 2**63 - 1), st.sampled_from(["idle", "measure"]),
                  st.text(max_size=10), st.none() | st.floats(allow_nan=False)),
        min_size=1, max_size=30,
    )
)  # fmt: skip
def test_any_rows_survive_the_spool(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[int, str, str, float | None]]
) -> None:
    spool = Spool(tmp_path_factory.mktemp("spool"), RUN, TRIAL)
    times, phases, words, values = (list(column) for column in zip(*rows, strict=True))
    spool.stream(EVENTS).append(
        {"time_ns": times, "phase": phases, "kind": words, "level": words, "message": words,
         "value": values}
    )  # fmt: skip
    assert spool.row_counts() == {"events": len(rows)}
    (path,) = spool.folder.glob("events/*.arrow")
    with pa.ipc.open_stream(path.read_bytes()) as reader:
        table = reader.read_all()
    assert table.column("kind").to_pylist() == words
    assert table.column("value").to_pylist() == values
    totals = json.loads((spool.folder / "events" / "totals.json").read_text())
    digest = hashlib.sha256(hashlib.sha256(path.read_bytes()).digest()).hexdigest()
    assert totals["digest"] == digest

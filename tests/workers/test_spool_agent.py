"""The spool with several writers and a full disk; the agent with trials that go wrong."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.dataset as ds
import pytest

import workers.spool
from results.archive.archive import Archive
from results.collecting.process import CollectorProcess
from results.record import TrialRecord
from results.schema import EVENTS, MEMORY, REQUESTS, SCHEMA_VERSION
from results.wire import telemetry_pb2 as wire
from workers.agent import FULL_PATIENCE_S, AgentProcess, Connection, SendingTrial, wait_delivered
from workers.spool import FLUSH_BYTES, LOG_BYTES_MAX, Spool, StreamWriter

RUN = "20260101-000000-abcd"
TRIAL = "b01-1-default-steady"


def record_text(trial_id: str = TRIAL) -> str:
    return TrialRecord(
        schema_version=SCHEMA_VERSION, run_id=RUN, trial_id=trial_id, block=1, position=1,
        attempt=1, configuration="default", baseline=True, workload="steady", node_id="n",
        node_class="c", started_ns=1, finished_ns=2, spec={}, node={}, versions={}, clock={},
    ).to_json()  # fmt: skip


def add_events(writer: StreamWriter, count: int, message: str = "it happened") -> None:
    writer.append(
        {
            "time_ns": list(range(count)),
            "phase": ["measure"] * count,
            "kind": ["ready"] * count,
            "level": ["info"] * count,
            "message": [message] * count,
        }
    )


def until(holds: Callable[[], bool], timeout_s: float = 20.0) -> None:
    pause = threading.Event()
    deadline_s = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < deadline_s, "it did not come in time"
        pause.wait(0.02)


# The spool


def test_a_column_left_out_is_null(tmp_path: Path) -> None:
    spool = Spool(tmp_path, RUN, TRIAL)
    spool.stream(MEMORY).append({"time_ns": [1, 2], "phase": ["idle", "idle"]})
    assert spool.row_counts() == {"memory": 2}
    with pa.ipc.open_stream((spool.folder / "memory" / "00000001.arrow").read_bytes()) as reader:
        table = reader.read_all()
    assert table.schema.equals(MEMORY.arrow, check_metadata=True)
    assert table["rss_bytes"].to_pylist() == [None, None]


def test_batches_wait_for_more_rows_and_are_numbered_without_gaps(tmp_path: Path) -> None:
    spool = Spool(tmp_path, RUN, TRIAL)
    writer = spool.stream(EVENTS)
    for _ in range(3):
        add_events(writer, 4096, "m" * (FLUSH_BYTES // 4096))
    add_events(writer, 1)
    writer.close()
    writer.close()
    names = sorted(path.name for path in (spool.folder / "events").iterdir())
    assert names == [*(f"{n:08d}.arrow" for n in range(1, 5)), "totals.json"]
    assert spool.row_counts() == {"events": 3 * 4096 + 1}


def test_threads_may_share_a_writer(tmp_path: Path) -> None:
    spool = Spool(tmp_path, RUN, TRIAL)
    writer = spool.stream(EVENTS)

    def write() -> None:
        for _ in range(50):
            add_events(writer, 3)
            writer.flush()

    threads = [threading.Thread(target=write) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert spool.row_counts() == {"events": 600}
    rows = 0
    for path in (spool.folder / "events").glob("*.arrow"):
        with pa.ipc.open_stream(path.read_bytes()) as reader:
            rows += reader.read_all().num_rows
    assert rows == 600


def test_a_long_log_keeps_its_beginning_and_its_end(tmp_path: Path) -> None:
    log = tmp_path / "service.log"
    log.write_bytes(b"first words\n" + bytes(LOG_BYTES_MAX) + b"last words\n")
    spool = Spool(tmp_path / "spool", RUN, TRIAL)
    spool.finish(record_text(), log)
    kept = (spool.folder / "service.log").read_bytes()
    assert kept.startswith(b"first words\n")
    assert kept.endswith(b"last words\n")
    assert b"[... cut ...]" in kept
    assert len(kept) < LOG_BYTES_MAX + 100


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KiB."""
    if os.geteuid() != 0:
        pytest.skip("needs root to mount a small file system")
    folder = tmp_path / "small"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(folder)], check=True)
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def fill(disk: Path) -> Path:
    """Leave no room; what takes it may be removed."""
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file, pytest.raises(OSError):
        while True:
            file.write(bytes(4096))
    return ballast


def test_rows_lost_to_a_full_disk_are_known_to_every_process(small_disk: Path) -> None:
    spool = Spool(small_disk, RUN, TRIAL)
    writer = spool.stream(EVENTS)
    add_events(writer, 2)
    writer.flush()
    ballast = fill(small_disk)
    add_events(writer, 5)
    writer.flush()
    assert writer.lost_rows == 5
    ballast.unlink()
    writer.close()
    elsewhere = Spool(small_disk, RUN, TRIAL)
    assert elsewhere.lost_rows() == 5
    assert elsewhere.row_counts() == {"events": 2}


def test_a_trial_ends_when_its_full_disk_has_room_and_tells_what_was_lost(
    small_disk: Path,
) -> None:
    spool = Spool(small_disk, RUN, TRIAL)
    writer = spool.stream(EVENTS)
    add_events(writer, 2)
    writer.flush()
    ballast = fill(small_disk)
    add_events(writer, 5)
    ending = threading.Thread(target=spool.finish, args=(record_text(), None))
    ending.start()
    until(lambda: writer.lost_rows == 5)
    assert ending.is_alive()
    ballast.unlink()
    ending.join()
    told = json.loads((spool.folder / "finish.json").read_text())["totals"]["events"]
    assert (told["rows"], told["lost_rows"]) == (2, 5)


def test_a_disk_that_stays_full_is_an_error_at_the_end(
    small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.spool.END_PATIENCE_S", 0.2)
    spool = Spool(small_disk, RUN, TRIAL)
    add_events(spool.stream(EVENTS), 2)
    fill(small_disk)
    with pytest.raises(OSError, match="No space left"):
        spool.finish(record_text(), None)
    assert not (spool.folder / "finish.json").exists(), "the agent must not take it for ended"


def test_a_spool_that_nobody_empties_is_bounded_and_counts(tmp_path: Path) -> None:
    spool = Spool(tmp_path, RUN, TRIAL, stream_bytes_max=50_000)
    writer = spool.stream(EVENTS)
    for _ in range(100):
        add_events(writer, 10, "m" * 100)
        writer.flush()
    files = list((spool.folder / "events").glob("*.arrow"))
    assert 30_000 < sum(path.stat().st_size for path in files) <= 50_000
    assert writer.rows == 10 * len(files)
    assert writer.lost_rows == 1000 - writer.rows
    for path in files:  # as an agent does that comes late
        path.unlink()
    writer._files._counted_s = 0
    add_events(writer, 10, "m" * 100)
    writer.flush()
    assert writer.lost_rows == 1000 - 10 * len(files), "there was room again"


def test_a_disk_that_stands_still_stops_no_writer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    goes_on, writes = threading.Event(), threading.Event()

    def slow(path: Path, data: bytes) -> None:
        writes.set()
        goes_on.wait()
        write_whole(path, data)

    write_whole = workers.spool._write_whole
    spool = Spool(tmp_path, RUN, TRIAL, in_background=True)
    writer = spool.stream(EVENTS)
    monkeypatch.setattr("workers.spool._write_whole", slow)
    monkeypatch.setattr("workers.spool.FLUSH_BYTES", 10_000)
    monkeypatch.setattr("workers.spool.WAITING_BYTES_MAX", 100_000)
    add_events(writer, 100, "m" * 100)
    writes.wait()
    for _ in range(20):  # would never come back if it waited
        add_events(writer, 100, "m" * 100)
    assert writer.lost_rows > 0
    goes_on.set()
    spool.finish(record_text(), None)
    assert writer.rows + writer.lost_rows == 2100
    assert writer.rows >= 700, "what fits into memory is not lost"
    assert spool.totals()["events"]["lost_rows"] == writer.lost_rows


# The agent


@dataclass
class Pipe:
    trials: Path
    root: Path
    agent: AgentProcess

    def record(self) -> TrialRecord:
        return TrialRecord.read(self.trials / TRIAL / "trial.json")


@pytest.fixture
def pipe(tmp_path: Path) -> Iterator[Pipe]:
    (tmp_path / "matrix.yaml").write_text("")
    archive = Archive.create(tmp_path / "archive")
    document = {"schema_version": 1, "run_id": RUN, "status": "running", "started_ns": 1}
    archive.create_run(RUN, document, tmp_path / "matrix.yaml")
    token_file = tmp_path / "token"
    token_file.write_text("secret\n")
    root = tmp_path / "spool"
    root.mkdir()
    collector = CollectorProcess.start(
        archive=archive.path, run_id=RUN, token_file=token_file, log=tmp_path / "collector.log"
    )
    agent = AgentProcess.start(
        spool=root, collector=collector.address, token_file=token_file, log=tmp_path / "agent.log"
    )
    yield Pipe(archive.path / RUN / "trials", root, agent)
    agent.stop()
    collector.stop()


WRITE_REQUESTS = """
import sys
from pathlib import Path
from results.schema import REQUESTS
from workers.spool import Spool
writer = Spool(Path(sys.argv[1]), sys.argv[2], sys.argv[3]).stream(REQUESTS)
for n in range(300):
    writer.append({
        "start_ns": [n], "phase": ["measure"], "service_ns": [n],
        "method": ["GET"], "name": ["/"], "error": [None if n < 200 else f"error {n % 3}"],
    })
    writer.flush()
writer.close()
"""


def test_streams_of_two_processes_become_one_trial(pipe: Pipe) -> None:
    spool = Spool(pipe.root, RUN, TRIAL)
    add_events(spool.stream(EVENTS), 3)
    subprocess.run([sys.executable, "-c", WRITE_REQUESTS, str(pipe.root), RUN, TRIAL], check=True)
    assert spool.row_counts() == {"events": 3, "requests": 300}
    spool.finish(record_text(), None)
    assert wait_delivered(pipe.root, TRIAL, 30.0, pipe.agent) == []
    assert pipe.record().rows == {"events": 3, "requests": 300}
    sealed = pipe.trials / TRIAL / f"{REQUESTS.name}.arrow"
    table = ds.dataset([str(sealed)], format="ipc").to_table()
    assert table["start_ns"].to_pylist() == list(range(300))
    expected = [None if n < 200 else f"error {n % 3}" for n in range(300)]
    assert table["error"].to_pylist() == expected


def test_lost_rows_make_the_trial_invalid(pipe: Pipe) -> None:
    spool = Spool(pipe.root, RUN, TRIAL)
    writer = spool.stream(EVENTS)
    add_events(writer, 3)
    spool.row_counts()
    target = spool.folder / "events" / "00000002.arrow"
    target.mkdir()  # nothing can be written under this name
    add_events(writer, 4)
    writer.flush()
    target.rmdir()
    spool.finish(record_text(), None)
    (difference,) = wait_delivered(pipe.root, TRIAL, 30.0, pipe.agent)
    assert "7 rows were measured, the archive has 3 rows" in difference
    assert not pipe.record().valid


def test_a_trial_that_is_refused_does_not_hold_up_the_next(pipe: Pipe) -> None:
    foreign = Spool(pipe.root, "another-run", "a-foreign-trial")
    add_events(foreign.stream(EVENTS), 3)
    foreign.finish(record_text("a-foreign-trial"), None)
    (reason,) = wait_delivered(pipe.root, "a-foreign-trial", 30.0, pipe.agent)
    assert "refused" in reason
    assert "another-run" in reason
    spool = Spool(pipe.root, RUN, TRIAL)
    add_events(spool.stream(EVENTS), 3)
    spool.finish(record_text(), None)
    assert wait_delivered(pipe.root, TRIAL, 30.0, pipe.agent) == []


@pytest.mark.parametrize("text", ["", "{", "null", "{}", f'{{"run_id": "{RUN}"}}'])
def test_a_damaged_folder_does_not_hold_up_the_others(pipe: Pipe, text: str) -> None:
    """Its name comes first in order, so the agent meets it first."""
    (pipe.root / "a-damaged-trial").mkdir()
    (pipe.root / "a-damaged-trial" / "open.json").write_text(text)
    spool = Spool(pipe.root, RUN, TRIAL)
    add_events(spool.stream(EVENTS), 3)
    spool.finish(record_text(), None)
    assert wait_delivered(pipe.root, TRIAL, 20.0, pipe.agent) == []


def test_an_agent_with_a_wrong_token_ends_and_delivers_nothing(pipe: Pipe, tmp_path: Path) -> None:
    address = _address(pipe.agent)
    pipe.agent.stop()
    (tmp_path / "guess").write_text("guess")
    stranger = AgentProcess.start(
        spool=pipe.root,
        collector=address,
        token_file=tmp_path / "guess",
        log=tmp_path / "stranger.log",
    )
    try:
        until(lambda: not stranger.alive)
    finally:
        stranger.stop()
    assert "wrong token" in (tmp_path / "stranger.log").read_text()
    assert "guess" not in (tmp_path / "collector.log").read_text()
    assert not list(pipe.trials.iterdir())


def _address(agent: AgentProcess) -> str:
    command = agent._command
    return command[command.index("--collector") + 1]


def test_a_trial_that_nobody_takes_stays_in_the_spool(tmp_path: Path) -> None:
    spool = Spool(tmp_path, RUN, TRIAL)
    add_events(spool.stream(EVENTS), 3)
    spool.finish(record_text(), None)
    (text,) = wait_delivered(tmp_path, TRIAL, 0.05)
    assert "did not confirm" in text
    assert json.loads((spool.folder / "finish.json").read_text())["totals"]["events"]["rows"] == 3
    assert (spool.folder / "events" / "00000001.arrow").exists()


def test_a_disk_that_was_full_long_before_the_end_is_waited_for_all_the_same(
    tmp_path: Path,
) -> None:
    """Patience counts from the end: until then the spool holds what comes."""
    folder = tmp_path / TRIAL
    folder.mkdir()
    connection = Connection.__new__(Connection)
    connection._root = tmp_path
    full = wire.FromCollector(
        refused=wire.Refused(trial_id=TRIAL, reason="No space left", may_pass=True)
    )
    outcome = tmp_path / f"{TRIAL}.delivered.json"

    def refused(since_s: float | None) -> float | None:
        connection._trials = {TRIAL: SendingTrial(folder, refused_since_s=since_s)}
        connection._take(full)
        return connection._trials[TRIAL].refused_since_s

    assert refused(None) is None
    (folder / "finish.json").write_text("{}")
    first_s = refused(None)
    assert first_s is not None
    assert refused(first_s) == first_s
    assert not outcome.exists()
    refused(first_s - FULL_PATIENCE_S)
    assert "No space left" in outcome.read_text()

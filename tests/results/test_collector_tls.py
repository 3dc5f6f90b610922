"""Who may send to a collector that other machines reach, and what a stranger can disturb."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from queue import Queue
from typing import Any

import grpc
import pytest
from test_collector import RUN, TRIAL, encoded, event, finishing, opening, sending, total

from orchestrator.membership.pki import Authority, Role, key_pem, make_key, write_tls_folder
from results.collecting.control import abandon_trial
from results.collecting.process import CollectorProcess
from results.collecting.secure import RareLog, open_channel, peer_host
from results.errors import EnvironmentLacks
from results.record import TrialRecord
from results.schema import EVENTS
from results.wire import telemetry_pb2 as wire
from results.wire import telemetry_pb2_grpc as wire_grpc

TOKEN = "the-token-of-this-run"
BATCHES = [encoded(EVENTS, [event(n)]) for n in range(4)]


@dataclass
class Site:
    """A collector process with mutual TLS, and an authority that can make more certificates."""

    tmp: Path
    authority: Authority
    archive: Path
    process: CollectorProcess

    def folder(self, role: Role, name: str = "n1", **how: Any) -> Path:
        authority: Authority = how.pop("authority", self.authority)
        key = make_key()
        target = self.tmp / f"{role}-{name}-{len(list(self.tmp.iterdir()))}"
        certificate = authority.issue(key.public_key(), role, name, **how)
        trusted = self.authority.pem
        write_tls_folder(target, authority=trusted, certificate=certificate, key=key_pem(key))
        return target

    def log(self) -> str:
        return (self.tmp / "collector.log").read_text()

    def trial(self, name: str = TRIAL) -> Path:
        return self.archive / RUN / "trials" / name

    def record(self, name: str = TRIAL) -> TrialRecord:
        return TrialRecord.read(self.trial(name) / "trial.json")


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    authority = Authority.make()
    (tmp_path / "token").write_text(TOKEN)
    made = Site(tmp_path, authority, tmp_path / "archive", None)  # type: ignore[arg-type]
    made.process = CollectorProcess.start(
        archive=made.archive,
        run_id=RUN,
        token_file=tmp_path / "token",
        log=tmp_path / "collector.log",
        listen="127.0.0.1",
        tls=made.folder("head", "head"),
    )
    yield made
    made.process.stop()


@dataclass
class Agent:
    """One stream, message by message."""

    channel: grpc.Channel
    token: str = TOKEN
    outgoing: Queue[wire.FromAgent | None] = field(default_factory=Queue)
    answers: Any = None

    def __post_init__(self) -> None:
        self.answers = wire_grpc.TelemetryStub(self.channel).Publish(
            iter(self.outgoing.get, None),
            metadata=(("authorization", f"Bearer {self.token}"),),
            timeout=60,
        )

    def say(self, *messages: wire.FromAgent) -> wire.FromCollector:
        """Send, and take one answer for all (open or finish) or for the last batch."""
        for message in messages:
            self.outgoing.put(message)
        return next(self.answers)

    def acknowledged(self, sequence: int, stream: str = "events") -> None:
        answer = self.say(sending(sequence, BATCHES[sequence - 1], stream))
        assert answer.acknowledged.sequence == sequence, answer
        assert answer.acknowledged.stream == stream


@pytest.fixture
def connect(site: Site) -> Iterator[Callable[..., Agent]]:
    channels: list[grpc.Channel] = []

    def make(folder: Path | None = None, token: str = TOKEN) -> Agent:
        channels.append(open_channel(site.process.address, folder or site.folder("node")))
        return Agent(channels[-1], token)

    yield make
    for channel in channels:
        channel.close()


def until(holds: Callable[[], bool], timeout_s: float = 20.0) -> None:
    pause = threading.Event()
    deadline_s = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < deadline_s, "it did not come in time"
        pause.wait(0.02)


def code(agent: Agent) -> grpc.StatusCode:
    with pytest.raises(grpc.RpcError) as caught:
        agent.say(opening())
    assert isinstance(caught.value, grpc.Call)
    return caught.value.code()


# Strangers


def test_strangers_are_turned_away_and_disturb_nothing(
    site: Site, connect: Callable[..., Agent]
) -> None:
    agent = connect()
    agent.say(opening())
    agent.acknowledged(1)
    foreign = site.folder("node", authority=Authority.make())
    expired = site.folder("node", days=-1)
    for _ in range(3):
        assert code(connect(foreign)) == grpc.StatusCode.UNAVAILABLE
        assert code(connect(expired)) == grpc.StatusCode.UNAVAILABLE
        assert code(connect(token="guess")) == grpc.StatusCode.UNAUTHENTICATED
        assert code(connect(site.folder("join"))) == grpc.StatusCode.PERMISSION_DENIED
        with grpc.insecure_channel(site.process.address) as channel:
            assert code(Agent(channel)) == grpc.StatusCode.UNAVAILABLE
        host, port = site.process.address.split(":")
        with socket.create_connection((host, int(port))) as connection:
            connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
    agent.acknowledged(2)
    assert list(agent.say(finishing(total("events", 2, BATCHES[:2]))).finished.differences) == []
    assert site.record().valid
    until(lambda: "http request" in site.log())
    log = site.log()
    assert log.count("issuer certificate") == 1
    assert log.count("certificate has expired") == 1
    assert log.count("wrong token") == 1
    assert log.count("does not allow it") == 1
    assert "guess" not in log
    assert TOKEN not in log


def test_another_server_can_not_pass_for_the_collector(site: Site) -> None:
    """A node's certificate is of the same authority, but it is not the head's."""
    server = grpc.server(ThreadPoolExecutor(1))
    from results.collecting.secure import server_credentials

    port = server.add_secure_port("127.0.0.1:0", server_credentials(site.folder("node")))
    server.start()
    try:
        with open_channel(f"127.0.0.1:{port}", site.folder("node")) as channel:
            assert code(Agent(channel)) == grpc.StatusCode.UNAVAILABLE
    finally:
        server.stop(grace=None).wait()


def test_a_stream_without_a_certificate_is_for_loopback_alone(tmp_path: Path) -> None:
    (tmp_path / "token").write_text(TOKEN)
    done = subprocess.run(
        [
            *(sys.executable, "-m", "results.collecting.collector", "--archive", str(tmp_path)),
            *("--run-id", RUN, "--token-file", str(tmp_path / "token"), "--listen", "0.0.0.0"),
        ],
        capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert done.returncode != 0
    assert "--tls" in done.stderr


def test_a_batch_too_large_ends_its_own_stream(site: Site, connect: Callable[..., Agent]) -> None:
    agent, clumsy = connect(), connect()
    agent.say(opening())
    with pytest.raises(grpc.RpcError) as caught:
        clumsy.say(opening("another"), sending(1, bytes(64 * 2**20 + 1), trial_id="another"))
        next(clumsy.answers)
    assert isinstance(caught.value, grpc.Call)
    assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    agent.acknowledged(1)


def test_what_is_no_batch_ends_its_own_trial_alone(
    site: Site, connect: Callable[..., Agent]
) -> None:
    agent, broken = connect(), connect()
    agent.say(opening())
    for _ in range(3):
        broken.say(opening("another"))
        answer = broken.say(sending(1, b"nonsense", trial_id="another"))
        assert "not an Arrow batch" in answer.refused.reason
    agent.acknowledged(1)
    assert site.log().count("not an Arrow batch") == 1


def test_a_replayed_batch_is_dropped_and_told_once(
    site: Site, connect: Callable[..., Agent]
) -> None:
    agent, other = connect(), connect()
    agent.say(opening())
    agent.acknowledged(1)
    for _ in range(3):
        agent.acknowledged(1)  # acknowledged again, and not written again
    changed = sending(1, encoded(EVENTS, [event(99, message="forged")]))
    other.say(opening())
    assert other.say(changed).acknowledged.sequence == 1
    agent.acknowledged(2)
    assert list(agent.say(finishing(total("events", 2, BATCHES[:2]))).finished.differences) == []
    assert site.record().rows == {"events": 2}
    assert site.log().count("replayed") == 1
    assert b"forged" not in (site.trial() / "events.arrow").read_bytes()


# Parts


def part_opening(part: int, trial_id: str = TRIAL) -> wire.FromAgent:
    message = opening(trial_id)
    message.open.part = part
    return message


def part_finishing(part: int, *totals: wire.StreamTotal) -> wire.FromAgent:
    finish = wire.FinishTrial(trial_id=TRIAL, totals=totals, part=part)
    return wire.FromAgent(finish=finish)


def main_finishing(*totals: wire.StreamTotal, parts: list[int]) -> wire.FromAgent:
    message = finishing(*totals)
    message.finish.parts.extend(parts)
    return message


def test_parts_of_several_nodes_become_one_trial(site: Site, connect: Callable[..., Agent]) -> None:
    main, first, second = connect(), connect(), connect()
    main.say(opening())
    assert dict(first.say(part_opening(1)).opened.last_sequence) == {}
    second.say(part_opening(2))
    for number in (1, 2):
        main.acknowledged(number)
        first.acknowledged(number, "events-1")
        second.acknowledged(number, "events-2")
    first.acknowledged(3, "events-1")
    done = first.say(part_finishing(1, total("events-1", 3, BATCHES[:3]))).finished
    assert list(done.differences) == []
    # The others go on as if nothing had happened.
    main.acknowledged(3)
    second.acknowledged(3, "events-2")
    second.say(part_finishing(2, total("events-2", 3, BATCHES[:3])))
    sealed = main.say(main_finishing(total("events", 3, BATCHES[:3]), parts=[1, 2])).finished
    assert list(sealed.differences) == []
    record = site.record()
    assert record.valid
    assert record.rows == {"events": 3, "events-1": 3, "events-2": 3}
    assert sorted(record.digests) == ["events", "events-1", "events-2"]
    assert sorted(path.name for path in site.trial().iterdir()) == [
        "SHA256SUMS",
        "events-1.arrow", "events-2.arrow", "events.arrow", "service.log", "trial.json",
    ]  # fmt: skip


def test_a_part_that_is_missing_is_a_difference(site: Site, connect: Callable[..., Agent]) -> None:
    main, load = connect(), connect()
    main.say(opening())
    load.say(part_opening(1))
    load.acknowledged(1, "events-1")
    main.acknowledged(1)
    answer = main.say(main_finishing(total("events", 1, BATCHES[:1]), parts=[1, 2])).finished
    told = "\n".join(answer.differences)
    assert "part 1" in told
    assert "1 are in the archive" in told
    assert "part 2" in told
    assert not site.record().valid
    assert site.record().rows["events-1"] == 1


def test_a_part_that_nobody_named_is_a_difference(
    site: Site, connect: Callable[..., Agent]
) -> None:
    main, load = connect(), connect()
    main.say(opening())
    load.say(part_opening(7))
    load.acknowledged(1, "events-7")
    load.say(part_finishing(7, total("events-7", 1, BATCHES[:1])))
    main.acknowledged(1)
    answer = main.say(main_finishing(total("events", 1, BATCHES[:1]), parts=[])).finished
    assert "events-7" in "\n".join(answer.differences)


def test_what_a_part_lost_is_told_to_it_and_in_the_trial(
    site: Site, connect: Callable[..., Agent]
) -> None:
    main, load = connect(), connect()
    main.say(opening())
    load.say(part_opening(1))
    load.acknowledged(1, "events-1")
    finish = part_finishing(1, total("events-1", 2, BATCHES[:2]))
    (lost,) = load.say(finish).finished.differences
    assert "2 rows were measured, the archive has 1 rows" in lost
    assert list(load.say(finish).finished.differences) == [lost]
    main.acknowledged(1)
    answer = main.say(main_finishing(total("events", 1, BATCHES[:1]), parts=[1])).finished
    assert list(answer.differences) == [lost]


def test_a_finished_part_is_remembered_over_the_collectors_death(
    site: Site, connect: Callable[..., Agent]
) -> None:
    main, load = connect(), connect()
    main.say(opening())
    load.say(part_opening(1))
    load.acknowledged(1, "events-1")
    main.acknowledged(1)
    load.say(part_finishing(1, total("events-1", 1, BATCHES[:1])))
    site.process._process.kill()
    site.process._process.wait()
    assert site.process.ensure_alive()
    again = connect()
    assert dict(again.say(opening()).opened.last_sequence) == {"events": 1}
    again.acknowledged(2)
    sealed = again.say(main_finishing(total("events", 2, BATCHES[:2]), parts=[1])).finished
    assert list(sealed.differences) == []
    assert site.record().rows == {"events": 2, "events-1": 1}


def test_a_part_may_write_its_own_streams_alone(site: Site, connect: Callable[..., Agent]) -> None:
    main, load = connect(), connect()
    main.say(opening())
    main.acknowledged(1)
    load.say(part_opening(1))
    assert "does not belong to part 1" in load.say(sending(2, BATCHES[1])).refused.reason
    assert "not opened" in load.say(sending(1, BATCHES[0], "events-1")).refused.reason
    assert "was not opened" in load.say(part_finishing(1)).refused.reason
    main.acknowledged(2)  # and the service's own node does not notice
    load.say(part_opening(1))
    load.acknowledged(1, "events-1")
    bad = load.say(sending(2, b"nonsense", "events-1"))
    assert "not an Arrow batch" in bad.refused.reason
    assert dict(load.say(part_opening(1)).opened.last_sequence) == {"events-1": 1}
    load.acknowledged(2, "events-1")


@pytest.mark.parametrize("stream", ["events-0", "events-01", "events--1", "events-1x", "events-"])
def test_a_stream_with_an_odd_part_is_refused(
    site: Site, connect: Callable[..., Agent], stream: str
) -> None:
    agent = connect()
    agent.say(part_opening(1))
    assert "no table" in agent.say(sending(1, BATCHES[0], stream)).refused.reason


# Lost nodes


def record_of(trial_id: str = TRIAL) -> TrialRecord:
    return TrialRecord.from_json(finishing(trial_id=trial_id).finish.trial_json.decode())


def test_a_lost_nodes_trial_is_sealed_with_what_was_acknowledged(
    site: Site, connect: Callable[..., Agent]
) -> None:
    agent, load, bystander = connect(), connect(), connect()
    bystander.say(opening("bystander"))
    agent.say(opening())
    load.say(part_opening(1))
    agent.acknowledged(1)
    agent.acknowledged(2)
    load.acknowledged(1, "events-1")
    sealed = abandon_trial(site.process, record_of(), why="node n1 was killed", sent_at_least=30)
    assert sealed.rows == {"events": 2, "events-1": 1}
    assert not sealed.valid
    (finding,) = sealed.findings
    assert finding.code == "node_lost"
    assert "node n1 was killed" in finding.text
    assert "30" in finding.text
    assert site.record() == sealed
    # What comes late is refused, on the old connection and on a new one.
    assert "was not opened" in agent.say(sending(3, BATCHES[2])).refused.reason
    assert "given up" in connect().say(opening()).refused.reason
    assert "given up" in load.say(part_opening(1)).refused.reason
    assert sealed == abandon_trial(site.process, record_of(), why="again")
    assert site.record() == sealed
    bystander.say(sending(1, BATCHES[0], trial_id="bystander"))
    done = bystander.say(finishing(total("events", 1, BATCHES[:1]), trial_id="bystander"))
    assert list(done.finished.differences) == []


def test_a_trial_of_which_nothing_came_is_sealed_too(site: Site) -> None:
    sealed = abandon_trial(site.process, record_of(), why="it never said a word")
    assert sealed.rows == {}
    assert not site.record().valid


def test_a_trial_that_was_sealed_in_time_keeps_its_own_record(
    site: Site, connect: Callable[..., Agent]
) -> None:
    agent = connect()
    agent.say(opening())
    agent.acknowledged(1)
    agent.say(finishing(total("events", 1, BATCHES[:1])))
    kept = abandon_trial(site.process, record_of(), why="it died right afterwards")
    assert kept.valid
    assert kept.rows == {"events": 1}


def test_a_dead_collector_is_started_for_it(site: Site, connect: Callable[..., Agent]) -> None:
    agent = connect()
    agent.say(opening())
    agent.acknowledged(1)
    site.process._process.kill()
    site.process._process.wait()
    assert abandon_trial(site.process, record_of(), why="both died").rows == {"events": 1}


def test_only_the_head_may_give_a_trial_up(site: Site, connect: Callable[..., Agent]) -> None:
    request = wire.AbandonTrial(
        run_id=RUN, trial_id=TRIAL, trial_json=record_of().to_json().encode()
    )
    metadata = (("authorization", f"Bearer {TOKEN}"),)
    with (
        open_channel(site.process.address, site.folder("node")) as channel,
        pytest.raises(grpc.RpcError) as caught,
    ):
        wire_grpc.TelemetryStub(channel).Abandon(request, metadata=metadata, timeout=10)
    assert isinstance(caught.value, grpc.Call)
    assert caught.value.code() == grpc.StatusCode.PERMISSION_DENIED
    assert not site.trial().exists()


def test_nonsense_is_not_given_up(site: Site) -> None:
    other = record_of()
    other.run_id = "another-run"
    with pytest.raises(EnvironmentLacks, match="another-run"):
        abandon_trial(site.process, other)
    escaping = record_of("../escape")
    with pytest.raises(EnvironmentLacks, match="can't be the id"):
        abandon_trial(site.process, escaping)


# Small parts


def test_a_rare_log_is_rare_for_each_peer_and_reason() -> None:
    lines: list[str] = []
    log = RareLog(lines.append)
    for number in range(100):
        log.say("10.0.0.1", "wrong token", f"try {number}")
        log.say("10.0.0.2", "wrong token")
    log.say("10.0.0.1", "expired")
    assert lines == ["wrong token: 10.0.0.1: try 0", "wrong token: 10.0.0.2", "expired: 10.0.0.1"]


def test_a_rare_log_does_not_grow_with_the_number_of_strangers() -> None:
    log = RareLog(lambda _: None)
    for number in range(5000):
        log.say(f"stranger {number}", "wrong token")
    assert len(log._told) <= 1000


@pytest.mark.parametrize(
    ("peer", "host"),
    [
        ("ipv4:10.0.0.1:5000", "10.0.0.1"),
        ("ipv6:%5B::1%5D:5000", "::1"),
        ("ipv6:[::ffff:10.0.0.1]:5", "10.0.0.1"),
        ("unix:/tmp/x", "/tmp/x"),
    ],
)
def test_the_host_of_a_peer(peer: str, host: str) -> None:
    assert peer_host(peer) == host

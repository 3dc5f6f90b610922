"""A pipe to be measured: real agent, real collector, and rows that look like real traffic."""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.compute as pc

from results.collecting.process import CollectorProcess
from results.record import LoadRecord, PhaseSpan, TrialRecord
from results.schema import REQUESTS
from tests.workers.faultypipe import RUN, record
from workers.agent import AgentProcess, wait_delivered
from workers.spool import Spool

SECOND_NS = 10**9
BATCH_ROWS = 8192
"""What a load generator hands to its spool at a time."""

KNOWN_BATCHES = 64
DELIVERY_TIMEOUT_S = 120.0
POLL_S = 0.005
RSS_EVERY_S = 0.1


@dataclass(frozen=True)
class Pipe:
    """Both processes and their folders."""

    root: Path
    archive: Path
    agent: AgentProcess
    collector: CollectorProcess

    @classmethod
    @contextmanager
    def running(cls, folder: Path) -> Iterator[Pipe]:
        """Started in a new folder, ended and removed."""
        root, archive, token_file = folder / "spool", folder / "archive", folder / "token"
        for new in (root, archive / RUN / "trials"):
            new.mkdir(parents=True)
        token_file.write_text("secret", encoding="ascii")
        collector = CollectorProcess.start(
            archive=archive, run_id=RUN, token_file=token_file, log=folder / "collector.log"
        )
        agent = AgentProcess.start(
            spool=root,
            collector=collector.address,
            token_file=token_file,
            log=folder / "agent.log",
        )
        try:
            yield cls(root, archive, agent, collector)
        finally:
            agent.stop()
            collector.stop()
            shutil.rmtree(folder)

    def seal(self, spool: Spool, trial: TrialRecord) -> TrialRecord:
        """End a trial and wait for its seal; the record as it was sealed."""
        spool.finish(trial.to_json(), None)
        found = wait_delivered(self.root, trial.trial_id, DELIVERY_TIMEOUT_S, self.agent)
        assert not found, found
        return TrialRecord.read(self.sealed(trial.trial_id) / "trial.json")

    @property
    def cpu_s(self) -> float:
        """Seconds of CPU of both processes since they started."""
        both = (self.agent._process.pid, self.collector._process.pid)
        times = [psutil.Process(pid).cpu_times() for pid in both]
        return sum(used.user + used.system for used in times)

    def sealed(self, trial_id: str) -> Path:
        """A trial's folder in the archive."""
        return self.archive / RUN / "trials" / trial_id


def spooled(root: Path, batches: Iterator[pa.RecordBatch], trial_id: str) -> Spool:
    """A trial with all these requests in files."""
    spool = Spool(root, RUN, trial_id)
    writer = spool.stream(REQUESTS)
    for batch in batches:
        writer.write(batch)
    writer.close()
    return spool


def hand_in(ready: Path, pipe: Pipe, trial_id: str) -> Spool:
    """Let the agent find a spooled trial, all of it at once; its files are shared, not copied."""
    aside = pipe.root.parent / trial_id
    shutil.copytree(ready, aside, copy_function=os.link)
    aside.rename(pipe.root / trial_id)
    return Spool(pipe.root, RUN, trial_id)


def wait_acknowledged(spool: Spool) -> None:
    """Return when the last of a spool's requests is acknowledged, which is when its file goes."""
    batches = spool.totals()[REQUESTS.name]["batches"]
    last = spool.folder / REQUESTS.name / f"{batches:08d}.arrow"
    deadline_s = time.monotonic() + DELIVERY_TIMEOUT_S
    while last.exists():
        assert time.monotonic() < deadline_s, "the last batch was not acknowledged in time"
        time.sleep(POLL_S)


class Resident:
    """Resident memory of a process, sampled by a thread until it is ended."""

    def __init__(self, pid: int) -> None:
        self._process = psutil.Process(pid)
        self._ended = threading.Event()
        self._began_s = time.monotonic()
        self._samples: list[tuple[float, int]] = []
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._thread.start()

    def _sample(self) -> None:
        while not self._ended.wait(RSS_EVERY_S):
            now_s = time.monotonic() - self._began_s
            self._samples.append((now_s, self._process.memory_info().rss))

    def end(self) -> None:
        """Take no more samples."""
        self._ended.set()
        self._thread.join()

    @property
    def largest_bytes(self) -> int:
        """The largest sample."""
        return max(rss for _, rss in self._samples)

    def mean_bytes(self, from_s: float, to_s: float) -> float:
        """The mean over some seconds since it began."""
        return mean(rss for at_s, rss in self._samples if from_s <= at_s < to_s)


@dataclass
class Traffic:
    """Requests as a service gets them: Poisson arrivals, log-normal latencies, several names.

    In the order in which their answers came, as a generator writes them.
    """

    rate_rps: float
    rows: int
    seed: int = 20_265
    start_ns: int = 1_795_800_000 * SECOND_NS

    @property
    def end_ns(self) -> int:
        """When the load ends."""
        return self.start_ns + round(self.rows / self.rate_rps * SECOND_NS)

    def batches(self) -> Iterator[pa.RecordBatch]:
        """All rows, as many at a time as a generator hands over.

        After half a million of them they come again, later: a sealed record batch has fewer.
        """
        draw = np.random.default_rng(self.seed)
        known: list[pa.RecordBatch] = []
        due_ns = np.array([self.start_ns])
        for first in range(0, self.rows, BATCH_ROWS):
            turn, place = divmod(first // BATCH_ROWS, KNOWN_BATCHES)
            if not turn:
                gaps_ns = draw.exponential(SECOND_NS / self.rate_rps, BATCH_ROWS)
                due_ns = due_ns[-1] + np.cumsum(gaps_ns).astype(np.int64)
                known.append(self._batch(draw, due_ns))
            # Nothing is drawn any more by then: what is known is this long.
            later_ns = turn * int(due_ns[-1] - self.start_ns)
            yield _later(known[place], later_ns).slice(0, self.rows - first)

    def _batch(self, draw: np.random.Generator, due_ns: np.ndarray) -> pa.RecordBatch:
        count = len(due_ns)
        lag_ns = draw.lognormal(np.log(90_000), 0.5, count).astype(np.int64)
        service_ns = draw.lognormal(np.log(5e6), 0.8, count).astype(np.int64)
        order = np.argsort(due_ns + lag_ns + service_ns)
        failed = draw.random(count) < 0.005
        status = np.where(failed, draw.choice([404, 500, 503], count), 200)
        names = draw.choice(4, count, p=[0.6, 0.2, 0.15, 0.05])
        columns = {
            "start_ns": pa.array((due_ns + lag_ns)[order]),
            "lag_ns": pa.array(lag_ns[order]),
            "phase": pa.DictionaryArray.from_arrays(np.zeros(count, np.int8), ["measure"]),
            "service_ns": pa.array(service_ns[order]),
            "method": _words(names == 3, ["GET", "POST"]),
            "name": _words(names, ["/session", "/search", "/item/[id]", "/basket"]),
            "status": pa.array(status.astype(np.int16)),
            "response_bytes": pa.array(draw.integers(200, 20_000, count)),
            "error": _words(np.zeros(count), ["the server failed"], absent=~failed),
        }
        arrays = [columns[field.name].cast(field.type) for field in REQUESTS.arrow]
        return pa.RecordBatch.from_arrays(arrays, schema=REQUESTS.arrow)

    def record(self, trial_id: str) -> TrialRecord:
        """A trial whose measure is this load, so that its series are tested when it is sealed."""
        load = LoadRecord(
            planned=self.rows, sent=self.rows, measured=self.rows, failed=0, not_sent=0, late=0,
            unrecorded=0, lag_p50_ns=0, lag_p99_ns=0, lag_max_ns=0, cpu_share=0.0,
            in_flight_max_reached=False, locust_version="0",
        )  # fmt: skip
        span = PhaseSpan("measure", self.start_ns, self.end_ns)
        return record(trial_id, phases=[span], load=load)


def _later(batch: pa.RecordBatch, by_ns: int) -> pa.RecordBatch:
    place = batch.schema.get_field_index("start_ns")
    return batch.set_column(place, batch.schema.field(place), pc.add(batch.column(place), by_ns))


def _words(
    numbers: np.ndarray, words: list[str], absent: np.ndarray | None = None
) -> pa.DictionaryArray:
    return pa.DictionaryArray.from_arrays(pa.array(numbers.astype(np.int32), mask=absent), words)

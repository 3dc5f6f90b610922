"""An archive of 100 M requests, as a collector would have written it; kept for the next time.

Ten blocks of two configurations at 20,000 requests/s. The documents are those of the kept archive
of a real run; the rows are drawn and go through the collector's own writer, batch by batch, so the
files, digests and findings are its own. It takes about 1.2 GB of disk and a few minutes to make.

    python -m tests.benchmarks.manyrequests            make it, when it is not there
    python -m tests.benchmarks.manyrequests --remove   remove what was kept

RESULTS_ROWS sets another number of requests, RESULTS_ARCHIVES another folder to keep archives in.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import multiprocessing
import os
import shutil
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from results.archive.archive import Archive
from results.collecting.trialwriter import TrialWriter
from results.record import PhasePeak, PhaseSpan, TrialRecord
from results.schema import GC, MEMORY, REQUESTS, SCHEMA_VERSION, TableSchema
from results.wire import telemetry_pb2 as wire

ROWS: Final = int(os.environ.get("RESULTS_ROWS", "100_000_000"))
KEPT_RUN: Final = Path(__file__).resolve().parents[1] / "archives" / f"v{SCHEMA_VERSION}"
CONFIGURATIONS: Final = ("default", "optimised")
BLOCKS: Final = 10
RATE_RPS: Final = 20_000
SECOND_NS: Final = 10**9
MIB: Final = 2**20
IDLE_NS: Final = 2 * SECOND_NS
WARMUP_NS: Final = 5 * SECOND_NS
SAMPLE_NS: Final = SECOND_NS // 10
BATCH_ROWS: Final = 32_768
"""About what a node's spool puts into a batch."""

SEED: Final = 20_264
RUN_ID: Final = "20261128-000000-many"
_PLAIN: Final = pa.ipc.IpcWriteOptions()

Numbers = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Many:
    """An archive of one run of so many requests; `trials` are its trials."""

    path: Path
    rows: int
    trials: int


def archives_folder() -> Path:
    """Where archives are kept from one benchmark to the next."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(os.environ.get("RESULTS_ARCHIVES") or cache / "heapgate-bench")


def many_requests(rows: int = ROWS, trials: int = BLOCKS * len(CONFIGURATIONS)) -> Many:
    """The archive of so many requests in so many trials, from the last time or made now."""
    path = archives_folder() / f"v{SCHEMA_VERSION}-{rows}-{trials}"
    if not path.exists():
        making = path.with_name(f"{path.name}.{os.getpid()}")
        try:
            _make(making, rows, trials)
            making.rename(path)
        finally:
            shutil.rmtree(making, ignore_errors=True)
    return Many(path, rows, trials)


def _make(root: Path, rows: int, trials: int) -> None:
    root.mkdir(parents=True)
    (kept,) = Archive(KEPT_RUN).runs()
    planned = [_planned(number) for number in range(trials)]
    document = kept.document | {
        "run_id": RUN_ID,
        "blocks": trials // len(CONFIGURATIONS),
        "planned": planned,
    }
    folder = Archive(root).create_run(RUN_ID, document, kept.path / "matrix.yaml")
    work = [(folder, number, planned[number], rows // trials) for number in range(trials)]
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(os.cpu_count(), mp_context=context) as pool:
        for _ in pool.map(_write_trial, *zip(*work, strict=True), chunksize=-(-trials // 100)):
            pass


def _planned(number: int) -> dict[str, Any]:
    """One planned trial; the second configuration comes first in every other block."""
    block, place = divmod(number, len(CONFIGURATIONS))
    configuration = CONFIGURATIONS[(place + block) % len(CONFIGURATIONS)]
    return {
        "trial_id": f"b{block + 1:03}-{place + 1}-{configuration}-steady",
        "block": block + 1,
        "position": place + 1,
        "configuration": configuration,
        "baseline": configuration == CONFIGURATIONS[0],
        "workload": "steady",
        "os": "linux",
        "group": "linux",
    }


def _write_trial(run: Path, number: int, planned: dict[str, Any], rows: int) -> None:
    """Write one trial's rows as its node would have sent them, and seal it."""
    drawn = Drawn.of(number, planned, rows)
    writer = TrialWriter(run / "trials" / f"{planned['trial_id']}.partial")
    writer.reopen(0)
    for table, made in drawn.tables():
        for sequence, batch in enumerate(made.to_batches(max_chunksize=BATCH_ROWS), 1):
            writer.add(table.name, 0, sequence, _message(batch))
    finish = wire.FinishTrial(
        trial_id=planned["trial_id"],
        trial_json=drawn.record(run.parent).to_json().encode(),
        service_log=b"ready\n",
        totals=[
            wire.StreamTotal(
                stream=name, batches=a.batches, rows=a.rows, digest=bytes.fromhex(a.digest)
            )
            for name, a in writer.accounts().items()
        ],
    )
    assert not writer.seal(finish)


def _message(batch: pa.RecordBatch) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema, options=_PLAIN) as stream:
        stream.write_batch(batch)
    return sink.getvalue().to_pybytes()


@dataclass(slots=True)
class Drawn:
    """One trial: what is drawn from its number, and when its phases were."""

    planned: dict[str, Any]
    random: np.random.Generator
    rows: int
    start_ns: int
    measure_ns: int

    @classmethod
    def of(cls, number: int, planned: dict[str, Any], rows: int) -> Drawn:
        """A trial by its number; measure is as long as its requests take."""
        measure_ns = max(SECOND_NS, rows * SECOND_NS // RATE_RPS - WARMUP_NS)
        start_ns = 1_795_800_000 * SECOND_NS + number * (measure_ns + 20 * SECOND_NS)
        return cls(planned, np.random.default_rng(SEED + number), rows, start_ns, measure_ns)

    @property
    def spans(self) -> dict[str, tuple[int, int]]:
        """When each phase began and ended."""
        found, at_ns = {}, self.start_ns
        lengths = {"idle": IDLE_NS, "warmup": WARMUP_NS, "measure": self.measure_ns}
        for name, length_ns in {**lengths, "cooldown": SECOND_NS}.items():
            found[name] = (at_ns, at_ns + length_ns)
            at_ns += length_ns
        return found

    @property
    def optimised(self) -> bool:
        """Whether it is the second configuration: less memory, more collections, slower tails."""
        return not self.planned["baseline"]

    def tables(self) -> list[tuple[TableSchema, pa.Table]]:
        """The rows of each table."""
        return [(MEMORY, self._memory()), (GC, self._gc()), (REQUESTS, self._requests())]

    def _requests(self) -> pa.Table:
        """Poisson arrivals; latencies as a service with a collector has them; in order of end."""
        draw, rows = self.random, self.rows
        began_ns = self.spans["warmup"][0]
        gaps = draw.standard_exponential(rows)
        # The last one falls into measure, whatever was drawn.
        length_ns = (WARMUP_NS + self.measure_ns) * 0.999
        intended_ns = began_ns + (np.cumsum(gaps) * (length_ns / gaps.sum())).astype(np.int64)
        lag_ns = draw.lognormal(np.log(9e4), 0.5, rows).astype(np.int64)
        service_ns = self._service_ns(intended_ns - began_ns)
        order = np.argsort(intended_ns + lag_ns + service_ns, kind="stable")
        failed = draw.random(rows) < 1e-4
        phase = self._phases(intended_ns)
        made = {
            "start_ns": intended_ns + lag_ns,
            "lag_ns": lag_ns,
            "service_ns": service_ns,
            "status": np.where(failed, 500, 200).astype(np.int16),
            "response_bytes": draw.integers(2_000, 6_000, rows),
        }
        columns = {name: pa.array(values[order]) for name, values in made.items()}
        columns |= {
            "phase": phase.take(pa.array(order)),
            "method": _words(np.zeros(rows, np.int32), "GET"),
            "name": _words(
                (draw.random(rows)[order] < 0.2).astype(np.int32), "get session", "put session"
            ),
            "error": _words(np.zeros(rows, np.int32), "HTTP 500", absent=~failed[order]),
        }
        return pa.table([columns[n] for n in REQUESTS.arrow.names], schema=REQUESTS.arrow)

    def _service_ns(self, since_ns: Numbers) -> Numbers:
        """Log-normal, four times as long while a collection runs, with a heavy tail."""
        typical_ns = 8e5 * (1.03 if self.optimised else 1.0) * self.random.uniform(0.97, 1.03)
        values = self.random.lognormal(np.log(typical_ns), 0.4, len(since_ns))
        every_ns = SECOND_NS // (10 if self.optimised else 4)
        values[since_ns % every_ns < 4_000_000] *= 4
        values *= 1 + 0.02 * self.random.pareto(2.0, len(since_ns))
        return np.minimum(values, 5e9).astype(np.int64)

    def _phases(self, times_ns: Numbers) -> pa.DictionaryArray:
        names = list(self.spans)
        ends_ns = [end_ns for _, end_ns in self.spans.values()]
        codes = np.searchsorted(ends_ns, times_ns, side="right").clip(0, len(names) - 1)
        return pa.DictionaryArray.from_arrays(pa.array(codes.astype(np.int8)), names)

    def _memory(self) -> pa.Table:
        times_ns = np.arange(self.start_ns, self.spans["cooldown"][1], SAMPLE_NS)
        count = len(times_ns)
        resident = (self._level_bytes + self.random.integers(-MIB, MIB, count)).astype(np.int64)
        grown = np.linspace(0, 1.6, count) * self.measure_ns
        return self._table(
            MEMORY,
            times_ns,
            processes=np.ones(count, np.int64),
            threads=np.full(count, 8),
            rss_bytes=resident,
            rss_anon_bytes=resident - 5 * MIB,
            rss_file_bytes=np.full(count, 5 * MIB),
            peak_rss_bytes=np.full(count, self._peak_bytes),
            cpu_user_ns=(grown * 0.8).astype(np.int64),
            cpu_system_ns=(grown * 0.2).astype(np.int64),
            cgroup_usage_bytes=resident + MIB,
        )

    @property
    def _level_bytes(self) -> int:
        return (620 if self.optimised else 980) * MIB

    @property
    def _peak_bytes(self) -> int:
        return self._level_bytes + (3 + self.planned["block"] % 7) * MIB

    def _gc(self) -> pa.Table:
        every_ns = SECOND_NS // (10 if self.optimised else 4)
        times_ns = np.arange(self.start_ns, self.spans["cooldown"][1], every_ns)
        count = len(times_ns)
        return self._table(
            GC,
            times_ns,
            kind=_words(np.zeros(count, np.int32), "cycle"),
            cycle=np.arange(1, count + 1),
            since_start_ns=times_ns - self.start_ns,
            stw_sweep_ns=self.random.integers(10_000, 90_000, count),
            concurrent_ns=np.full(count, 4_000_000),
            stw_mark_ns=self.random.integers(10_000, 90_000, count),
            cpu_stw_sweep_ns=np.full(count, 20_000),
            cpu_assist_ns=self.random.integers(0, 900_000, count),
            cpu_background_ns=np.full(count, 2_000_000),
            cpu_idle_ns=np.zeros(count, np.int64),
            cpu_stw_mark_ns=np.full(count, 20_000),
            heap_live_bytes=np.full(count, 400 * MIB),
            heap_goal_bytes=np.full(count, 600 * MIB),
        )

    def _table(self, table: TableSchema, times_ns: Numbers, **columns: Any) -> pa.Table:
        """Rows at these times; columns that are not named are null."""
        known = {"time_ns": times_ns, "phase": self._phases(times_ns), **columns}
        arrays = [
            pa.array(known[f.name]) if f.name in known else pa.nulls(len(times_ns), f.type)
            for f in table.arrow
        ]
        return pa.table([a.cast(f.type) for a, f in zip(arrays, table.arrow, strict=True)],
                        schema=table.arrow)  # fmt: skip

    def record(self, root: Path) -> TrialRecord:
        """The record of a kept trial of its configuration, with this one's own figures."""
        (kept,) = Archive(KEPT_RUN).runs()
        like = next(
            record
            for record in Archive(KEPT_RUN).records(kept.run_id)
            if record.configuration == self.planned["configuration"]
        )
        names = ("trial_id", "block", "position", "configuration", "baseline", "workload")
        same = {name: self.planned[name] for name in names} | {"run_id": RUN_ID, "attempt": 1}
        measured = round(self.rows * self.measure_ns / (self.measure_ns + WARMUP_NS))
        arrivals = like.spec["load"]["arrivals"] | {"rate_rps": float(RATE_RPS)}
        phases = {f"{name}_ns": end - begin for name, (begin, end) in self.spans.items()}
        assert like.load
        return dataclasses.replace(
            like,
            **same,
            started_ns=self.start_ns,
            finished_ns=self.spans["cooldown"][1],
            spec=like.spec
            | same
            | {"phases": phases, "load": like.spec["load"] | {"arrivals": arrivals}},
            phases=[
                PhaseSpan(name, begin, end, round((end - begin) * 1.6))
                for name, (begin, end) in self.spans.items()
            ],
            peaks=[PhasePeak("measure", self._peak_bytes, self._peak_bytes + MIB)],
            load=dataclasses.replace(
                like.load, planned=self.rows, sent=self.rows, measured=measured, failed=0
            ),
            findings=[],
            rows={},
            digests={},
            steady=None,
        )


def _words(
    codes: NDArray[np.int32], *words: str, absent: NDArray[np.bool_] | None = None
) -> pa.DictionaryArray:
    indices = pa.array(codes, mask=absent)
    return pa.DictionaryArray.from_arrays(indices, list(words))


def main() -> None:
    """Make the archive, or remove all that were kept."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--remove", action="store_true", help="remove what was kept")
    if parser.parse_args().remove:
        shutil.rmtree(archives_folder(), ignore_errors=True)
    else:
        many = many_requests()
        size = sum(p.stat().st_size for p in many.path.rglob("*") if p.is_file())
        print(json.dumps({"path": str(many.path), "rows": many.rows, "bytes": size}))


if __name__ == "__main__":
    main()

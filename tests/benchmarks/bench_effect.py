"""Does measuring change what is measured? The same trial with and without it, in blocks.

A block is one trial of each arm in random order: no sampling at all, the usual rate, the highest,
and the usual one without the Go runtime's reports. Real trials of the shipped service at a fixed
rate. The service's processor time is read from the system at both ends of measure, in every arm.
Set EFFECT_BLOCKS for more blocks: the interval gets narrower with their root.
"""

from __future__ import annotations

import dataclasses
import math
import os
import random
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Final
from unittest import mock

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.compute as pc

import workers.trial
from orchestrator.builds import BuildFlags, build_go, build_launcher
from orchestrator.toolchains import ensure
from results.record import TrialRecord
from results.statistics import holm, paired_shift
from tests.benchmarks.figures import Figure
from workers.affinity import split_cores
from workers.facts import node_class, node_facts, node_id
from workers.sampling.loop import SampleLoop
from workers.spec import (
    ArrivalsSpec,
    BinarySpec,
    LimitsSpec,
    LoadSpec,
    PhasesSpec,
    ServiceSpec,
    TrialSpec,
)
from workers.trial import NodeContext, Trial

AREA = "load"
ROOT: Final = Path(__file__).resolve().parents[2]
BLOCKS: Final = int(os.environ.get("EFFECT_BLOCKS", "8"))
SEED: Final = 20_263
RATE_RPS: Final = 400.0
SECOND_NS: Final = 10**9
MEASURE_NS: Final = 5 * SECOND_NS
ALPHA: Final = 0.05
METRICS: Final = ("service CPU", "p99 latency", "throughput")


@dataclasses.dataclass(frozen=True, slots=True)
class Arm:
    """One way to measure; a rate of 0 is no sampling but at the ends of phases."""

    rate_hz: int
    gc_trace: bool


OFF: Final = Arm(0, gc_trace=True)
USUAL: Final = Arm(10, gc_trace=True)
HIGHEST: Final = Arm(100, gc_trace=True)
UNTRACED: Final = Arm(10, gc_trace=False)
CONTRASTS: Final = {
    "sampler at 10 Hz against none": (OFF, USUAL),
    "sampler at 100 Hz against none": (OFF, HIGHEST),
    "gctrace against none": (UNTRACED, USUAL),
}


class NoSampling(SampleLoop):
    """Takes the samples that end a phase and no others."""

    def _sample_until_stopped(self) -> None:
        self._stop.acquire()
        self._flush()


def figures() -> Iterator[Figure]:
    """Each contrast in each metric: the change, and whether its interval holds none."""
    measured = _measured_blocks()
    shifts = {
        (name, metric): paired_shift(
            [math.log(block[new][metric] / block[old][metric]) for block in measured], 1 - ALPHA
        )
        for name, (old, new) in CONTRASTS.items()
        for metric in METRICS
    }
    adjusted = holm([shift.p for shift in shifts.values()])
    for ((name, metric), shift), p in zip(shifts.items(), adjusted, strict=True):
        estimate, low, high = (
            100 * math.expm1(v) for v in (shift.shift.estimate, shift.shift.low, shift.shift.high)
        )
        title = f"{name}: {metric}, 95 % {low:+.1f} … {high:+.1f} %, {len(measured)} blocks"
        yield Figure(AREA, title, estimate, "%", "none shown", p > ALPHA)


def _measured_blocks() -> list[dict[Arm, dict[str, float]]]:
    draw = random.Random(SEED)
    arms = [OFF, USUAL, HIGHEST, UNTRACED]
    with tempfile.TemporaryDirectory() as name:
        bench = Bench(Path(name))
        return [
            {arm: bench.run(arm, block) for arm in draw.sample(arms, len(arms))}
            for block in range(1, BLOCKS + 1)
        ]


class Bench:
    """Runs trials of the session cache in a folder of its own, without Ray and without a head."""

    def __init__(self, folder: Path) -> None:
        folder.chmod(0o755)
        for name in ("work", "spool"):
            (folder / name).mkdir(mode=0o755)
        toolchain = ensure("1.23")
        facts = node_facts()
        built = build_go(
            toolchain, ROOT / "workloads" / "services" / "sessioncache", flags=BuildFlags()
        )
        self._spool = folder / "spool"
        self._node = NodeContext(
            node_id=node_id(),
            node_class=node_class(facts),
            facts=facts,
            claim=f"effect-{os.getpid()}",
            address="127.0.0.1",
            launcher=build_launcher(toolchain),
            work_root=folder / "work",
            spool_root=self._spool,
            cores=split_cores(set(psutil.Process().cpu_affinity() or [0]), None),
        )
        self._binary = BinarySpec(
            argv0=str(built.path), copy=True, sha256=built.sha256, size_bytes=built.size_bytes
        )
        self._count = 0

    def run(self, arm: Arm, block: int) -> dict[str, float]:
        """One trial: what the service used, how slow it was, how much it carried."""
        self._count += 1
        spec = self._spec(arm, block)
        loop = SampleLoop if arm.rate_hz else NoSampling
        with mock.patch.object(workers.trial, "SampleLoop", loop):
            record = Trial(spec, self._node, threading.Event()).run()
        invalid = [f for f in record.findings if f.level == "invalid"]
        # Its samples are missing because none were to be taken.
        assert {f.code for f in invalid} <= ({"samples_missing"} if not arm.rate_hz else set())
        return self._values(record)

    def _values(self, record: TrialRecord) -> dict[str, float]:
        (measure,) = (span for span in record.phases if span.name == "measure")
        assert measure.cpu_ns
        folder = self._spool / record.trial_id
        rows = pa.concat_tables(
            pa.ipc.open_stream(path.read_bytes()).read_all()
            for path in sorted(folder.glob("requests*/*.arrow"))
        )
        rows = rows.filter(pc.equal(rows["phase"].cast(pa.string()), "measure"))
        latency_ns = rows["service_ns"].to_numpy() + rows["lag_ns"].to_numpy()
        answered = rows["error"].null_count
        return {
            "service CPU": float(measure.cpu_ns),
            "p99 latency": float(np.quantile(latency_ns, 0.99)),
            "throughput": answered / (measure.end_ns - measure.start_ns),
        }

    def _spec(self, arm: Arm, block: int) -> TrialSpec:
        trace = (("GODEBUG", "gctrace=1,scavtrace=1"),) if arm.gc_trace else ()
        return TrialSpec(
            run_id=self._node.claim,
            trial_id=f"b{block}-{self._count}-effect",
            block=block,
            position=1,
            attempt=1,
            configuration="default",
            baseline=True,
            workload="steady",
            os="linux",
            service=ServiceSpec(
                name="sessioncache",
                binary=self._binary,
                arguments=("-addr", "127.0.0.1:{port}", "-live", "32MiB", "-object", "4KiB"),
                environment=(("PATH", "/bin"), *trace),
                port=None,
                ready_path="/healthz",
                ready_timeout_ns=30 * SECOND_NS,
                stop_timeout_ns=5 * SECOND_NS,
                go_runtime=True,
            ),
            limits=LimitsSpec(),
            load=LoadSpec(
                scenario=str(ROOT / "workloads" / "scenarios" / "cache_mix.py"),
                users=None,
                arrivals=ArrivalsSpec(kind="constant", rate_rps=RATE_RPS),
                seed=block,
            ),
            phases=PhasesSpec(
                idle_ns=SECOND_NS // 5,
                warmup_ns=SECOND_NS,
                measure_ns=MEASURE_NS,
                cooldown_ns=SECOND_NS // 5,
            ),
            sampling_interval_ns=SECOND_NS // (arm.rate_hz or 1),
            gc_trace=arm.gc_trace,
        )

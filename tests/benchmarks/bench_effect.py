"""Does measuring change what is measured? The same trial with and without it, in blocks.

A block is one trial of each arm in random order: no sampling at all, the usual rate, the highest,
and the usual one without the Go runtime's reports. Real trials of the shipped service at a fixed
rate. The service's processor time is read from the system at both ends of measure, in every arm.

That a test finds nothing proves nothing. So each figure holds only when it is shown that the change
is small: its 90 % interval lies within a margin that was named before, which is two one-sided tests
at 5 % each (Schuirmann 1987; `results/statistics/paired.py`). That all of them are small is shown
when each is, without a correction: an intersection-union test (R. L. Berger, Multiparameter
hypothesis testing and acceptance sampling, Technometrics 24, 1982). Else the figure says "not
shown", and about how many blocks would do; or "beyond it", when the whole interval lies outside.
A block with an invalid trial (its generator was held up, say) is left out, counted and repeated.
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
from orchestrator.builds.builds import BuildFlags, build_go, build_launcher
from orchestrator.builds.toolchains import ensure
from results.comparing.noise import Noise
from results.record import TrialRecord
from results.statistics.paired import PAIRS_MAX, equivalent, paired_shift
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
BLOCKS: Final = int(os.environ.get("EFFECT_BLOCKS", "12"))
SEED: Final = 20_263
RATE_RPS: Final = 1000.0
SECOND_NS: Final = 10**9
MEASURE_NS: Final = 10 * SECOND_NS
CONFIDENCE: Final = 0.95
"""Of each of the two one-sided tests."""

MARGINS: Final = {"service CPU": 0.02, "p99 latency": 0.10, "throughput": 0.01}
"""Changes as small could not mislead a user of the comparison. Of CPU: less than a change of GOGC
is made for, and two ticks of the clock in which the system counts it. Of the p99: it differs by
more between two trials of one binary. Of throughput, which the schedule sets: as much may be unsent
before a trial is invalid.
"""


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
    """Each contrast in each metric: the change, its interval, and whether it is shown small."""
    measured, left_out = _measured_blocks()
    yield Figure.told(AREA, "blocks of the effect of measuring left out", left_out, "blocks")
    for name, (old, new) in CONTRASTS.items():
        for metric, margin in MARGINS.items():
            yield _figure(
                f"{name}: {metric}",
                [math.log(block[new][metric] / block[old][metric]) for block in measured],
                margin,
            )


def _figure(name: str, differences: list[float], margin: float) -> Figure:
    """What is shown of log ratios, one a block: that the change is within ±margin, or not."""
    low, high = math.log1p(-margin), math.log1p(margin)
    found = paired_shift(differences, 1 - 2 * (1 - CONFIDENCE)).shift
    within = equivalent(differences, low, high, CONFIDENCE)
    if within:
        shown = "shown"
    elif found.high < low or found.low > high:
        shown = "beyond it"
    else:
        shown = f"not shown: {_needed(differences, found.estimate, margin)}"
    interval = f"90 % {_percent(found.low):+.2f} … {_percent(found.high):+.2f} %"
    return Figure(
        AREA,
        f"{name}, {interval}, {len(differences)} blocks, {shown}",
        _percent(found.estimate),
        "%",
        f"within ±{margin * 100:g} %",
        within,
    )


def _percent(log_ratio: float) -> float:
    return 100 * math.expm1(log_ratio) if math.isfinite(log_ratio) else log_ratio


def _needed(differences: list[float], estimate: float, margin: float) -> str:
    """About how many blocks would show it, were the change what it seems to be now."""
    room = margin - abs(math.expm1(estimate))
    if room <= 0:
        return "the estimate itself lies outside"
    spread = math.sqrt(sum((d - estimate) ** 2 for d in differences) / max(1, len(differences) - 1))
    noise = Noise(
        metric="",
        relative=True,
        pairs=len(differences),
        value=1.0,
        spread=spread,
        low=None,
        high=None,
        p=1.0,
        alarm=False,
    )
    # An interval half as wide as there is room for lies within it in nine runs of ten.
    blocks = noise.blocks_for_margin(room / 2, CONFIDENCE)
    return f"about {blocks} blocks needed" if blocks else f"more than {PAIRS_MAX} blocks needed"


Block = dict[Arm, dict[str, float]]


def _measured_blocks() -> tuple[list[Block], int]:
    """Whole blocks, and how many were left out. Raises AssertionError when those are the most."""
    draw = random.Random(SEED)
    arms = [OFF, USUAL, HIGHEST, UNTRACED]
    measured: list[Block] = []
    with tempfile.TemporaryDirectory() as name:
        bench = Bench(Path(name))
        for tried in range(1, 2 * BLOCKS + 1):
            block = bench.run_block(draw.sample(arms, len(arms)), tried)
            measured += [block] if block else []
            if len(measured) == BLOCKS:
                return measured, tried - BLOCKS
    raise AssertionError(f"only {len(measured)} of {2 * BLOCKS} blocks are valid")


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

    def run_block(self, arms: list[Arm], block: int) -> Block | None:
        """One trial of each arm in this order; None when one is invalid."""
        found: Block = {}
        for arm in arms:
            values = self.run(arm, block)
            if values is None:
                return None
            found[arm] = values
        return found

    def run(self, arm: Arm, block: int) -> dict[str, float] | None:
        """One trial: what the service used, how slow it was, how much it carried."""
        self._count += 1
        spec = self._spec(arm, block)
        loop = SampleLoop if arm.rate_hz else NoSampling
        with mock.patch.object(workers.trial, "SampleLoop", loop):
            record = Trial(spec, self._node, threading.Event()).run()
        invalid = {f.code for f in record.findings if f.level == "invalid"}
        if not arm.rate_hz:
            invalid.discard("samples_missing")  # none were to be taken
        return None if invalid else self._values(record)

    def _values(self, record: TrialRecord) -> dict[str, float]:
        (measure,) = (span for span in record.phases if span.name == "measure")
        assert measure.cpu_ns
        folder = self._spool / record.trial_id
        rows = pa.concat_tables(
            pa.ipc.open_stream(path.read_bytes()).read_all()
            for path in sorted(folder.glob("requests*/*.arrow"))
        )
        rows = rows.filter(pc.equal(rows["phase"].cast(pa.string()), "measure"))
        answered = rows["error"].null_count
        return {
            "service CPU": float(measure.cpu_ns),
            "p99 latency": _p99_by_second(rows),
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


def _p99_by_second(rows: pa.Table) -> float:
    """The median of the p99s of single seconds, ns: a stall of the machine moves it little."""
    start_ns = rows["start_ns"].to_numpy()
    latency_ns = rows["service_ns"].to_numpy() + rows["lag_ns"].to_numpy()
    seconds = (start_ns - start_ns.min()) // SECOND_NS
    whole = range(MEASURE_NS // SECOND_NS)
    return float(np.median([np.quantile(latency_ns[seconds == s], 0.99) for s in whole]))

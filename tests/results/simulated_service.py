"""A service made by the model of Go's collector, with noise: to search where the truth is known."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, field

from results.comparing.compare import Comparison, Measurement, Settings, compare
from results.gomodel import OFF, GoService, Measured
from results.signoff.objectives import Evidence, decide
from results.statistics.paired import median_interval
from results.tuning.budget import Budget
from results.tuning.outcomes import Confirmed, Outcome
from results.tuning.settings import Setting

MIB = 2**20
SERVICE = GoService(
    live_bytes=170 * MIB,
    roots_bytes=1 * MIB,
    limited_bytes=6 * MIB,
    resident_bytes=12 * MIB,
    peak_per_goal=1.02,
    allocation_rate=300 * MIB,
    cycle_cpu_s=0.08,
    mutator_cores=0.4,
    procs=2,
)


@dataclass
class Simulated:
    """Measures as `bench tune` does, but by the model; counts what it was asked."""

    seed: int
    objectives: Sequence = ()
    service: GoService = SERVICE
    written: Setting = field(default_factory=Setting)
    blocks: int = 6
    said: list[str] = field(default_factory=list)
    shorts: list[tuple[str, Setting]] = field(default_factory=list)
    runs: int = 0
    short_s: float = 4.0

    def true_p99_ns(self, setting: Setting) -> float:
        share = self.service.gc_cpu_share(setting.gogc, setting.memlimit_bytes)
        return 4e6 * (1 + 3 * share) / (1 - 0.9 * share)

    def true_share(self, setting: Setting) -> float:
        return float(self.service.gc_cpu_share(setting.gogc, setting.memlimit_bytes))

    def true_memory(self, setting: Setting) -> float:
        return float(self.service.peak_bytes(setting.gogc, setting.memlimit_bytes))

    def _trial(self, setting: Setting, random_: random.Random, seconds: float) -> Outcome:
        noise = [math.exp(random_.gauss(0, s)) for s in (0.01, 0.10, 0.04)]
        service, share = self.service, min(1.0, self.true_share(setting) * noise[2])
        memory, p99 = self.true_memory(setting) * noise[0], self.true_p99_ns(setting) * noise[1]
        gc_cores = share / (1 - share) * service.mutator_cores if share < 1 else 1.0
        marking = float(service.mark_share(setting.gogc, setting.memlimit_bytes))
        marking = min(1.0, marking * math.exp(random_.gauss(0, 0.04)))
        values = {
            "peak_rss": memory, "latency_p99": p99, "gc_cpu_share": share, "throughput": 300.0,
            "gc_cycles": gc_cores / service.cycle_cpu_s * seconds,
        }  # fmt: skip
        return Outcome(
            setting=setting,
            memory_bytes=memory,
            p99_ns=p99,
            gc_share=share,
            throughput_rps=300.0,
            values=values,
            measured=Measured(
                gogc=setting.gogc,
                memlimit_bytes=setting.memlimit_bytes,
                live_bytes=service.live_bytes,
                goal_bytes=float(service.heap_goal_bytes(setting.gogc, setting.memlimit_bytes)),
                roots_bytes=service.roots_bytes,
                peak_bytes=memory,
                cycles=gc_cores / service.cycle_cpu_s * seconds,
                gc_cpu_s=gc_cores * seconds,
                service_cpu_s=(gc_cores + service.mutator_cores) * seconds,
                seconds=seconds,
                procs=service.procs,
                mark_s=marking * seconds,
            ),
            spiral="half of the CPU" if max(share, marking) >= 0.5 else "",
            took_s=seconds + 4,
        )

    def short(self, stage, settings):
        self.runs += 1
        self.shorts += [(stage, s) for s in settings]
        source = random.Random(f"{self.seed}/{stage}/{self.runs}")
        return [self._trial(s, source, self.short_s) for s in settings]

    def lengthen(self):
        self.short_s = 15.0

    def longer(self, settings):
        source = random.Random(f"{self.seed}/longer")
        return [self._trial(s, source, 15.0) for s in settings]

    def confirm(self, settings):
        arms = [self.written, *settings]
        source = random.Random(f"{self.seed}/confirm")
        measured = [
            Measurement(("run", block), "node", "steady", arm.name, metric, value)
            for block in range(self.blocks)
            for arm in arms
            for metric, value in self._trial(arm, source, 15.0).values.items()
        ]
        settings_ = Settings(self.written.name, primary=("peak_rss",))
        comparison = Comparison(
            ("run",), "s", settings_, self.blocks, compare(measured, settings_), {}, {}, (), ()
        )
        found = []
        for arm in arms:
            by_metric = {
                m: [x.value for x in measured if x.configuration == arm.name and x.metric == m]
                for m in ("peak_rss", "latency_p99", "gc_cpu_share", "throughput")
            }
            own = Evidence(measured, comparison.tables, (), _records(arms), self.written.name, 0.95)
            decisions = [
                d for d in decide(self.objectives, own) if d.cell.configuration == arm.name
            ]
            found.append(
                Confirmed(
                    setting=arm,
                    trials=self.blocks,
                    intervals={m: median_interval(v, 0.95) for m, v in by_metric.items()},
                    memory_metric="peak_rss",
                    greatest_bytes=max(by_metric["peak_rss"]),
                    decisions=decisions,
                    written=arm == self.written,
                )
            )
        return found

    def say(self, text):
        self.said.append(text)

    def so_far(self, outcomes, found):
        assert found and outcomes


@dataclass(frozen=True)
class _Record:
    configuration: str
    os: str = "linux"
    node_class: str = "node"
    workload: str = "steady"
    run_id: str = "run"
    trial_id: str = "t"
    valid: bool = True


def _records(arms):
    return [_Record(arm.name) for arm in arms]


def budget(total_s: float = 3600.0, trials: int = 24) -> Budget:
    return Budget(total_s, 8.0, 8.0, 19.0, 6, trials, 4)


__all__ = ["OFF", "SERVICE", "Simulated", "budget"]

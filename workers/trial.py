"""The life of a trial, phase by phase: deploy, startup, idle, warmup, measure, cooldown, teardown.

A trial always ends with a record, whatever happens to its service: what was measured until then
is in the spool, and the record's findings say whether it may be used.
"""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from results.clock import ClockMap, steady_ns
from results.errors import HeapgateError, Interrupted
from results.files import remove_folder
from results.judging import validity
from results.record import (
    ExitRecord,
    Finding,
    LimitRecord,
    LoadRecord,
    PhasePeak,
    PhaseSpan,
    TrialRecord,
)
from results.schema import EVENTS, GC, MEMORY, PROFILE_FILES, RUNTIME, SCHEMA_VERSION
from workers import live as live_figures
from workers.affinity import CoreSplit
from workers.clockwatch import ClockWatch
from workers.facts import versions
from workers.limits import Limiter, open_limiter
from workers.load.accounts import LoadLost
from workers.load.group import GeneratorGroup
from workers.load.process import generator_document
from workers.load.remote import LoadPeer, RemoteLoad
from workers.sampling.cores import CoreUsage
from workers.sampling.endpoint import EndpointReader, verify_applied
from workers.sampling.gctrace import StderrReader
from workers.sampling.loop import SampleLoop
from workers.sampling.profiles import ProfileTaker
from workers.service import HOST as LOOPBACK
from workers.service import Deployment, Service, ServiceFailed, deploy
from workers.spec import TrialSpec, to_plain
from workers.spool import Spool

WATCH_INTERVAL_S = 0.05
"""How often a waiting trial looks whether its service still lives and whether it should stop."""


@dataclass(frozen=True, slots=True)
class NodeContext:
    """What a trial needs to know of the node it runs on.

    `claim` names its control groups, `address` is where other nodes reach its service.
    """

    node_id: str
    claim: str
    address: str
    node_class: str
    facts: dict[str, Any]
    launcher: Path
    work_root: Path
    spool_root: Path
    cores: CoreSplit


class Trial:
    """One trial on this node. Make one, call `run` once."""

    def __init__(
        self,
        spec: TrialSpec,
        node: NodeContext,
        stop: threading.Event,
        peers: Sequence[LoadPeer] = (),
        head_clock: ClockWatch | None = None,
        *,
        told: TrialSpec | None = None,
    ) -> None:
        """`peers` make the load where there are any; `head_clock` follows the head's clock.

        `told` is the trial as it was planned, for its record: without this node's own paths.
        """
        self.spec = spec
        self._told = told or spec
        self.node = node
        self._peers = peers
        self._head_clock = head_clock
        self._stop = stop
        self._clock = ClockMap.read()
        self._started_ns = self._clock.now_ns()
        self._phase = "deploy"
        self._phase_since_ns = self._started_ns
        self._phase_ends_ns: int | None = None
        self._phase_since_cpu_ns: int | None = None
        self._spans: list[PhaseSpan] = []
        self._peaks: list[PhasePeak] = []
        self._findings: list[Finding] = []
        self._limits: list[LimitRecord] = []
        self._applied: dict[str, Any] = {}
        self._load: LoadRecord | None = None
        self._noise: tuple[CoreUsage, int] | None = None
        self.abort: HeapgateError | None = None
        self._failure: ServiceFailed | None = None
        self._load_failure: LoadLost | None = None
        self._folder = Path(tempfile.mkdtemp(prefix="trial-", dir=node.work_root))
        self._spool = Spool(node.spool_root, spec.run_id, spec.trial_id, in_background=True)
        self._events = self._spool.stream(EVENTS)
        self._limiter: Limiter | None = None
        self._deployment: Deployment | None = None
        self._service: Service | None = None
        self._stderr: StderrReader | None = None
        self._sampler: SampleLoop | None = None
        self._endpoint: EndpointReader | None = None
        self._profiles: ProfileTaker | None = None
        self._generator: GeneratorGroup | RemoteLoad | None = None

    def run(self) -> TrialRecord:
        """Run the trial to its end and hand its record to the spool."""
        try:
            self._deploy()
            self._start_up()
            self._idle()
            self._drive_load()
            self._cool_down()
        except ServiceFailed as error:
            self._service_failed(error)
        except LoadLost as error:
            self._load_failure = error
        except Interrupted as error:
            self._findings.append(validity.interrupted(str(error)))
        except HeapgateError as error:
            self.abort = error
            self._findings.append(validity.not_run(str(error)))
        finally:
            record = self._tear_down()
        return record

    # The phases

    def _deploy(self) -> None:
        self._note("phase", "info", "deploy begins")
        self._limiter = open_limiter(self.node.claim, self.spec.trial_id)
        self._limits = self._limiter.apply(self.spec.limits)
        host = self.node.address if self._peers else LOOPBACK
        self._deployment = deploy(self.spec.service, self._folder, host)
        document = generator_document(
            load=self.spec.load,
            base_url=self._deployment.base_url,
            spool_root=self.node.spool_root,
            run_id=self.spec.run_id,
            trial_id=self.spec.trial_id,
            clock=self._clock,
            warmup_ns=self.spec.phases.warmup_ns,
            measure_ns=self.spec.phases.measure_ns,
        )
        if self._peers:
            ahead_ns = self._head_clock.offset_ns if self._head_clock else 0
            self._generator = RemoteLoad(self._peers, document, ahead_ns)
            self._generator.start()
        else:
            log = self._folder / "generator.log"
            self._generator = GeneratorGroup(document, log, self.node.cores.other)

    def _start_up(self) -> None:
        self._begin("startup")
        assert self._deployment and self._limiter
        self._service = Service(
            self.spec.service,
            self._deployment,
            launcher=self.node.launcher,
            limiter=self._limiter,
            cores=self.node.cores.service,
        )
        self._start_sampling(self._service)
        self._service.wait_ready(self._stop.is_set)
        self._note("ready", "info", "the service is ready")

    def _start_sampling(self, service: Service) -> None:
        assert self._limiter
        self._stderr = StderrReader(
            service.output_fd,
            service.error_fd,
            log_path=self._folder / "service.log",
            sink=self._spool.stream(GC).append,
            phase=self._current_phase,
            clock=self._clock,
        )
        self._stderr.start()
        self._sampler = SampleLoop(
            service.pid,
            self._limiter,
            interval_ns=self.spec.sampling_interval_ns,
            sink=self._spool.stream(MEMORY).append,
            phase=self._current_phase,
            clock=self._clock,
            on_event=self._note,
        )
        self._sampler.start()
        self._phase_since_cpu_ns = 0

    def _idle(self) -> None:
        self._begin("idle", self.spec.phases.idle_ns)
        self._start_endpoint()
        self._watch_until(steady_ns() + self.spec.phases.idle_ns)

    def _start_endpoint(self) -> None:
        metrics = self.spec.service.metrics
        if metrics is None:
            return
        assert self._deployment
        url = self._deployment.url_at(metrics.port)
        self._applied = verify_applied(url, metrics)
        self._endpoint = EndpointReader(
            url,
            metrics,
            sink=self._spool.stream(RUNTIME).append,
            phase=self._current_phase,
            clock=self._clock,
        )
        self._endpoint.start()

    def _drive_load(self) -> None:
        generator, phases = self._generator, self.spec.phases
        assert generator
        # What users do before their first task (a login, say) is load: it must not be in idle.
        self._begin("warmup")
        generator.wait_ready(timeout_s=30.0)
        generator.prepare(timeout_s=60.0)
        start_ns = steady_ns() + generator.lead_ns
        generator.go(start_ns, self._clock.utc_ns(start_ns))
        self._phase_ends_ns = self._clock.utc_ns(start_ns + phases.warmup_ns)
        self._watch_until(start_ns + phases.warmup_ns)
        self._begin("measure", phases.measure_ns)
        self._start_profiles(start_ns + phases.warmup_ns + phases.measure_ns)
        before = CoreUsage.read(self.node.cores.service)
        self._watch_until(start_ns + phases.warmup_ns + phases.measure_ns)
        self._noise = CoreUsage.read(self.node.cores.service).since(before), phases.measure_ns
        self._begin("cooldown", phases.cooldown_ns)
        self._finish_load()

    def _start_profiles(self, ends_ns: int) -> None:
        """Have profiles taken, where they are asked for, in a measure that ends at an instant."""
        if self.spec.profiles is None:
            return
        assert self._deployment
        stream = self._spool.stream(PROFILE_FILES)

        def keep(columns: dict[str, list[Any]]) -> None:
            stream.append(columns)
            stream.flush()  # a message has room for one of them

        self._profiles = ProfileTaker(
            self._deployment.url_at(self.spec.profiles.port),
            self.spec.profiles,
            sink=keep,
            phase=self._current_phase,
            clock=self._clock,
            resident_bytes=self._resident_bytes,
        )
        self._profiles.start(ends_ns)

    def _end_profiles(self) -> None:
        assert self._profiles
        self._profiles.finish(now=self._should_end())
        self._findings += validity.profiles(self._profiles.taken, self._profiles.failed)

    def _finish_load(self) -> None:
        """Let answers that are still on their way come in; then take the generator's account."""
        if self._generator is None or self._load is not None:
            return
        self._take_account(*self._generator.wait_done(self._should_end))

    def _take_account(self, load: LoadRecord | None, events: list[dict[str, list[Any]]]) -> None:
        self._load = load
        for event in events:
            self._events.append(event)
            if event["kind"][0] in ("task_failed", "listener_failed"):
                self._findings.append(validity.scenario_failed(event["message"][0]))

    def _cool_down(self) -> None:
        self._watch_until(steady_ns() + self.spec.phases.cooldown_ns)

    def _tear_down(self) -> TrialRecord:
        self._begin("teardown")
        self._attempt(self._stop_load)
        exit_record = self._stop_service()
        if self._failure:
            last_words = self._stderr.last_lines if self._stderr else ()
            self._findings.append(
                validity.service_failed(
                    self._failure.cause, str(self._failure), exit_record, last_words
                )
            )
        self._begin(None)
        record = self._record(exit_record)
        rows, parts = self._spool.row_counts(), []
        if self._load_failure:
            self._findings.append(
                self._load_lost(self._load_failure, validity.rows_of(rows, "requests"))
            )
        if isinstance(self._generator, RemoteLoad):
            rows["requests"], parts = self._generator.rows, self._generator.parts
            record.generators = self._generator.told
        if self._head_clock:
            self._head_clock.end()
            record.clock_offset = self._head_clock.told()
            record.findings += self._head_clock.findings()
        record.findings = validity.judge(record, rows, self._noise)
        log = self._folder / "service.log"
        self._spool.finish(record.to_json(), log if log.exists() else None, parts)
        remove_folder(self._folder)
        return record

    def _load_lost(self, error: LoadLost, rows: int) -> Finding:
        """The loss of the load, with what it had told of itself."""
        if isinstance(self._generator, RemoteLoad):  # what arrived, only the collector knows
            return validity.no_load(str(error))
        live = self._generator.live() if self._generator else None
        return validity.no_load(str(error), sent_at_least=live.sent if live else 0, archived=rows)

    def _stop_load(self) -> None:
        if self._generator is None:
            return
        if self._load is None:
            self._take_account(*self._generator.stop())
        self._generator.close()

    def _stop_service(self) -> ExitRecord | None:
        if self._profiles:
            self._attempt(self._end_profiles)
        if self._endpoint:
            self._attempt(self._endpoint.stop)
        if self._service:
            self._attempt(self._service.stop)
        if self._sampler:
            self._attempt(self._sampler.stop)
        if self._stderr:
            self._attempt(self._stderr.join)
            if self._stderr.torn:
                self._findings.append(validity.gc_trace_torn(self._stderr.torn))
        exit_record = None
        if self._service:
            exit_record = self._service.explain_exit(
                fatal=self._stderr.fatal if self._stderr else None,
                oom_kills=self._limiter.oom_kills() if self._limiter else 0,
            )
        if self._limiter:
            self._attempt(self._limiter.remove)
        return exit_record

    # What holds in every phase

    def _current_phase(self) -> str:
        return self._phase

    def _begin(self, phase: str | None, lasts_ns: int | None = None) -> None:
        """End the current phase, keep its kernel peaks, and begin the next one."""
        used_ns = self._phase_cpu_ns()
        now_ns = self._clock.now_ns()
        if self._phase_since_ns < now_ns:
            self._spans.append(PhaseSpan(self._phase, self._phase_since_ns, now_ns, used_ns))
        if phase is None:
            return
        previous, self._phase = self._phase, phase
        self._phase_since_ns = now_ns
        self._phase_ends_ns = now_ns + lasts_ns if lasts_ns is not None else None
        if self._sampler:
            peak = self._sampler.begin_phase(previous)
            if peak:
                self._peaks.append(peak)
        lasts_s = lasts_ns / 1e9 if lasts_ns is not None else None
        self._note("phase", "info", f"{phase} begins", lasts_s)

    def _phase_cpu_ns(self) -> int | None:
        """What the service used since this was last asked; None when either end can't be read."""
        before_ns = self._phase_since_cpu_ns
        self._phase_since_cpu_ns = self._sampler.end_phase() if self._sampler else None
        if before_ns is None or self._phase_since_cpu_ns is None:
            return None
        return self._phase_since_cpu_ns - before_ns

    def _watch_until(self, deadline_ns: int) -> None:
        """Wait for a monotonic instant. Raises when the service dies or the run is stopped."""
        while True:
            left_s = (deadline_ns - steady_ns()) / 1e9
            if left_s <= 0:
                return
            if self._stop.is_set():
                raise Interrupted(f"stopped in phase {self._phase}")
            if self._service and self._service.exited:
                raise ServiceFailed("died", f"the service ended in phase {self._phase}")
            if self._generator and self._generator.lost:
                raise LoadLost(f"{self._generator.why_lost} in phase {self._phase}")
            self._stop.wait(min(left_s, WATCH_INTERVAL_S))

    def _should_end(self) -> bool:
        return self._stop.is_set() or bool(self._service and self._service.exited)

    def _service_failed(self, error: ServiceFailed) -> None:
        if self._stop.is_set():
            self._findings.append(validity.interrupted(str(error)))
            return
        self._note("service_failed", "error", str(error))
        self._failure = error

    def _resident_bytes(self) -> int | None:
        latest = self._sampler.latest if self._sampler else None
        return latest.resident_bytes if latest else None

    def _note(self, kind: str, level: str, message: str, value: float | None = None) -> None:
        self._events.append(
            {
                "time_ns": [self._clock.now_ns()],
                "phase": [self._phase],
                "kind": [kind],
                "level": [level],
                "message": [message],
                "value": [value],
            }
        )

    def _attempt(self, step: Callable[[], object]) -> None:
        """One step of the teardown: its failure is told and must not keep the others from it."""
        try:
            step()
        except Exception as error:
            self._note("teardown_failed", "error", f"{step.__qualname__}: {error}")

    # Told to others

    @property
    def lost_load_node(self) -> str | None:
        """The id of a load node that does not answer any more."""
        lost = self._generator.lost_nodes if isinstance(self._generator, RemoteLoad) else ()
        return next(iter(lost), None)

    def snapshot(self) -> dict[str, Any]:
        """What is going on now: plain numbers for the progress display and the live metrics."""
        live = self._generator.live() if self._generator else None
        sampler = self._sampler
        memory = live_figures.memory_figures(sampler.latest if sampler else None)
        now_ns = self._clock.now_ns()
        return {
            "trial_id": self.spec.trial_id,
            "phase": self._phase,
            "phase_left_ns": max(0, self._phase_ends_ns - now_ns) if self._phase_ends_ns else None,
            "rss_bytes": memory.get("resident_bytes"),
            "rate_rps": live.rate_rps if live else None,
            "sent": live.sent if live else 0,
            "failed": live.failed if live else 0,
            "load": asdict(live) if live else None,
            "memory": memory,
            "memory_limit_bytes": live_figures.memory_limit_bytes(self._limits),
            "samples": sampler.samples if sampler else 0,
            "samples_missed": sampler.gaps if sampler else 0,
            "spool_batches": self._spool.waiting(),
        }

    def _record(self, exit_record: ExitRecord | None) -> TrialRecord:
        spec = self.spec
        return TrialRecord(
            schema_version=SCHEMA_VERSION,
            run_id=spec.run_id,
            trial_id=spec.trial_id,
            block=spec.block,
            position=spec.position,
            attempt=spec.attempt,
            configuration=spec.configuration,
            baseline=spec.baseline,
            workload=spec.workload,
            node_id=self.node.node_id,
            node_class=self.node.node_class,
            started_ns=self._started_ns,
            finished_ns=self._clock.now_ns(),
            spec=to_plain(self._told),
            node=self.node.facts | {"cores_shared": self.node.cores.shared},
            versions=versions(),
            clock={"offset_ns": self._clock.offset_ns, "error_ns": self._clock.error_ns},
            phases=self._spans,
            peaks=self._peaks,
            limits=self._limits,
            applied=self._applied,
            load=self._load,
            exit=exit_record,
            findings=self._findings,
        )

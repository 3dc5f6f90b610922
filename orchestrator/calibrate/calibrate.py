"""`bench calibrate`: what this machine's load generator can make, and how noisy the machine is.

Two measurements with what every run is made of: its node, its collector, its trials. First the
ceilings of the load generator against the null server (`ceilings.py`), then an A/A comparison:
blocks of two configurations that are the same (`results/comparing/noise.py`). Only the result is
kept, in the user's state folder; Ctrl-C leaves nothing.
"""

from __future__ import annotations

import dataclasses
import threading
import time
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from rich.console import Console

from orchestrator.builds.binaries import Binaries, prepare_binaries
from orchestrator.calibrate.calibration import Calibration, Ceiling, hardware_of, keep
from orchestrator.calibrate.ceilings import Search, search_closed, search_open
from orchestrator.cluster import Node, NodeLost
from orchestrator.fleet import Fleet, gather_fleet
from orchestrator.interrupt import Stop, stop_on_interrupt
from orchestrator.leftovers import abandon_run
from orchestrator.matrix.matrix import Matrix, load_matrix
from orchestrator.measure import POLL_S, SPOILED_REPETITIONS_MAX, measure_all
from orchestrator.ongoing import Run
from orchestrator.plan import PlannedTrial, make_plan, trial_spec
from orchestrator.progress import Progress, show_progress
from orchestrator.run import new_run_id, run_document
from orchestrator.systems import require_linux
from orchestrator.workplace import workplace
from results.archive.archive import Archive
from results.comparing.noise import Noise, noise_of
from results.errors import EnvironmentLacks, HeapgateError, Interrupted, RunIncomplete
from results.record import TrialRecord
from workers.spec import LoadSpec, TrialSpec
from workloads.shipped import FOLDER

GO = "1.23"
CONFIDENCE = 0.95
TRIAL_OVERHEAD_S = 1.5
"""Of a short trial beyond its phases, as measured; to plan with."""

LATE = 1.15
"""So much longer than planned it may take before it is ended with what there is."""

TWINS = "twin-a", "twin-b"
NOISE = "equals"
"""Name of the workload of the A/A comparison."""


@dataclass(frozen=True, slots=True)
class Thoroughness:
    """How much is measured. Times count from when everything is built and started."""

    users: tuple[str, ...]
    several_processes: bool
    open_trials: int
    ceilings_s: float
    whole_s: float
    blocks_min: int
    blocks_max: int
    phases: str
    measure_s: float
    rate_rps: int


USUAL = Thoroughness(
    users=("fast", "fasthttp", "http"),
    several_processes=True,
    open_trials=4,
    ceilings_s=85.0,
    whole_s=165.0,
    blocks_min=6,
    blocks_max=12,
    phases="idle: 500ms, warmup: 500ms, measure: 2s, cooldown: 0s",
    measure_s=3.0,
    rate_rps=700,
)
QUICK = Thoroughness(
    users=("fast",),
    several_processes=False,
    open_trials=3,
    ceilings_s=16.0,
    whole_s=50.0,
    blocks_min=6,
    blocks_max=8,
    phases="idle: 200ms, warmup: 300ms, measure: 1s, cooldown: 0s",
    measure_s=1.5,
    rate_rps=1300,
)
"""A p99 needs a thousand requests, so that the rate is higher where measure is shorter."""

_NULL = """\
service:
  name: "null"
  go: {{source: "{services}/null"}}
  arguments: [-addr, "{{host}}:{{port}}"]
  ready: {{tcp: true}}
configurations:
  default: {{baseline: true, go: "{go}"}}
  other: {{go: "{go}"}}
gc_trace: false
trials: 1
workloads:
"""
_CALLERS = """\
  {user}: {{scenario: "{scenarios}/_null_{user}.py", users: 1, idle: 0s, warmup: 300ms, measure: 1s,
    cooldown: 0s}}
"""
_EQUALS = """\
service:
  name: sessioncache
  go: {{source: "{services}/sessioncache"}}
  arguments: [-addr, "{{host}}:{{port}}", -live, 48MiB, -object, 4KiB, -garbage, 512KiB]
  ready: {{http: /healthz, timeout: 30s}}
configurations:
  {twins[0]}: {{baseline: true, go: "{go}"}}
  {twins[1]}: {{go: "{go}"}}
workloads:
  {noise}: {{scenario: "{scenarios}/_equals.py", arrivals: {{poisson: {rate}/s}}, {phases}}}
trials: {blocks}
"""


def calibrate(console: Console, how: Thoroughness = USUAL) -> Calibration:
    """Measure this machine and keep the result. Raises Interrupted when the user stops it."""
    require_linux("a calibration")
    run_id, stop = new_run_id(), Stop()
    with ExitStack() as stack:
        progress = stack.enter_context(show_progress(console))
        folder = stack.enter_context(workplace(run_id, None))
        stack.enter_context(
            stop_on_interrupt(stop, lambda: abandon_run(run_id, folder), "nothing is kept")
        )
        work = _Work(run_id, folder, stop, progress, how)
        try:
            made = work.calibration()
        except HeapgateError:
            # An interrupt reaches compilers too: what they say then is no news.
            if stop.is_set() and not work.late:
                raise Interrupted("stopped: nothing is kept") from None
            raise
    keep(made)
    return made


class _Work:
    """One calibration while it goes on."""

    def __init__(
        self, run_id: str, folder: Path, stop: Stop, progress: Progress, how: Thoroughness
    ) -> None:
        self._folder = folder
        self._stop = stop
        self._progress = progress
        self._how = how
        self._null = self._matrix("null", _null_text(how))
        self._equals = self._matrix("equals", _equals_text(how))
        archive = Archive.create(folder / "archive")
        plan = make_plan(self._equals)
        path = folder / "equals.yaml"
        document = run_document(run_id, path, self._equals, plan)
        run_folder = archive.create_run(run_id, document, path)
        self._run = Run(run_id, self._equals, plan, archive, run_folder, document, stop=stop)
        self._began_s = 0.0
        self._trials = 0
        self._left_out: list[str] = []
        self.late = False
        """Whether there was no time left for all of it."""

    def _matrix(self, name: str, text: str) -> Matrix:
        path = self._folder / f"{name}.yaml"
        path.write_text(text, encoding="utf-8")
        return load_matrix(path)

    def calibration(self) -> Calibration:
        """Build, start, measure both, and put it together."""
        with self._stop.breaks_off():
            null = prepare_binaries(self._null, self._progress)
            equals = prepare_binaries(self._equals, self._progress)
        self._progress.step("starting Ray and the collector")
        with gather_fleet(self._run, self._folder, equals, [], self._progress) as fleet:
            node = fleet.crews[0].service
            self._progress.done(f"{node.node_id}, {node.node_class}")
            self._began_s = time.monotonic()
            ceilings = self._ceilings(node, null)
            self._measure_equals(equals, fleet)
            facts, node_class = node.facts, node.node_class
        noise = self._noise()
        (workload,) = self._equals.workloads.values()
        return Calibration(
            made_ns=time.time_ns(),
            heapgate=version("heapgate"),
            node_class=node_class,
            kernel=str(facts.get("kernel")),
            hardware=hardware_of(facts),
            quick=self._how is not USUAL,
            blocks=self._run.matrix.trials,
            confidence=CONFIDENCE,
            measure_ns=workload.measure,
            ceilings=tuple(ceilings),
            noise=tuple(noise),
            left_out=tuple(self._left_out),
        )

    @property
    def _passed_s(self) -> float:
        return time.monotonic() - self._began_s

    # The ceilings of the load generator

    def _ceilings(self, node: Node, binaries: Binaries) -> list[Ceiling]:
        from workers.affinity import allowed_cores, split_cores

        # This process keeps to the other cores by now: the node's facts have all of them.
        cores = split_cores(node.facts.get("cores_allowed") or allowed_cores(), None)
        several = min(4, max(2, len(cores.other)))
        counts = (1, several) if self._how.several_processes else (1,)
        found: list[Ceiling] = []
        for processes in counts:
            for user in self._how.users:
                if not self._has_time():
                    self._left_out.append(f"{user} user, {processes} processes: no time was left")
                    continue
                found += self._ceiling(node, binaries, user, processes, len(cores.service))
        return found

    def _has_time(self) -> bool:
        return self._passed_s < self._how.ceilings_s

    def _ceiling(
        self, node: Node, binaries: Binaries, user: str, processes: int, service_cores: int
    ) -> list[Ceiling]:
        def attempt(load: LoadSpec) -> TrialRecord:
            return self._try(node, self._null_trial(binaries, user, load))

        load = self._null_trial(binaries, user, None).load
        closed, opened = (
            Search(user, loop, processes, attempt, self._has_time, service_cores)
            for loop in ("closed", "open")
        )
        search_closed(closed, load)
        self._tell(closed)
        search_open(opened, load, closed.highest_rps, self._how.open_trials)
        self._tell(opened)
        return [search.found() for search in (closed, opened) if search.trials]

    def _null_trial(self, binaries: Binaries, user: str, load: LoadSpec | None) -> TrialSpec:
        """A trial of the null server under one kind of user, and under this load if given."""
        planned = PlannedTrial(
            f"b1-{self._trials + 1}-null-{user}",
            1,
            self._trials + 1,
            "default",
            True,
            user,
            "linux",
        )
        binary = binaries.of("default", "linux")
        spec = trial_spec(self._null, planned, binary, self._run.run_id, 1)
        return dataclasses.replace(spec, load=load) if load else spec

    def _try(self, node: Node, spec: TrialSpec) -> TrialRecord:
        """One trial, from the order to its record. Raises Interrupted once that is asked for."""
        self._trials += 1
        self._stop.check()
        self._progress.step(f"load generator: {_described(spec)}, {spec.workload} user")
        node.start_trial(spec)
        try:
            while (outcome := node.wait_trial(POLL_S)) is None:
                if self._stop.is_set():
                    node.stop_trial()
        except NodeLost as lost:
            raise RunIncomplete(f"the calibration's worker died: {lost}") from lost
        self._stop.check()
        if outcome["abort"]:
            raise EnvironmentLacks(outcome["abort"]["text"])
        return TrialRecord.from_json(outcome["record"])

    def _tell(self, search: Search) -> None:
        if search.trials:
            reached = f"{search.valid_rps:,.0f}/s" if search.valid_rps else "no valid trial"
            count = f"{search.processes} process{'es' * (search.processes > 1)}"
            self._progress.done(f"{search.user} user, {search.loop} loop, {count}: {reached}")

    # The noise of the machine

    def _measure_equals(self, binaries: Binaries, fleet: Fleet) -> None:
        """The blocks of equals, until all are measured or the time is over."""
        self._plan_blocks()
        # What is spoiled here is noise as well: nothing is measured again.
        self._run.spoiled_repetitions = SPOILED_REPETITIONS_MAX
        timer = threading.Timer(self._how.whole_s * LATE - self._passed_s, self._end)
        timer.start()
        try:
            measure_all(self._run, binaries, [], fleet, self._progress)
        except Interrupted:
            if not self.late:
                raise
        finally:
            timer.cancel()

    def _end(self) -> None:
        self.late = not self._stop.is_set()
        self._stop.set()

    def _plan_blocks(self) -> None:
        """As many blocks of equals as there is time for."""
        how, run = self._how, self._run
        block_s = 2 * (how.measure_s + TRIAL_OVERHEAD_S)
        fit = int((how.whole_s - self._passed_s) / block_s)
        blocks = max(how.blocks_min, min(how.blocks_max, fit))
        run.matrix = self._equals.with_overrides(trials=blocks, seed=None)
        run.plan = make_plan(run.matrix)
        run.document["blocks"] = blocks
        run.document["planned"] = [trial.to_plain() for trial in run.plan.trials]
        run.archive.write_run_document(run.folder, run.document)

    def _noise(self) -> list[Noise]:
        from results.sql.database import open_database

        run = self._run
        with open_database(run.archive.path, [run.run_id]) as database:
            measured = [m for m in database.measurements(run.run_id) if m.workload == NOISE]
        found = noise_of(measured, TWINS[0], CONFIDENCE)
        self._note_missing()
        if not found:
            why = "; ".join(self._left_out)
            raise RunIncomplete(f"no two equal trials were valid, so nothing is kept: {why}")
        return found

    def _note_missing(self) -> None:
        """Say which trials of equals there are not, and why."""
        run = self._run
        records = [r for r in run.archive.records(run.run_id) if r.workload == NOISE]
        wrong = [f for r in records if not r.valid for f in r.findings if f.level == "invalid"]
        invalid, planned = sum(not r.valid for r in records), len(run.plan.trials)
        if invalid:
            text = f"{invalid} of {planned} trials of equals were invalid: {wrong[0].text}"
            self._left_out.append(text)
        if len(records) < planned:
            self._left_out.append(f"{planned - len(records)} of {planned} trials: no time was left")


def _described(spec: TrialSpec) -> str:
    load = spec.load
    if load.arrivals:
        return f"open loop, {load.arrivals.rate_rps:,.0f}/s"
    return f"closed loop of {load.users}"


def _null_text(how: Thoroughness) -> str:
    head = _NULL.format(services=FOLDER / "services", go=GO)
    callers = (_CALLERS.format(user=u, scenarios=FOLDER / "scenarios") for u in how.users)
    return head + "".join(callers)


def _equals_text(how: Thoroughness) -> str:
    return _EQUALS.format(
        services=FOLDER / "services",
        scenarios=FOLDER / "scenarios",
        go=GO,
        twins=TWINS,
        noise=NOISE,
        rate=how.rate_rps,
        phases=how.phases,
        blocks=how.blocks_min,
    )

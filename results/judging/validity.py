"""May a trial's numbers be used at all? Every reason for doubt, as findings.

`invalid` takes a trial out of every comparison, `warning` stands beside its numbers, `note` is only
told. The codes are a closed vocabulary: `CODES` says what each one means.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, Protocol

from results.judging import generatorproof
from results.record import ExitRecord, Finding, LoadRecord, PhasePeak, TrialRecord
from results.streams import table_of

CODES: Final = {
    "interrupted": "the run was stopped while the trial ran",
    "not_run": "the trial could not be carried out on this node",
    "rows_lost": "the archive does not have exactly the rows that were measured",
    "start_failed": "the service could not be started",
    "never_ready": "the service was not ready in time",
    "service_died": "the service ended by itself",
    "oom_killed": "the kernel killed it at the hard memory limit",
    "go_out_of_memory": "the Go runtime could get no more memory",
    "commit_refused": "Windows refused to commit more memory",
    "access_violation": "the service used memory that is not its own",
    "ignored_sigterm": "the service had to be killed at the end",
    "leaked_processes": "processes of the service were still there after it ended",
    "limit_not_enforced": "a limit that was asked for is not in force",
    "samples_missing": "memory samples are missing",
    "peak_between_samples": "the kernel's peak is well above what the samples saw",
    "peak_below_samples": "a sample lay well above the kernel's peak, which can't be",
    "peak_of_one_process": "the process tree held more than the main process's peak",
    "peak_from_samples": "the kernel's mark did not rise in measure: the greatest sample is shown",
    "gc_trace_missing": "the Go runtime did not report its collections",
    "gc_trace_torn": "some of the Go runtime's reports can't be read",
    "profiles_in_measure": "profiles were taken while the service was measured",
    "profiles_missing": "profiles that were asked for were not taken",
    "no_load": "the load generator gave no account of itself",
    "generator_saturated": "the load generator could not keep its schedule",
    "generator_exhausted": "the load generator had no free port or file for a request",
    "generator_late": "the load generator sent later than the schedule said, by its own fault",
    "service_saturated": "arrivals had to wait because too many requests were unanswered",
    "requests_unrecorded": "requests were made that are not rows",
    "unanswered": "requests had no answer when the load generator ended",
    "no_success": "no request succeeded",
    "many_errors": "many requests failed",
    "few_requests": "too few requests for the percentiles that are shown",
    "setting_differs": "a setting in the running process is not the one asked for",
    "settings_unread": "the settings in the running process could not be read",
    "cores_shared": "service and load generator shared processor cores",
    "node_noisy": "others used the service's processor cores meanwhile",
    "scenario_errors": "the scenario's own code failed",
    "node_lost": "the node went away while the trial ran",
    "not_steady": "memory or latency drifted, or changed its level, in measure",
    "steady_untested": "whether the trial was steady could not be tested",
    "clock_jumped": "the clock of the node jumped while the trial ran",
    "clock_offset_unknown": "how the node's clock stands to the head's is not known",
}

NODE_FAULTS: Final = frozenset(
    {
        "clock_jumped",
        "generator_late",
        "no_load",
        "node_lost",
        "requests_unrecorded",
        "rows_lost",
        "samples_missing",
    }
)
"""What makes a trial invalid without being the service's doing: repeating it may help."""

SAMPLES_SHARE_MIN = 0.9
ERROR_SHARE_WARN = 0.01
STEAL_SHARE_WARN = 0.02
FOREIGN_SHARE_WARN = 0.05
REQUESTS_FOR_P99 = 1_000
LAST_LINES = 5
LISTENS_THERE = "it must listen where {host} and {port} say, in its arguments or env, or at port:"
COMMIT_REMEDY = "raise limits.memory_max, or enlarge the page file: the system may be full"
PEAKS_DIFFER = 0.05


def spoiled_by_node(record: TrialRecord) -> bool:
    """Whether a trial is invalid for no other reason than what happened around the service."""
    reasons = {f.code for f in record.findings if f.level == "invalid"}
    return bool(reasons) and reasons <= NODE_FAULTS


class Usage(Protocol):
    """Processor time on the service's cores in measure."""

    @property
    def busy_ns(self) -> int:
        """At work, for anybody."""

    @property
    def steal_ns(self) -> int:
        """Taken by the hypervisor."""


def interrupted(text: str) -> Finding:
    """The user stopped the run."""
    return Finding("interrupted", "invalid", text)


def not_run(text: str) -> Finding:
    """Something was wrong before the service could be measured."""
    return Finding("not_run", "invalid", text)


def node_lost(text: str, *, sent_at_least: int, archived: int) -> Finding:
    """A node of the trial is gone: `text` says which and how that was noticed.

    `sent_at_least` is the last count of requests that the generator told, `archived` the rows of
    them that the archive has. More may have been sent since: `sent = archived + lost` holds for
    what is known.
    """
    text = f"{text}: {account_of(sent_at_least, archived)}"
    return Finding("node_lost", "invalid", text, "bench resume repeats the block")


def account_of(sent_at_least: int, archived: int) -> str:
    """What is known to be sent, and what became of it."""
    return (
        f"at least {max(sent_at_least, archived):,} requests were sent, {archived:,} are in the "
        f"archive, {max(0, sent_at_least - archived):,} are counted as lost"
    )


def clock_jumped(text: str) -> Finding:
    """The node's clock was set while the trial ran: its times don't fit together."""
    return Finding("clock_jumped", "invalid", text, "let the clock be slewed, not stepped")


def clock_offset_unknown(text: str) -> Finding:
    """The node's clock could not be compared with the head's."""
    text = f"{text}: rows of this trial can't be set against those of another node by time"
    return Finding("clock_offset_unknown", "warning", text)


def no_load(text: str, *, sent_at_least: int | None = None, archived: int = 0) -> Finding:
    """The load generator ended too early, or gave no account of itself.

    `sent_at_least` is the last count of requests that it told, `archived` the rows that it wrote.
    """
    if sent_at_least is not None:
        text = f"{text}: {account_of(sent_at_least, archived)}"
    return Finding("no_load", "invalid", text)


def gc_trace_torn(lines: int) -> Finding:
    """The service wrote on standard error in the middle of the runtime's reports."""
    text = (
        f"{lines} reports of the Go runtime were torn by the service's own lines on standard "
        "error: these collections count as the average of the others"
    )
    return Finding("gc_trace_torn", "warning", text, "let the service log to standard output")


def profiles(taken: Mapping[str, str], failed: Mapping[str, str]) -> Iterator[Finding]:
    """What to know of profiles: the phase of each kind that was taken, why others were not."""
    disturbing = [kind for kind, phase in taken.items() if phase == "measure"]
    if disturbing:
        text = (
            f"{', '.join(disturbing)} taken in measure: memory, CPU and latencies are those of a "
            "service that was disturbed"
        )
        remedy = "leave `profiles` out, or take them `at: end` without a trace, to compare figures"
        yield Finding("profiles_in_measure", "warning", text, remedy)
    if failed:
        reasons = "; ".join(
            f"{', '.join(kind for kind in failed if failed[kind] == why)}: {why}"
            for why in dict.fromkeys(failed.values())
        )
        yield Finding("profiles_missing", "note", f"not taken: {reasons}")


def scenario_failed(text: str) -> Finding:
    """The scenario's own code raised while the load ran."""
    return Finding("scenario_errors", "warning", f"in the scenario {text}", "mend the scenario")


def service_failed(
    cause: str, text: str, exit_record: ExitRecord | None, last_lines: Sequence[str]
) -> Finding:
    """The service did not start, was never ready, or died: why, and its own last words."""
    code = {"start_failed": "start_failed", "never_ready": "never_ready"}.get(cause, "service_died")
    remedy = LISTENS_THERE if cause == "never_ready" else ""
    if exit_record and cause != "never_ready":
        text = f"{text}: {exit_record.text}"
        if exit_record.cause == "oom_kill":
            code, remedy = "oom_killed", "raise limits.memory_max, or lower GOMEMLIMIT below it"
        elif exit_record.cause == "commit_refused":
            code, remedy = "commit_refused", COMMIT_REMEDY
        elif exit_record.cause in ("go_out_of_memory", "access_violation"):
            code = exit_record.cause
    words = " | ".join(line for line in last_lines[-LAST_LINES:] if line.strip())
    return Finding(code, "invalid", f"{text}; its last words: {words}" if words else text, remedy)


def judge(
    record: TrialRecord, row_counts: dict[str, int], noise: tuple[Usage, int] | None
) -> list[Finding]:
    """All findings of a trial: those that it has already, and those that its record shows.

    `row_counts` are rows by table as spooled; `noise` is the use of the service's cores in measure
    and that phase's length in nanoseconds.
    """
    found = list(record.findings)
    cut_off = any(f.level == "invalid" for f in found)
    measured = not cut_off and any(span.name == "measure" for span in record.phases)
    found += _limits(record)
    found += _teardown(record)
    if measured and record.load:
        found += _load(record, record.load, row_counts)
    elif measured:
        found.append(no_load(CODES["no_load"]))
    if measured:
        found += _sampling(record, row_counts)
        found += _peaks(record)
        found += _settings(record)
        found += _node(record, noise)
    return found


def _limits(record: TrialRecord) -> Iterator[Finding]:
    for limit in record.limits:
        if not limit.enforced:
            asked = f"{limit.asked:,.10g}"
            yield Finding(
                "limit_not_enforced",
                "warning",
                f"{limit.name} {asked} is not in force: not available here: {limit.reason}",
                "`bench doctor` says what this machine can enforce",
            )


def _teardown(record: TrialRecord) -> Iterator[Finding]:
    if record.exit is None:
        return
    if record.exit.cause == "killed":
        text = "the service did not end after SIGTERM within stop_timeout and was killed"
        yield Finding("ignored_sigterm", "warning", text)
    if record.exit.leaked_processes:
        text = f"{record.exit.leaked_processes} processes outlived the service and were ended"
        yield Finding("leaked_processes", "warning", text)


def _load(record: TrialRecord, load: LoadRecord, rows: dict[str, int]) -> Iterator[Finding]:
    yield from generatorproof.findings(record, load)
    missing = load.unrecorded + max(0, load.sent - rows_of(rows, "requests"))
    if missing:
        text = f"{missing} requests were begun and are not in the archive"
        yield Finding("requests_unrecorded", "warning" if missing <= 1 else "invalid", text)
    if load.unanswered:
        text = (
            f"{load.unanswered:,} requests had no answer when the load generator ended; "
            "their latencies are lower bounds"
        )
        yield Finding("unanswered", "warning", text)
    if load.sent == load.failed:
        text = "no request succeeded; the errors are in the requests table"
        yield Finding("no_success", "invalid", text, "check the scenario against the service")
    elif load.failed > load.sent * ERROR_SHARE_WARN:
        text = f"{load.failed:,} of {load.sent:,} requests failed"
        yield Finding("many_errors", "warning", text)
    if 0 < load.measured < REQUESTS_FOR_P99:
        text = f"{load.measured} measured requests are too few for a p99 (1,000)"
        yield Finding("few_requests", "note", text, "measure longer, or send more")


def rows_of(rows: dict[str, int], table: str) -> int:
    """The rows of a table, all its parts together."""
    return sum(count for stream, count in rows.items() if table_of(stream)[0] == table)


def _sampling(record: TrialRecord, rows: dict[str, int]) -> Iterator[Finding]:
    interval_ns = record.spec.get("sampling_interval_ns")
    sampled = [p for p in record.phases if p.name in ("idle", "warmup", "measure", "cooldown")]
    if interval_ns and sampled:
        expected = sum(p.end_ns - p.start_ns for p in sampled) / interval_ns
        taken = rows.get("memory", 0)
        if taken < expected * SAMPLES_SHARE_MIN - 1:
            text = f"{taken} of about {expected:.0f} memory samples were taken"
            yield Finding("samples_missing", "invalid", text, "a slower sampling rate")
    if record.spec.get("gc_trace") and _service(record).get("go_runtime") and not rows.get("gc"):
        text = "the Go runtime reported no collection: there was none, or its reports are missing"
        yield Finding("gc_trace_missing", "warning", text)


def _peaks(record: TrialRecord) -> Iterator[Finding]:
    """The kernel's peak against the largest sample, which is a lower bound only."""
    peak = next((p for p in record.peaks if p.phase == "measure"), None)
    if peak is None:
        return
    if record.os == "windows":
        yield from _windows_peaks(peak)
    elif peak.rss_bytes and peak.sampled_rss_bytes:
        others = peak.others_rss_bytes or 0
        if others > peak.rss_bytes * PEAKS_DIFFER:
            yield _of_one_process("peak RSS", others / peak.rss_bytes, "peak cgroup usage")
        seen = peak.sampled_rss_bytes / (peak.rss_bytes + others)
        yield from _between_samples(seen)
        yield from _below_samples(seen)


def _of_one_process(what: str, more: float, instead: str) -> Finding:
    text = f"{what} is of the main process alone; its other processes held {more:.0%} more"
    return Finding("peak_of_one_process", "warning", text, f"compare {instead} instead")


def _between_samples(seen: float) -> Iterator[Finding]:
    """A note only: the kernel sees each page as it comes, samples miss what is short."""
    if seen < 1 - PEAKS_DIFFER:
        text = f"samples saw a peak {1 - seen:.0%} below the kernel's: it lay between two of them"
        yield Finding(
            "peak_between_samples", "note", text, "a faster sampling rate shows its shape"
        )


def _below_samples(seen: float) -> Iterator[Finding]:
    """The kernel's mark is never below what is resident: then one of the two is wrong."""
    if seen > 1 + PEAKS_DIFFER:
        text = f"a sample is {seen - 1:.0%} above the kernel's peak: one of the two is wrong"
        remedy = "compare peak cgroup usage beside it, and look at the memory table of the trial"
        yield Finding("peak_below_samples", "warning", text, remedy)


def _windows_peaks(peak: PhasePeak) -> Iterator[Finding]:
    """A mark that did not rise in measure is not measure's: then there is only the sample."""
    sampled = []
    for what, mark, sample in (
        ("peak working set", peak.working_set_bytes, peak.sampled_working_set_bytes),
        ("peak commit", peak.commit_bytes, peak.sampled_commit_bytes),
    ):
        if mark is None and sample is not None:
            sampled.append(what)
        elif mark and sample and sample > mark * (1 + PEAKS_DIFFER):
            yield _of_one_process(what, sample / mark - 1, "peak job commit")
        elif mark and sample:
            yield from _between_samples(sample / mark)
    if sampled:
        verb = "are the greatest samples" if len(sampled) > 1 else "is the greatest sample"
        text = (
            f"{' and '.join(sampled)} {verb}, a lower bound: the kernel's mark was reached before "
            "measure"
        )
        yield Finding(
            "peak_from_samples", "warning", text, "a faster sampling rate is closer to it"
        )


def _service(record: TrialRecord) -> dict[str, Any]:
    service: dict[str, Any] = record.spec.get("service", {})
    return service


def _settings(record: TrialRecord) -> Iterator[Finding]:
    """What is applied is verified where the service tells: GOGC, GOMEMLIMIT, GOMAXPROCS."""
    if "unread" in record.applied:
        yield Finding("settings_unread", "warning", str(record.applied["unread"]))
    asked = dict(_service(record).get("environment", []))
    for name, seen in record.applied.items():
        wanted = "off" if asked.get(name) == "off" else _as_number(name, asked.get(name))
        if wanted is not None and wanted != seen:
            text = f"{name} is {seen} in the running process, {asked[name]} was asked for"
            yield Finding("setting_differs", "invalid", text)


def _as_number(name: str, text: str | None) -> int | None:
    """The number that the runtime shows for a variable; None where it is not plain."""
    units = {"KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40, "B": 1, "": 1}
    for unit, size in units.items():
        digits = (text or "").removesuffix(unit) if unit else (text or "")
        if digits.isdigit() and (name == "GOMEMLIMIT" or not unit):
            return int(digits) * size
    return None


def _node(record: TrialRecord, noise: tuple[Usage, int] | None) -> Iterator[Finding]:
    if record.node.get("cores_shared"):
        text = "service and load generator shared the same core: latency says little"
        yield Finding("cores_shared", "warning", text, "a machine with two cores or more")
    if noise is None or not noise[1]:
        return
    usage, measure_ns = noise
    steal = usage.steal_ns / measure_ns
    if steal > STEAL_SHARE_WARN:
        text = f"the hypervisor took {steal:.1%} of a core from the service in measure"
        yield Finding("node_noisy", "warning", text, "a quieter machine, or more blocks")
    own_ns = sum(p.cpu_ns or 0 for p in record.phases if p.name == "measure")
    foreign = (usage.busy_ns - own_ns) / measure_ns
    if own_ns and foreign > FOREIGN_SHARE_WARN and not record.node.get("cores_shared"):
        text = f"others used {foreign:.0%} of a core on the service's own cores in measure"
        yield Finding("node_noisy", "warning", text, "end other work on this machine")

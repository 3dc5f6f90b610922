"""Each reason for doubt becomes a finding, and a clean trial has none."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from archives import WINDOWS, write_archive

from results.judging.validity import (
    CODES,
    clock_jumped,
    clock_offset_unknown,
    interrupted,
    judge,
    node_lost,
    not_run,
    service_failed,
    spoiled_by_node,
)
from results.record import ExitRecord, Finding, LimitRecord, PhaseSpan, TrialRecord

MS_NS = 10**6
SECOND_NS = 10**9


@dataclass(frozen=True)
class CoreTime:
    busy_ns: int
    steal_ns: int


@pytest.fixture
def record(tmp_path: Path) -> TrialRecord:
    """A clean trial of 10 s in measure: 150 samples expected, 1,011 requests."""
    archive = write_archive(tmp_path, blocks=1)
    (path,) = archive.glob("*/trials/*/trial.json")
    return TrialRecord.read(path)


def judged(record: TrialRecord, **rows: int) -> list[Finding]:
    return judge(record, {**record.rows, **rows}, None)


def only(found: list[Finding]) -> Finding:
    (finding,) = found
    assert finding.code in CODES
    return finding


def with_load(record: TrialRecord, **changes: Any) -> TrialRecord:
    assert record.load is not None
    return replace(record, load=replace(record.load, **changes))


def with_exit(record: TrialRecord, **changes: Any) -> TrialRecord:
    assert record.exit is not None
    return replace(record, exit=replace(record.exit, **changes))


def test_a_clean_trial_has_no_finding(record: TrialRecord) -> None:
    assert judge(record, record.rows, (CoreTime(8 * SECOND_NS, 0), 10 * SECOND_NS)) == []


@pytest.mark.parametrize(("foreign_ms", "noisy"), [(500, False), (520, True)])
def test_others_on_the_services_cores(record: TrialRecord, foreign_ms: int, noisy: bool) -> None:
    # The service itself used 8 s in the 10 s of measure.
    usage = CoreTime(8 * SECOND_NS + foreign_ms * MS_NS, 0)
    found = judge(record, record.rows, (usage, 10 * SECOND_NS))
    assert [(f.code, f.level) for f in found] == ([("node_noisy", "warning")] if noisy else [])


def test_findings_that_were_there_are_kept_and_the_record_is_not_changed(
    record: TrialRecord,
) -> None:
    record.findings = [Finding("scenario_errors", "warning", "a typo")]
    found = judged(with_exit(record, leaked_processes=2))
    assert [f.code for f in found] == ["scenario_errors", "leaked_processes"]
    assert [f.code for f in record.findings] == ["scenario_errors"]


def test_a_trial_that_was_cut_off_is_not_blamed_for_what_it_could_not_do(
    record: TrialRecord,
) -> None:
    record.findings = [interrupted("stopped by ctrl-c")]
    record.load = None
    assert only(judge(record, {}, None)).code == "interrupted"


def test_a_service_that_never_came_to_measure_has_no_load_to_miss(record: TrialRecord) -> None:
    record.phases = record.phases[:2]
    record.load = None
    assert judge(record, {}, None) == []


@pytest.mark.parametrize(("make", "code"), [(interrupted, "interrupted"), (not_run, "not_run")])
def test_a_trial_that_did_not_run_is_invalid_with_its_text(make: Any, code: str) -> None:
    finding = make("port 8080 is taken")
    assert (finding.code, finding.level, finding.text) == (code, "invalid", "port 8080 is taken")


def ended(cause: str, text: str) -> ExitRecord:
    return ExitRecord(cause=cause, code=2, signal=None, text=text)


@pytest.mark.parametrize(
    ("cause", "exit_record", "code", "words"),
    [
        ("exited", ended("exited", "exit code 3"), "service_died", "exit code 3"),
        ("exited", ended("crashed", "signal 11"), "service_died", "signal 11"),
        ("exited", ended("oom_kill", "killed at the hard memory limit"), "oom_killed", "limit"),
        ("exited", ended("go_out_of_memory", "exit code 2"), "go_out_of_memory", "exit code 2"),
        ("start_failed", None, "start_failed", "gone wrong"),
        ("never_ready", ended("killed", "killed by us"), "never_ready", "HTTP 503"),
    ],
)
def test_a_failed_service_is_invalid_with_its_cause_and_last_words(
    cause: str, exit_record: ExitRecord | None, code: str, words: str
) -> None:
    text = "no 200 from /healthz in 30 s: HTTP 503" if cause == "never_ready" else "gone wrong"
    finding = service_failed(cause, text, exit_record, ["first", "", "panic: no config"])
    assert (finding.code, finding.level) == (code, "invalid")
    assert words in finding.text
    assert finding.text.endswith("its last words: first | panic: no config")
    assert finding.code in CODES


def test_only_the_last_lines_are_kept_and_silence_is_not_quoted() -> None:
    many = [f"line {i}" for i in range(100)]
    finding = service_failed("exited", "ended", None, many)
    assert "line 99" in finding.text
    assert "line 90" not in finding.text
    assert service_failed("exited", "ended", None, []).text == "ended"
    assert service_failed("exited", "ended", None, ["", " "]).text == "ended"


def test_a_never_ready_service_is_not_explained_by_how_we_ended_it() -> None:
    finding = service_failed("never_ready", "HTTP 503", ended("killed", "killed by us"), [])
    assert finding.text == "HTTP 503"


def test_a_kill_at_the_hard_limit_says_what_would_help() -> None:
    finding = service_failed("exited", "ended", ended("oom_kill", "hard memory limit"), [])
    assert "hard memory limit" in finding.text
    assert "memory_max" in finding.remedy


def test_a_limit_that_is_not_in_force_is_told_with_its_reason(record: TrialRecord) -> None:
    limit = LimitRecord(
        name="memory_max_bytes",
        asked=512 * 2**20,
        read_back=None,
        enforced=False,
        mechanism="none",
        reason="no memory controller",
    )
    record.limits = [replace(limit, enforced=True), limit]
    finding = only(judged(record))
    assert (finding.code, finding.level) == ("limit_not_enforced", "warning")
    assert "536,870,912" in finding.text
    assert "not available here: no memory controller" in finding.text


def test_a_service_that_ignores_sigterm_and_one_that_leaves_children(record: TrialRecord) -> None:
    found = judged(with_exit(record, cause="killed", leaked_processes=3))
    assert [(f.code, f.level) for f in found] == [
        ("ignored_sigterm", "warning"),
        ("leaked_processes", "warning"),
    ]
    assert "3 processes" in found[1].text


@pytest.mark.parametrize(
    ("changes", "code", "level"),
    [
        ({"not_sent": 12}, "generator_saturated", "invalid"),
        ({"cpu_share": 0.91}, "generator_saturated", "invalid"),
        ({"lag_p99_ns": 11 * MS_NS}, "generator_late", "warning"),
        ({"lag_p99_ns": 51 * MS_NS}, "generator_late", "invalid"),
        ({"in_flight_max_reached": True}, "service_saturated", "warning"),
        ({"in_flight_max_reached": True, "not_sent": 12}, "service_saturated", "invalid"),
        ({"unrecorded": 1}, "requests_unrecorded", "warning"),
        ({"unrecorded": 2}, "requests_unrecorded", "invalid"),
        ({"failed": 11}, "many_errors", "warning"),
        ({"failed": 1_011}, "no_success", "invalid"),
        ({"measured": 999}, "few_requests", "note"),
    ],
)
def test_doubts_about_the_load(
    record: TrialRecord, changes: dict[str, Any], code: str, level: str
) -> None:
    finding = only(judged(with_load(record, **changes)))
    assert (finding.code, finding.level) == (code, level)


@pytest.mark.parametrize(
    "changes",
    [
        {"not_sent": 10},
        {"cpu_share": 0.9},
        {"lag_p99_ns": 10 * MS_NS},
        {"lag_p99_ns": None},
        {"failed": 10},
        {"planned": None},
        {"measured": 1_000},
    ],
)
def test_what_is_just_good_enough_is_not_doubted(
    record: TrialRecord, changes: dict[str, Any]
) -> None:
    assert judged(with_load(record, **changes)) == []


@pytest.mark.parametrize(
    "changes", [{"not_sent": 500}, {"cpu_share": 1.0}, {"lag_p99_ns": 90 * MS_NS}]
)
def test_a_saturated_generator_says_what_it_reached(
    record: TrialRecord, changes: dict[str, Any]
) -> None:
    finding = only(judged(with_load(record, measured=12_340, **changes)))
    assert "generator saturated: at least 1,234/s" in finding.text
    assert finding.remedy


def test_requests_that_are_not_in_the_archive(record: TrialRecord) -> None:
    finding = only(judged(record, requests=record.rows["requests"] - 5))
    assert (finding.code, finding.level) == ("requests_unrecorded", "invalid")
    assert finding.text.startswith("5 requests")


def test_nothing_sent_at_all_is_no_success(record: TrialRecord) -> None:
    nothing = with_load(record, planned=0, sent=0, measured=0)
    assert only(judged(nothing, requests=0)).code == "no_success"


def test_a_generator_without_an_account(record: TrialRecord) -> None:
    record.load = None
    finding = only(judged(record))
    assert (finding.code, finding.level) == ("no_load", "invalid")


@pytest.mark.parametrize(("taken", "invalid"), [(134, False), (133, True), (0, True)])
def test_missing_samples(record: TrialRecord, taken: int, invalid: bool) -> None:
    # idle, warmup, measure and cooldown are 14 s here; one second more makes 150 samples.
    first = record.phases[1]
    record.phases[1] = PhaseSpan("idle", first.start_ns - SECOND_NS, first.end_ns)
    found = judged(record, memory=taken)
    assert bool(found) == invalid
    if invalid:
        assert (found[0].code, found[0].level) == ("samples_missing", "invalid")
        assert f"{taken} of about 150" in found[0].text


def test_a_go_service_without_its_trace_is_told(record: TrialRecord) -> None:
    record.spec["gc_trace"] = True
    record.spec["service"]["go_runtime"] = True
    finding = only(judged(record, gc=0))
    assert (finding.code, finding.level) == ("gc_trace_missing", "warning")
    record.spec["service"]["go_runtime"] = False
    assert judged(record, gc=0) == []


@pytest.mark.parametrize(
    ("name", "asked", "seen", "differs"),
    [
        ("GOGC", "30", 30, False),
        ("GOGC", "30", 100, True),
        ("GOGC", "30", "off", True),
        ("GOGC", "off", "off", False),
        ("GOGC", "off", 100, True),
        ("GOMEMLIMIT", "off", "off", False),
        ("GOMEMLIMIT", "1280MiB", "off", True),
        ("GOMEMLIMIT", "1280MiB", 1280 * 2**20, False),
        ("GOMEMLIMIT", "1280MiB", 2**63 - 1, True),
        ("GOMEMLIMIT", "2GiB", 2 * 2**30, False),
        ("GOMEMLIMIT", "4096KiB", 4 * 2**20, False),
        ("GOMEMLIMIT", "1000000B", 1_000_000, False),
        ("GOMEMLIMIT", "1000000", 1_000_001, True),
        ("GOMAXPROCS", "2", 4, True),
    ],
)
def test_settings_in_the_running_process(
    record: TrialRecord, name: str, asked: str, seen: int | str, differs: bool
) -> None:
    record.spec["service"]["environment"] = [["PATH", "/bin"], [name, asked]]
    record.applied = {name: seen}
    found = judged(record)
    assert bool(found) == differs
    if differs:
        assert (found[0].code, found[0].level) == ("setting_differs", "invalid")
        assert name in found[0].text
        assert str(seen) in found[0].text
        assert asked in found[0].text


def test_a_setting_that_was_not_asked_for_is_not_compared(record: TrialRecord) -> None:
    record.applied = {"GOGC": 100}
    assert judged(record) == []


def test_settings_that_could_not_be_read_are_a_warning(record: TrialRecord) -> None:
    record.applied = {"unread": "the metrics endpoint answered HTTP 404"}
    finding = only(judged(record))
    assert (finding.code, finding.level) == ("settings_unread", "warning")
    assert "HTTP 404" in finding.text


@pytest.mark.parametrize(
    ("sampled_share", "others_share", "codes"),
    [
        (0.96, 0.0, []),
        (0.94, 0.0, ["peak_between_samples"]),
        (1.05, 0.06, ["peak_of_one_process"]),
        (1.04, 0.0, []),
        (1.07, 0.0, ["peak_below_samples"]),
        # A peak between samples hides neither the other processes nor is it hidden by them.
        (0.58, 0.22, ["peak_of_one_process", "peak_between_samples"]),
    ],
)
def test_samples_that_disagree_with_the_kernels_peak(
    record: TrialRecord, sampled_share: float, others_share: float, codes: list[str]
) -> None:
    record.peaks = [
        replace(
            p,
            sampled_rss_bytes=round((p.rss_bytes or 0) * sampled_share),
            others_rss_bytes=round((p.rss_bytes or 0) * others_share),
        )
        for p in record.peaks
    ]
    found = judged(record)
    assert [f.code for f in found] == codes
    # What is short lies between two samples, rightly: that is no reason for doubt.
    assert {f.code for f in found if f.level == "note"} <= {"peak_between_samples"}


@pytest.mark.parametrize(
    ("before", "after", "warned"),
    [
        (None, None, False),
        (4, 20, False),  # 16 more: four spreads of chance are 19.6
        (4, 30, True),
        (400, 500, False),  # many wait, yet not more than chance explains
        (54, 210, True),
    ],
)
def test_requests_that_pile_up_tell_of_overload(
    record: TrialRecord, before: int | None, after: int | None, warned: bool
) -> None:
    found = judged(with_load(record, waiting_before=before, waiting_after=after))
    expected = [("service_saturated", "warning")] if warned else []
    assert [(f.code, f.level) for f in found] == expected


def with_rates(record: TrialRecord, *pieces: tuple[float, float]) -> TrialRecord:
    """The same trial under a rate that changes."""
    rates = [{"for_ns": SECOND_NS, "from_rps": a, "to_rps": b} for a, b in pieces]
    load = record.spec["load"]
    arrivals = (load["arrivals"] or {}) | {"rates": rates}
    return replace(record, spec=record.spec | {"load": load | {"arrivals": arrivals}})


@pytest.mark.parametrize(
    ("first", "last", "after", "warned"),
    [(100, 1000, 100, False), (100, 1000, 300, True), (100, 100, 100, True), (0, 1000, 300, False)],
)
def test_more_requests_wait_at_a_higher_rate_without_piling_up(
    record: TrialRecord, first: float, last: float, after: int, warned: bool
) -> None:
    """10 wait at 100/s: at 1,000/s they are 100 while the latency stays what it is."""
    loaded = with_load(record, waiting_before=10, waiting_after=after)
    found = judged(with_rates(loaded, (first, first), (first, last)))
    assert [f.code for f in found] == (["service_saturated"] if warned else [])


def test_a_saturated_generator_under_a_changing_rate_tells_a_mean(record: TrialRecord) -> None:
    full = with_load(record, cpu_share=0.99)
    assert "/s; " in only(judged(full)).text
    assert "/s on average; " in only(judged(with_rates(full, (100, 1000)))).text


def test_requests_without_an_answer_are_told(record: TrialRecord) -> None:
    finding = only(judged(with_load(record, unanswered=5, failed=5)))
    assert (finding.code, finding.level) == ("unanswered", "warning")
    assert finding.text.startswith("5 requests had no answer")


def test_only_what_the_node_did_is_worth_repeating(record: TrialRecord) -> None:
    late = Finding("generator_late", "invalid", "60 ms late")
    died = Finding("service_died", "invalid", "exit code 3")
    assert not spoiled_by_node(record)
    for findings, spoiled in (([late], True), ([died], False), ([late, died], False)):
        assert spoiled_by_node(replace(record, findings=findings)) is spoiled
    assert not spoiled_by_node(replace(record, findings=[replace(late, level="warning")]))


@pytest.mark.parametrize(("steal_ms", "noisy"), [(200, False), (201, True)])
def test_time_that_the_hypervisor_took(record: TrialRecord, steal_ms: int, noisy: bool) -> None:
    found = judge(record, record.rows, (CoreTime(0, steal_ms * MS_NS), 10 * SECOND_NS))
    assert [f.code for f in found] == (["node_noisy"] if noisy else [])
    assert all(f.level == "warning" for f in found)


def test_shared_cores_are_a_warning(record: TrialRecord) -> None:
    record.node["cores_shared"] = True
    assert only(judged(record)).code == "cores_shared"


def test_a_measure_phase_of_no_length_divides_by_nothing(record: TrialRecord) -> None:
    record.phases = [replace(p, end_ns=p.start_ns) for p in record.phases]
    found = judge(with_load(record, cpu_share=1.0), record.rows, (CoreTime(0, 0), 0))
    assert [f.code for f in found] == ["generator_saturated"]


# Windows, and several nodes


def on_windows(tmp_path: Path, **peaks: Any) -> TrialRecord:
    archive = write_archive(tmp_path / "windows", blocks=1, groups={"windows": WINDOWS})
    (path,) = archive.glob("*/trials/*/trial.json")
    record = TrialRecord.read(path)
    record.peaks = [replace(peak, **peaks) for peak in record.peaks]
    return record


def test_a_clean_trial_on_windows_has_no_finding(tmp_path: Path) -> None:
    assert judged(on_windows(tmp_path)) == []


def test_a_mark_that_did_not_rise_is_told_for_what_it_hides(tmp_path: Path) -> None:
    found = only(judged(on_windows(tmp_path, working_set_bytes=None)))
    assert (found.code, found.level) == ("peak_from_samples", "warning")
    assert found.text.startswith("peak working set is the greatest sample, a lower bound")
    both = on_windows(tmp_path / "both", working_set_bytes=None, commit_bytes=None)
    text = only(judged(both)).text
    assert text.startswith("peak working set and peak commit are the greatest samples")


def test_a_mark_of_the_main_process_is_held_against_the_tree(tmp_path: Path) -> None:
    found = only(judged(on_windows(tmp_path, sampled_working_set_bytes=360 * 2**20)))
    assert (found.code, found.level) == ("peak_of_one_process", "warning")
    assert "held 100% more" in found.text
    low = only(judged(on_windows(tmp_path / "low", sampled_working_set_bytes=90 * 2**20)))
    assert (low.code, low.level) == ("peak_between_samples", "note")


@pytest.mark.parametrize("cause", ["commit_refused", "access_violation"])
def test_what_only_windows_does_has_a_code_of_its_own(cause: str) -> None:
    exit_record = ended(cause, "exit code 0xC0000005")
    finding = service_failed("exited", "the service ended", exit_record, ["VirtualAlloc failed"])
    assert (finding.code, finding.level) == (cause, "invalid")
    assert "0xC0000005; its last words: VirtualAlloc failed" in finding.text
    assert cause in CODES
    assert ("page file" in finding.remedy) == (cause == "commit_refused")


@pytest.mark.parametrize(
    ("sent", "archived", "sent_text", "lost"),
    [(1_200, 1_150, "1,200", "50"), (0, 0, "0", "0"), (100, 130, "130", "0")],
)
def test_a_lost_node_gives_account_of_every_request(
    sent: int, archived: int, sent_text: str, lost: str
) -> None:
    finding = node_lost("node-1 went away", sent_at_least=sent, archived=archived)
    assert (finding.code, finding.level) == ("node_lost", "invalid")
    assert finding.text == (
        f"node-1 went away: at least {sent_text} requests were sent, {archived:,} are in the "
        f"archive, {lost} are counted as lost"
    )


def test_clocks_that_can_not_be_trusted_are_told(record: TrialRecord) -> None:
    jump, unknown = clock_jumped("it moved by 3 s"), clock_offset_unknown("the head is silent")
    assert [(f.code, f.level) for f in (jump, unknown)] == [
        ("clock_jumped", "invalid"),
        ("clock_offset_unknown", "warning"),
    ]
    assert {jump.code, unknown.code} <= CODES.keys()
    record.findings = [jump]
    assert spoiled_by_node(record), "another attempt may go well"
    record.findings = [unknown]
    assert record.valid


def test_a_generator_without_ports_or_files_is_not_the_service(record: TrialRecord) -> None:
    found = only(judged(with_load(record, exhausted=31)))
    assert (found.code, found.level) == ("generator_exhausted", "invalid")
    assert "for 31 requests it had no free port or file" in found.text
    assert "ulimit -n" in found.remedy


@pytest.mark.parametrize(("late_ms", "level"), [(9, None), (30, "warning"), (60, "invalid")])
def test_a_loop_that_comes_late_takes_answers_late(
    record: TrialRecord, late_ms: int, level: str | None
) -> None:
    found = judged(with_load(record, loop_lag_p99_ns=late_ms * MS_NS))
    assert [(f.code, f.level) for f in found] == ([("generator_late", level)] if level else [])


def test_what_helps_a_saturated_generator_fits_the_scenario(record: TrialRecord) -> None:
    for costly, first in ((["FastHttpUser"], "workloads.users.HttpUser instead of"), ([], "more")):
        busy = with_load(record, cpu_share=0.97, costly_users=costly)
        found = only(judged(busy))
        assert found.code == "generator_saturated"
        assert "at least" in found.text
        assert found.remedy.startswith(first)
        assert "load from other nodes" in found.remedy

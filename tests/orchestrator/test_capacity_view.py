"""What one sees of a search while it goes on, and of runs in processes of their own."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from archives import RUN_ID, write_archive
from rich.console import Console

from orchestrator.capacity.answers import plain_course, print_courses
from orchestrator.capacity.view import PlainView, TerminalView, bar
from orchestrator.progress import PlainProgress
from orchestrator.progressevents import EventProgress, forward
from results.capacity.course import Course, Purpose, Purse, Step, Tried
from results.capacity.holds import Held
from results.capacity.search import Bounds
from results.record import TrialRecord

BOUNDS = Bounds(10, 1_000, trials_max=15)


def course_of(answers: int, name: str = "default") -> Course:
    """A course that has so many answers of a service which carries 300/s."""
    course = Course(name, BOUNDS, 100)
    for _ in range(answers):
        step = course.next_step(Purse(100))
        assert step
        holds = step.rate_rps <= 300
        reason = "every limit is kept" if holds else "latency p99 90 ms, not p99 <= 40ms"
        course.take(Tried("r", step.purpose, step.rate_rps, Held(holds, reason)))
    return course


def shown(view: TerminalView) -> str:
    console = Console(file=io.StringIO(), width=120)
    console.print(view.drawn())
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_the_bracket_closes_on_the_capacity() -> None:
    wide, narrow = bar(course_of(1)).plain, bar(course_of(9)).plain
    assert wide.count("█") >= 20 > 4 > narrow.count("█") > 0
    # log(300 / 10) / log(1000 / 10) of 40 columns is 29.5.
    assert narrow[28:31].count("█") > 0
    assert narrow.index("█") == narrow.count("━")
    now = bar(course_of(9), 1_000).plain
    assert now.endswith("●")


def test_a_terminal_shows_every_configuration_its_trials_and_its_last_answer() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=120)
    view = TerminalView(console, BOUNDS)
    first, second = course_of(6), course_of(0, "optimised")
    view.begin([first, second], "steady, at most 15 trials")
    view.trying(second, Step(Purpose.search, 100), 90e9)
    assert view.progress
    view.progress.snapshot("b1", {"phase": "measure", "rss_bytes": 2**20, "rate_rps": 99.5})
    text = shown(view)
    assert "default" in text and "optimised" in text
    assert "6/15" in text and "0/15" in text
    assert f"{first.interval.low:,.0f} … {first.interval.high:,.0f}/s" in text
    assert "latency p99 90 ms" in text or "every limit is kept" in text
    assert "optimised, 100/s" in text and "RSS 1 MiB" in text
    assert "up to 1:30 min left" in text or "up to 1:29 min left" in text
    assert "10/s" in text and "1,000/s" in text, "the ends of the axis"
    first.take(Tried("r", Purpose.search, 300, Held(None, "a very long reason " * 20)))
    assert bar(first).plain in shown(view), "a long reason is cut, no bar is"


def test_a_log_tells_each_trial_and_repeats_no_preparation() -> None:
    console = Console(file=io.StringIO(), width=200)
    view = PlainView(console)
    course = course_of(3)
    view.begin([course], "steady, at most 15 trials")
    for seconds in ("3.1", "4.2"):
        view.trying(course, Step(Purpose.confirm, 280), 90e9)
        view.progress.step("starting Ray and the collector")
        view.progress.done(f"Ray ready in {seconds} s: node")
        view.progress.warn("with 1 block no verdict can be reached: a paired test needs more")
        view.progress.trials(1, 0, 10**9)
        view.progress.trial_started("b1", "node")
        view.answered(course, "to confirm, 280/s holds", 60e9)
    assert isinstance(console.file, io.StringIO)
    text = console.file.getvalue()
    assert text.count("Ray ready in") == 1
    assert text.count("capacity: default: trial 4/15, to confirm, 280/s; up to 1:30 min left") == 2
    assert text.count("280/s holds") == 2
    assert "no verdict" not in text


def test_progress_goes_from_process_to_process(tmp_path: Path) -> None:
    root = write_archive(tmp_path / "archive", blocks=1)
    (path,) = (root / RUN_ID / "trials").glob("*/trial.json")
    record = TrialRecord.read(path)

    def play(progress: PlainProgress | EventProgress) -> None:
        progress.step("building")
        progress.done("built")
        progress.warn("this may be slow")
        progress.trials(2, 0, 10**10)
        progress.trial_started(record.trial_id, "node-1")
        progress.snapshot(record.trial_id, {"phase": "measure"})
        progress.trial_finished(record)
        progress.left_ns(10**9)

    direct, passed = io.StringIO(), io.StringIO()
    play(PlainProgress(Console(file=direct, width=200)))
    wire = io.StringIO()
    play(EventProgress(wire))
    noise = [
        "a library's own word\n",
        "17\n",
        '["exec", "rm"]\n',
    ]
    forward(
        [*noise, *wire.getvalue().splitlines(keepends=True), '["done", "cut o'],
        PlainProgress(Console(file=passed, width=200)),
    )
    without_time = [[line[9:] for line in out.getvalue().splitlines()] for out in (direct, passed)]
    assert without_time[0] == without_time[1]
    assert len(without_time[0]) >= 6


def printed(*courses: Course) -> str:
    console = Console(file=io.StringIO(), width=140)
    print_courses(courses, console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_the_table_tells_what_was_confirmed_and_what_was_not() -> None:
    confirmed, unconfirmed = course_of(8), course_of(8, "optimised")
    confirmed.take(Tried("c", Purpose.confirm, 290, Held(True, "every limit is kept")))
    no = Held(False, "latency p99 50 ms")
    confirmed.take(Tried("a", Purpose.above, 310, no, disturbed=True))
    unconfirmed.take(Tried("c", Purpose.confirm, 290, Held(False, "latency p99 44 ms")))
    text = printed(confirmed, unconfirmed).replace("\N{NO-BREAK SPACE}", " ")
    assert "290/s held" in text
    assert "310/s did not hold" in text
    assert "290/s did not hold" in text
    assert "! optimised: not confirmed: at 290/s a fresh process did not hold" in text
    assert "! default: in 1 of 10 trials others used the service's cores" in text
    plain = plain_course(confirmed)
    assert plain["confirmed_rps"] == 290
    assert plain["step_above"]["holds"] is False
    assert plain["trials_made"] == len(plain["trials"]) == 10
    assert plain_course(unconfirmed)["confirmed_rps"] is None
    assert plain["low_rps"] < plain["capacity_rps"] < plain["high_rps"]


def test_where_nothing_is_known_json_says_nothing() -> None:
    course = Course("default", BOUNDS, 100)
    ends = ("capacity_rps", "low_rps", "high_rps")
    assert [plain_course(course)[end] for end in ends] == [None, None, None]
    for _ in range(2):
        course.take(Tried("r", Purpose.search, BOUNDS.lowest_rps, Held(False, "too slow")))
    assert course.end == "below"
    assert [plain_course(course)[end] for end in ends] == [None, None, BOUNDS.lowest_rps]


@pytest.mark.parametrize(
    ("reason", "said"), [("the generator sent late", "given up: the generator sent late")]
)
def test_what_said_nothing_is_told(reason: str, said: str) -> None:
    course = Course("default", BOUNDS, 100)
    for _ in range(3):
        course.take(Tried("r", Purpose.search, 100, Held(None, reason)))
    assert said in printed(course)

"""What `bench tune` prints and how it ends, without a run: the tuning itself is given."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matrices
import pytest
from rich.console import Console

from orchestrator.tune import answers
from orchestrator.tune.trialmatrix import Question
from results.errors import EnvironmentLacks, HeapgateError, ObjectiveFailed
from results.gomodel import OFF
from results.signoff.language import parse_objective
from results.signoff.objectives import Cell, Decision, Severity, Word
from results.statistics.interval import Interval
from results.tuning.outcomes import Confirmed
from results.tuning.search import Tuned
from results.tuning.settings import MIB, Setting
from results.tuning.spiral import Spiral

SMALL = matrices.SMALL.replace("measure: 1s", "measure: 6m")
TEXT = SMALL.partition("  optimised:")[0] + "workloads:" + SMALL.partition("workloads:")[2]
SPIRAL = Spiral("found", 180.0 * MIB, 190.0 * MIB, 9, reasons=("the service fell behind",))


def confirmed(
    setting: Setting,
    memory_mib: float,
    word: Word = "PASS",
    *,
    text: str = "p99 <= 40ms",
    severity: Severity = "block",
) -> Confirmed:
    """All that a confirmation tells of a setting."""
    objective = parse_objective(text, severity=severity)
    cell = Cell("linux", "node", "steady", setting.name)
    size = memory_mib * MIB
    return Confirmed(
        setting=setting,
        trials=6,
        intervals={
            "peak_rss": Interval(size, size * 0.98, size * 1.02),
            "latency_p99": Interval(2e7, 1.8e7, 2.2e7),
            "gc_cpu_share": Interval(0.35, 0.33, 0.36),
        },
        memory_metric="peak_rss",
        greatest_bytes=size,
        decisions=[Decision(objective, cell, word, "35 % (33 % … 36 %)")],
        written=setting == Setting(),
    )


class Printed:
    """What a tuning prints that found so much, under these objectives of its matrix."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._folder = folder
        self._patch = monkeypatch

    def of(
        self,
        found: Sequence[Confirmed],
        spiral: Spiral | None = None,
        *,
        more: str = "objectives: [p99 <= 40ms]\n",
        output: Path | None = None,
        form: str = "table",
    ) -> tuple[str, HeapgateError | None]:
        """The text, and what was raised."""
        path = matrices.write(self._folder, TEXT + more)

        def given(question: Question, *_: Any) -> tuple[Tuned, list[str]]:
            return Tuned(question.asked, (), {}, spiral, tuple(found)), ["run"]

        self._patch.setattr(answers, "tune", given)
        console = Console(file=io.StringIO(), width=160)
        raised: HeapgateError | None = None
        try:
            answers.print_tuning(
                path, self._folder, console, console, workload=None, configuration=None,
                require=[], trials=24, finalists=4, budget="30m", spiral=True, output=output,
                form=form,
            )  # fmt: skip
        except HeapgateError as error:
            raised = error
        assert isinstance(console.file, io.StringIO)
        return console.file.getvalue(), raised


@pytest.fixture
def printed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Printed:
    return Printed(tmp_path, monkeypatch)


def test_a_setting_in_the_spiral_is_not_recommended_and_it_says_why(printed: Printed) -> None:
    inside = confirmed(Setting(OFF, 185.0 * MIB), 190)
    text, raised = printed.of([confirmed(Setting(), 360), inside], SPIRAL)
    assert raised is None
    assert "recommended: GOGC=100:" in text
    why = "no margin to the death spiral, which may begin at 190.0 MiB: it is not recommended"
    assert f"GOGC=off GOMEMLIMIT=185MiB: {why}" in text
    text, raised = printed.of([confirmed(Setting(), 360, "FAIL"), inside], SPIRAL)
    assert isinstance(raised, ObjectiveFailed)
    assert "in the death spiral, or has no margin to it" in str(raised)
    assert "more blocks" not in str(raised)
    assert why in text


def test_what_only_warns_does_not_fail_a_tuning_and_is_shown(printed: Printed) -> None:
    warn = "objectives: [{require: gc_cpu <= 10%, severity: warn}]\n"
    found = [confirmed(Setting(), 360, "FAIL", text="gc_cpu <= 10%", severity="warn")]
    text, raised = printed.of(found, more=warn)
    assert raised is None
    assert "gc_cpu <= 10%: FAIL (only warns): 35 %" in text
    assert "nothing is recommended without objectives that block" in text


def test_what_is_not_asked_is_told(printed: Printed) -> None:
    both = "objectives: [p99 <= 40ms, no_leak, capacity >= 800/s]\n"
    text, raised = printed.of([confirmed(Setting(), 360)], more=both)
    assert raised is None
    assert "recommended: GOGC=100" in text
    assert "not asked: no_leak: a tuning is too short for it" in text
    assert "not asked: capacity >= 800/s: that is a search of its own: bench capacity" in text


def test_the_answer_is_printed_though_the_picture_can_not_be_written(
    printed: Printed, tmp_path: Path
) -> None:
    (tmp_path / "loop.svg").symlink_to(tmp_path / "loop.svg")  # root may write anywhere else
    found = [confirmed(Setting(), 360, "FAIL"), confirmed(Setting(50), 300)]
    text, raised = printed.of(found, output=tmp_path / "loop.svg")
    assert isinstance(raised, EnvironmentLacks)
    assert "loop.svg: " in str(raised) and "the same command draws it at once" in str(raised)
    assert "recommended: GOGC=50" in text
    text, raised = printed.of(found, output=tmp_path / "front.svg")
    assert raised is None
    assert "<svg" in (tmp_path / "front.svg").read_text()


def test_a_spiral_that_is_still_wide_says_so(printed: Printed) -> None:
    wide = Spiral("wide", 100.0 * MIB, 190.0 * MIB, 15)
    text, _ = printed.of([confirmed(Setting(), 360)], wide)
    assert "below 100.0 MiB … 190.0 MiB (95 %, still wide after 15 trials)" in text
    text, _ = printed.of([confirmed(Setting(), 360)], SPIRAL)
    assert "(95 %, 9 trials): the service fell behind" in text


def test_the_margin_is_told_as_a_share_of_the_hard_limit(printed: Printed) -> None:
    text, _ = printed.of(
        [confirmed(Setting(), 250)],
        more="limits: {memory_max: 500MiB}\nobjectives: [p99 <= 40ms]\n",
    )
    assert "of the hard limit of 500.0 MiB the greatest peak of 250.0 MiB leaves 50 % free" in text
    text, _ = printed.of([confirmed(Setting(), 252)])
    assert "of one of 280.0 MiB the greatest peak of 252.0 MiB would leave 10 % free" in text


def test_a_program_reads_the_same(printed: Printed, capsys: pytest.CaptureFixture[str]) -> None:
    inside = confirmed(Setting(OFF, 185.0 * MIB), 190)
    printed.of([confirmed(Setting(), 360), inside], SPIRAL, form="json")
    told = json.loads(capsys.readouterr().out)
    assert [own["danger"] != "" for own in told["confirmed"]] == [False, True]
    assert told["confirmed"][0]["decisions"][0]["severity"] == "block"
    assert told["not_asked"] == []

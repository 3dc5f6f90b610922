"""What `bench tune` recommends, and that what it says to paste means the same to others."""

import math
from dataclasses import replace

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.matrix import values
from results.signoff.language import parse_objective
from results.signoff.objectives import Cell, Decision
from results.statistics.interval import Interval
from results.tuning.outcomes import Confirmed, shortfalls
from results.tuning.recommendation import recommend, snippets, variables, why_nothing
from results.tuning.settings import MIB, OFF, Setting, memlimit_text
from results.tuning.spiral import Spiral

SPIRAL = Spiral("found", 180 * MIB, 190 * MIB, 9)
SETTINGS = st.builds(
    Setting,
    st.one_of(st.integers(1, 1000).map(float), st.just(OFF)),
    st.one_of(st.integers(1, 2**40).map(float), st.just(OFF)),
)


def confirmed(
    setting, memory_mib, word="PASS", *, share=0.1, greatest_mib=None, severity="block", spiral=""
):
    objective = parse_objective("p99 <= 40ms", severity=severity)
    cell = Cell("linux", "node", "steady", setting.name)
    memory = memory_mib * MIB
    return Confirmed(
        setting=setting,
        trials=6,
        intervals={
            "peak_rss": Interval(memory, memory, memory),
            "latency_p99": Interval(1e7, 1e7, 1e7),
            "gc_cpu_share": Interval(share, share, share),
        },
        memory_metric="peak_rss",
        greatest_bytes=(greatest_mib or memory_mib) * MIB,
        decisions=[Decision(objective, cell, word, "")],
        spiral=spiral,
    )


def test_the_least_memory_that_holds_is_recommended_with_its_margins():
    own = [
        confirmed(Setting(), 360),
        confirmed(Setting(OFF, 200 * MIB), 205, "CAN'T TELL"),
        confirmed(Setting(OFF, 240 * MIB), 242, greatest_mib=250),
        confirmed(Setting(20), 210, share=0.6),
    ]
    best = recommend(own, SPIRAL, 500.0 * MIB)
    assert best.confirmed is own[2]
    assert best.limit_given
    assert best.limit_margin == pytest.approx(0.5)
    assert best.spiral_margin == pytest.approx(1 - 190 / 240)


def test_without_a_hard_limit_one_with_room_is_told():
    best = recommend([confirmed(Setting(OFF, 240 * MIB), 242, greatest_mib=252)], SPIRAL, None)
    assert not best.limit_given
    assert best.limit_bytes == 280 * MIB
    # GOMEMLIMIT may be reached some day, though it was not in these trials.
    best = recommend([confirmed(Setting(100, 270 * MIB), 200)], SPIRAL, None)
    assert best.limit_bytes == 300 * MIB


def test_what_does_not_hold_is_not_recommended():
    own = [confirmed(Setting(), 360, "FAIL"), confirmed(Setting(50), 300, "CAN'T TELL")]
    assert recommend(own, SPIRAL, None) is None


def test_what_has_no_margin_to_the_spiral_is_not_recommended():
    inside = confirmed(Setting(OFF, 185 * MIB), 190, share=0.35)
    at_its_end = confirmed(Setting(OFF, 190 * MIB), 195, share=0.35)
    clear = confirmed(Setting(OFF, 240 * MIB), 242)
    assert recommend([inside, at_its_end, clear], SPIRAL, None).confirmed is clear
    assert recommend([inside, at_its_end], SPIRAL, None) is None
    assert "death spiral" in why_nothing([inside, at_its_end])
    # Where none was found, a limit that was tried and did well is no danger.
    tried = Spiral("below", 185 * MIB, 185 * MIB, 9)
    assert recommend([inside], tried, None).confirmed is inside
    # Of another release's spiral nothing is known.
    other = confirmed(Setting(OFF, 185 * MIB, (("go", "1.22"),)), 190)
    assert recommend([other], SPIRAL, None).confirmed is other


def test_a_collector_that_takes_over_without_half_of_the_cpu_is_not_recommended():
    marking = confirmed(Setting(OFF, 240 * MIB), 242, share=0.2, spiral="collections went on")
    assert recommend([marking], None, None) is None
    assert "death spiral" in why_nothing([marking])


def test_what_only_warns_recommends_nothing_and_stands_in_no_way():
    warned = confirmed(Setting(50), 300, "FAIL", severity="warn")
    assert recommend([warned], None, None) is None
    (asked,) = confirmed(Setting(50), 300).decisions
    both = replace(warned, decisions=[*warned.decisions, asked])
    assert recommend([both], None, None).confirmed is both


@given(SETTINGS.filter(lambda s: s.bounded))
def test_snippets_are_yaml_that_says_what_go_accepts(setting):
    best = recommend([confirmed(setting, 242)], None, None)
    made = snippets(best, "sessioncache")
    lines = dict(line.split("=", 1) for line in made["environment"].splitlines())
    assert lines == variables(setting)
    kubernetes = yaml.safe_load(made["kubernetes"])
    assert {e["name"]: e["value"] for e in kubernetes["env"]} == lines
    assert all(isinstance(e["value"], str) for e in kubernetes["env"])
    memory = kubernetes["resources"]["limits"]["memory"]
    assert memory.endswith("Mi")
    assert int(memory[:-2]) * MIB >= best.limit_bytes
    compose = yaml.safe_load(made["compose"])["services"]["sessioncache"]
    assert compose["environment"] == lines
    assert compose["deploy"]["resources"]["limits"]["memory"] == memory.replace("Mi", "M")
    assert values.gogc(lines["GOGC"]) == lines["GOGC"]
    if "GOMEMLIMIT" in lines:
        assert values.gomemlimit_bytes(values.gomemlimit(lines["GOMEMLIMIT"])) == round(
            setting.memlimit_bytes
        )
    else:
        assert math.isinf(setting.memlimit_bytes)


def test_a_size_is_written_in_gos_largest_unit():
    assert memlimit_text(240 * MIB) == "240MiB"
    assert memlimit_text(2 * 2**30) == "2GiB"
    assert memlimit_text(1500) == "1500B"
    assert memlimit_text(OFF) == "off"


def test_a_setting_has_a_name_that_a_configuration_may_have():
    import re

    from orchestrator.matrix.model import NAME

    settings = [
        Setting(OFF, 240 * MIB),
        Setting(50, OFF, (("go", "1.23"), ("build.ldflags", "-s -w -X main.version=1.2.3"))),
    ]
    names = [setting.name for setting in settings]
    assert names[0] == "gogc-off-gomemlimit-240mib"
    assert all(re.fullmatch(NAME, name) for name in names)


@pytest.mark.parametrize(
    ("text", "value", "written", "shortfall"),
    [
        ("p99 <= 40ms", 44e6, 0.0, 0.1),
        ("p99 <= 40ms", 30e6, 0.0, -0.25),
        ("throughput >= 100/s", 90.0, 0.0, 0.1),
        ("p99 not worse by > 10%", 66e6, 50e6, 0.22),
        ("peak_rss better by >= 30%", 60.0, 100.0, -0.1),
        ("p99 <= 40ms", None, 0.0, 1.0),
    ],
)
def test_how_far_a_trial_is_from_an_objective(text, value, written, shortfall):
    objective = parse_objective(text)
    found = shortfalls([objective], {objective.metric: value}, {objective.metric: written})
    assert found == {text: pytest.approx(shortfall)}

"""The picture of a tuning: what it says in words, that it is whole, that it can always be drawn."""

import re
from dataclasses import replace

import pytest
from simulated_service import Simulated, budget

from results.report.tune_chart import render_tuning, tuning_spec
from results.signoff.language import parse_objective
from results.statistics.interval import Interval
from results.tuning.recommendation import recommend
from results.tuning.search import Asked, Tuning
from results.tuning.settings import GOGCS, Setting
from results.tuning.spiral import Spiral


@pytest.fixture(scope="module")
def found():
    made = Simulated(0, tuple(map(parse_objective, ["p99 <= 8ms", "peak_rss <= 700MiB"])))
    asked = Asked(written=Setting(), gogcs=GOGCS, objectives=tuple(made.objectives), seed=0)
    return Tuning(asked, budget(), made, made).result()


def test_the_picture_names_what_is_recommended_the_objectives_and_the_spiral(found):
    best = recommend(found.confirmed, found.spiral, None)
    svg = render_tuning(found, best, "sessioncache", "svg").decode()
    words = " ".join(re.findall(r">([^<>]+)<", svg))
    assert f"recommended (thick ring): {best.confirmed.setting.text}" in words
    assert "p99 &lt;= 8ms" in words
    assert "peak_rss &lt;= 700MiB" in words
    assert "death spiral, from" in words
    assert "hard limit to set" in words
    assert all(c.setting.text in words for c in found.confirmed)
    assert "(as written)" in words
    assert "var(--" not in svg


def test_a_page_needs_nothing_from_elsewhere(found):
    page = render_tuning(found, None, "sessioncache", "html").decode()
    assert not re.findall(r"""(?:src|href)=["']https?://""", page)


def test_a_png_is_one(found):
    assert render_tuning(found, None, "s", "png").startswith(b"\x89PNG")


@pytest.mark.parametrize("state", ["below", "above", "found", "wide"])
def test_every_spiral_and_open_bounds_can_be_drawn(found, state):
    endless = {
        name: Interval(i.estimate, -float("inf"), float("inf"))
        for name, i in found.confirmed[1].intervals.items()
    }
    confirmed = (found.confirmed[0], replace(found.confirmed[1], intervals=endless))
    spiral = Spiral(state, found.spiral.low_bytes, found.spiral.high_bytes, 5)
    best = recommend(found.confirmed, None, None)
    spec = tuning_spec(replace(found, spiral=spiral, confirmed=confirmed), best, "s")
    assert "Infinity" not in str(spec)
    assert ("death spiral" in str(spec)) == (state != "below")

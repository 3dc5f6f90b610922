"""Objectives as one writes them, and what is said of those that can't be meant."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from results.signoff.language import parse_objective


@pytest.mark.parametrize(
    ("text", "kind", "metric", "bound"),
    [
        ("peak_rss <= 1.5GiB", "limit", "peak_rss", 1.5 * 2**30),
        ("p99 ≤ 40ms", "limit", "latency_p99", 40e6),
        ("errors<=0.1%", "limit", "error_share", 0.001),
        ("gc_cpu <= 10 %", "limit", "gc_cpu_share", 0.1),
        ("throughput >= 800/s", "limit", "throughput", 800),
        ("cpu <= 1.5", "limit", "cpu_cores", 1.5),
        ("peak_rss  better by >=  30%", "change", "peak_rss", -0.3),
        ("throughput better by >= 150%", "change", "throughput", -1.5),
        ("p99 not worse by > 5%", "change", "latency_p99", 0.05),
        ("headroom >= 20%", "limit", "headroom", 0.2),
        ("capacity >= 800/s", "capacity", "", 800),
        ("capacity ≥ 600/m", "capacity", "", 10),
        ("no_leak", "no_leak", "", 0),
        ("no_leak over 24h", "no_leak", "", 86_400),
    ],
)
def test_forms(text: str, kind: str, metric: str, bound: float) -> None:
    found = parse_objective(text)
    assert (found.kind, found.metric) == (kind, metric)
    assert found.bound == pytest.approx(bound)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("peak_rs <= 1GiB", "did you mean 'peak_rss'?"),
        ("capacty >= 800/s", "did you mean 'capacity'?"),
        ("peak_rss <= 1280M", "write for example 512MiB"),
        ("peak_rss <= 40ms", "is not a size"),
        ("p99 <= 40", "has no unit"),
        ("errors <= 0.1", "write for example 2%"),
        ("p99 >= 40ms", "is better when it is lower: write latency_p99 <="),
        ("throughput <= 40/s", "is better when it is higher: write throughput >="),
        ("peak_rss == 1GiB", "write <= or >="),
        ("peak_rss < 1GiB", "write <= or >="),
        ("peak_rss better by > 3%", "better by >="),
        ("peak_rss better by >= 100%", "nothing would be left"),
        ("gc_cycles not worse by > 5%", "no better side"),
        ("", "is no objective"),
        ("peak_rss", "is no objective"),
        (7, "is no objective"),
        (None, "is no objective"),
        ("no_leak over 24", "has no unit"),
        ("headroom <= 20%", "is better when it is higher: write headroom >="),
        ("headroom >= 20", "write for example 2%"),
        ("capacity <= 800/s", "write capacity >="),
        ("capacity better by >= 10%", "write capacity >="),
        ("capacity", "write capacity >="),
        ("capacity >= 800", "800"),
    ],
)
def test_what_is_wrong_is_told_with_what_would_be_right(text: object, said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(said)):
        parse_objective(text)


@given(st.text(max_size=60))
def test_any_text_is_an_objective_or_a_clear_error(text: str) -> None:
    try:
        found = parse_objective(text)
    except ValueError as error:
        assert str(error)
    else:
        assert parse_objective(found.text) == found

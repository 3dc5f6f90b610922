"""The page of a sign-off: it says what the record says, carries it, asks nobody, runs nothing."""

from __future__ import annotations

import base64
import json
import re
from datetime import UTC, date, datetime
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import reportpages
from archives import MIB, RUN_ID, write_archive
from hypothesis import given
from hypothesis import strategies as st
from reportpages import BREAKOUT, DRIFT, HOSTILE

from results.signoff.language import parse_objective
from results.signoff.page import POLICY, record_page, sentence
from results.signoff.pagelimits import WIDTH, DrawnLimit, drawn_limit
from results.signoff.record import Question, make_record, text_of
from results.signoff.signing import BadSignature, make_key, public_key_of, read_key, sign, signer_of
from results.signoff.waivers import Waiver
from results.sql.database import open_database

browser, visit = reportpages.browser, reportpages.visit
hostile = reportpages.hostile
"""Fixtures."""

AT = datetime(2026, 11, 28, 12, 0, tzinfo=UTC)
NAME = "signoff-optimised.json"
BREAKS = "p99 <= 1ms"
WAIVER = Waiver(BREAKS, BREAKOUT, HOSTILE, date(2999, 1, 31))
HOLDS = ("peak_rss <= 200MiB", "peak_rss better by >= 30%", "throughput not worse by > 5%")


def made(archive: Path, *texts: str, configuration: str = "optimised", **more: Any) -> str:
    objectives = tuple(map(parse_objective, texts))
    asked = Question(configuration, objectives, **({"waivers": (), "decided_at": AT} | more))
    with open_database(archive, [RUN_ID]) as database:
        return text_of(make_record(database, asked))


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_archive(
        tmp_path_factory.mktemp("signed") / "archive",
        configurations={
            "default": {"factors": DRIFT},
            "optimised": {"peak_rss_bytes": 120 * MIB, "factors": DRIFT, "binary_bytes": 6_000_000},
        },
    )


@pytest.fixture(scope="module")
def record(archive: Path) -> str:
    return made(archive, *HOLDS, BREAKS, "no_leak", waivers=(WAIVER,), command="bench signoff")


@pytest.fixture(scope="module")
def hostile_page(hostile: Path) -> str:
    """Every name, reason and log line in it is an attack."""
    text = made(hostile, *HOLDS, BREAKS, configuration=HOSTILE, waivers=(WAIVER,), command=BREAKOUT)
    return record_page(text, f"signoff-{HOSTILE}.json")


def test_the_page_says_what_the_record_says_and_carries_it(record: str, tmp_path: Path) -> None:
    make_key(tmp_path / "key", "release manager")
    key = read_key(tmp_path / "key")
    page = record_page(record, NAME, sign(record.encode(), key))
    plain = json.loads(record)
    for said in (
        plain["build"][0]["sha256"], plain["evidence"][0]["sha256"], public_key_of(key).fingerprint,
        "NO-GO", "CAN&#39;T TELL", "FAIL, waived", "2999-01-31", f"bench verify {NAME}",
    ):  # fmt: skip
        assert said in page, said
    files = dict(re.findall(r'<a download="([^"]+)" href="data:[^,]+,([^"]+)"', page))
    data, signature = (base64.b64decode(files[name]) for name in (NAME, f"{NAME}.sig"))
    assert data == record.encode()
    assert signer_of(data, signature.decode()).raw == public_key_of(key).raw


def test_the_runs_of_a_searched_capacity_are_named(record: str) -> None:
    run = {"run_id": "20260921-1", "sha256": "ab" * 32, "rate_rps": 2850.0, "holds": False}
    search = {"configuration": "optimised", "workload": BREAKOUT, "runs": [run]}
    tags = json.loads(record) | {"capacity": [search]}
    page = record_page(text_of(tags), NAME)
    for said in ("20260921-1", "ab" * 32, "2,850/s", "did not hold"):
        assert said in page
    assert picture("capacity >= 2000/s", 1848.0, 2850.0, 3949.0).label == "2,000/s"


def test_a_signature_of_something_else_makes_no_page(record: str, tmp_path: Path) -> None:
    make_key(tmp_path / "key", "release manager")
    with pytest.raises(BadSignature):
        record_page(record, NAME, sign(b"another record", read_key(tmp_path / "key")))


def test_an_unsigned_record_says_so(record: str) -> None:
    page = record_page(record, NAME)
    assert "this record is not signed" in page
    assert "bench verify" not in page


def decided(*words: str, waived: bool = False, severity: str = "block") -> list[dict[str, Any]]:
    return [
        {
            "objective": f"peak_rss <= {number}MiB",
            "decision": word,
            "blocks": word != "PASS" and not waived and severity == "block",
            "waived_by": {} if waived and word != "PASS" else None,
        }
        for number, word in enumerate(words, 1)
    ]


SENTENCES = {
    "all hold": (decided("PASS", "PASS"), [], "holds all 2 objectives"),
    "the only one": (decided("PASS"), [], "holds its objective"),
    "one fails": (decided("PASS", "FAIL"), [], "does not hold “peak_rss <= 2MiB”"),
    "two": (
        decided("FAIL", "CAN'T TELL"), [], "does not hold “peak_rss <= 1MiB” and 1 more objective"
    ),
    "can't tell": (decided("CAN'T TELL"), [], "is not shown to hold “peak_rss <= 1MiB”"),
    "waived": (decided("PASS", "FAIL", waived=True), [], "holds 1 of 2 objectives; 1 waived"),
    "only told": (
        decided("FAIL", "PASS", severity="warn"), [], "holds 1 of 2 objectives; 1 only told"
    ),
    "not whole": (
        decided("PASS"), ["run x is interrupted"], "can't be signed off: the evidence is not whole"
    ),
}  # fmt: skip


@pytest.mark.parametrize(("decisions", "doubts", "want"), SENTENCES.values(), ids=SENTENCES)
def test_the_decision_in_one_sentence(decisions: list[Any], doubts: list[str], want: str) -> None:
    plain = {"service": "s", "configuration": "c", "objectives": decisions, "doubts": doubts}
    assert sentence(plain) == f"s as c {want}"


def picture(objective: str, low: float | None, estimate: float, high: float | None) -> DrawnLimit:
    interval = {"low": low, "estimate": estimate, "high": high}
    drawn = drawn_limit({"objective": objective, "interval": interval})
    assert drawn
    return drawn


PARTS = st.floats(-0.9, 3.0, allow_nan=False).map(lambda x: round(x, 6))


@given(st.lists(PARTS, min_size=3, max_size=3).map(sorted), st.integers(0, 200))
def test_a_picture_shows_on_which_side_of_the_limit_the_interval_is(
    worse: list[float], percent: int
) -> None:
    """The shaded side holds all of the interval exactly when the objective passes."""
    bound = percent / 100
    for metric in ("peak_rss", "throughput"):
        drawn = picture(f"{metric} not worse by > {percent}%", *worse)
        assert 0 <= drawn.low <= drawn.point <= drawn.high <= WIDTH
        begin, end = drawn.keeps
        slack = 0.1  # pixels are rounded
        if worse[2] <= bound:
            assert begin - slack <= drawn.low and drawn.high <= end + slack
        elif worse[0] > bound + 0.01:
            assert drawn.high <= begin + slack or drawn.low >= end - slack


def test_pictures_tell_limits_as_they_were_written() -> None:
    assert picture("peak_rss better by >= 30%", -0.5, -0.45, -0.4).label == "−30 %"
    assert picture("throughput not worse by > 5%", -0.1, 0.0, 0.1).label == "−5 %"
    assert picture("p99 <= 40ms", 1e7, 2e7, 3e7).label == "40 ms"
    rate = picture("throughput >= 800/s", 900.0, 950.0, 1000.0)
    assert rate.keeps == (rate.limit, WIDTH)


def test_an_end_that_is_not_known_is_an_arrow_to_the_edge() -> None:
    drawn = picture("peak_rss <= 1GiB", None, 5e8, None)
    assert drawn.arrow_low and drawn.arrow_high
    assert drawn.low < drawn.point < drawn.high


@pytest.mark.parametrize("text", ["no_leak", "an objective of another version", ""])
def test_what_has_no_limit_has_no_picture(text: str) -> None:
    interval = {"low": 1.0, "estimate": 2.0, "high": 3.0}
    assert drawn_limit({"objective": text, "interval": interval}) is None
    assert drawn_limit({"objective": "peak_rss <= 1GiB", "interval": None}) is None


class Tags(HTMLParser):
    """All tags of a page with their attributes."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def test_there_is_no_script_and_no_address(record: str, hostile_page: str) -> None:
    for page in (record_page(record, NAME), hostile_page):
        tags = Tags(page).found
        assert {"script", "img", "iframe", "object", "base", "form"}.isdisjoint(t for t, _ in tags)
        attributes = [(name, value or "") for _, own in tags for name, value in own.items()]
        assert not [name for name, _ in attributes if name.startswith("on")]
        addresses = [value for name, value in attributes if name in ("href", "src")]
        assert len(addresses) > 5
        assert all(address.startswith(("#", "data:")) for address in addresses)
        assert ("content", POLICY) in attributes
        assert "url(" not in page and "@import" not in page


def test_hostile_names_do_nothing_in_a_browser(visit: Any, hostile_page: str) -> None:
    for width in (390, 1200):
        tab = visit(hostile_page, width=width)
        assert tab.evaluate("window.hit") is None
        scroll, window = tab.evaluate("[document.documentElement.scrollWidth, innerWidth]")
        assert scroll <= window
        assert HOSTILE in tab.locator("h1").inner_text()


def test_both_themes_a_phone_and_paper(visit: Any, record: str) -> None:
    plain = json.loads(record)
    plain["build"][0]["build_info"] = "service: go1.23.9"
    page = record_page(text_of(plain), NAME)
    behind = "getComputedStyle(document.body).backgroundColor"
    light, dark = visit(page, width=390), visit(page, scheme="dark")
    assert light.evaluate(behind) != dark.evaluate(behind)
    scroll, window = light.evaluate("[document.documentElement.scrollWidth, innerWidth]")
    assert scroll <= window
    assert light.locator(".limit").count() == 4
    told = light.locator("details pre").first
    assert not told.is_visible()
    light.emulate_media(media="print")
    assert told.is_visible(), "paper can't unfold anything"
    assert light.evaluate(behind) == "rgb(255, 255, 255)"

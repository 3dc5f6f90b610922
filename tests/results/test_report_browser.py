"""The page in a real browser: it draws, listens, asks nobody, and no name in it comes alive."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import reportpages
from archives import EPOCH_NS, MIB, pprof, reseal, write_archive, write_table
from reportpages import BREAKOUT, HOSTILE, chart_data

from results.report.page import render_report

archive, page, many, hostile = (
    reportpages.archive,
    reportpages.page,
    reportpages.many,
    reportpages.hostile,
)
browser, visit = reportpages.browser, reportpages.visit
"""Fixtures."""

MARKS = """() => Object.fromEntries([...document.querySelectorAll('[data-chart]')].map(
  (box) => [box.dataset.chart, box.querySelectorAll(
    '.mark-line path, .mark-rule line, .mark-rect path, .mark-symbol path').length]))"""
WIDTHS = "() => [document.documentElement.scrollWidth, window.innerWidth]"
BACKGROUND = "() => getComputedStyle(document.body).backgroundColor"


def test_every_chart_draws_and_toggles_work(visit: Any, page: str) -> None:
    tab = visit(page)
    before = tab.evaluate(MARKS)
    assert set(before) == set(chart_data(page))
    assert all(before.values()), before
    tab.locator("#toggles input").nth(1).focus()
    tab.keyboard.press("Space")
    hidden = "() => document.querySelector('[data-chart=heat-1-0]').offsetParent === null"
    tab.wait_for_function(hidden)
    tab.wait_for_function(f"() => ({MARKS})()['memory-0'] < {before['memory-0']}")
    assert tab.locator("#said").inner_text() == "shown: default"
    tab.keyboard.press("Space")
    tab.wait_for_function(f"() => ({MARKS})()['memory-0'] === {before['memory-0']}")


def test_zoom_by_button_moves_linked_charts(visit: Any, page: str) -> None:
    tab = visit(page)
    ticks = """(name) => [...document.querySelectorAll(`[data-chart=${name}] .role-axis-label`)]
        .map((one) => [...one.querySelectorAll('text')].map((t) => t.textContent).sort().join())
        .join()"""
    before = tab.evaluate(ticks, "gc-strip-0"), tab.evaluate(ticks, "latency-over-time-0")
    tab.locator("#memory-0 [data-zoom=in]").click()
    changed = f"(before) => ({ticks})('gc-strip-0') !== before"
    tab.wait_for_function(changed, arg=before[0])
    assert tab.evaluate(ticks, "latency-over-time-0") == before[1]
    tab.locator("#memory-0 [data-zoom=reset]").click()
    tab.wait_for_function(f"(before) => ({ticks})('gc-strip-0') === before", arg=before[0])


def test_a_line_under_the_pointer_tells_its_trial(visit: Any, page: str) -> None:
    tab = visit(page)
    tab.locator("[data-chart=memory-0] .mark-symbol path").nth(50).hover(force=True)
    tip = tab.locator("#vg-tooltip-element.visible")
    tip.wait_for()
    assert re.search(r"trial\s*b0\d-\d-\w+-steady", tip.inner_text())


def test_both_themes(visit: Any, page: str) -> None:
    light, dark = visit(page), visit(page, scheme="dark")
    assert light.evaluate(BACKGROUND) != dark.evaluate(BACKGROUND)
    light.locator("#theme").click()
    assert light.evaluate(BACKGROUND) == dark.evaluate(BACKGROUND)
    assert light.locator("#theme").get_attribute("aria-pressed") == "true"
    line = "() => getComputedStyle(document.querySelector('.mark-line path')).stroke"
    assert light.evaluate(line) == dark.evaluate(line)


def test_queries_can_be_copied_and_charts_saved(visit: Any, page: str) -> None:
    tab = visit(page)
    tab.locator("#memory-0 summary", has_text="SQL").click()
    button = tab.locator("#memory-0 [data-copy]").first
    button.click()
    said = "() => document.querySelector('#said').textContent"
    tab.wait_for_function(f"{said}.includes('copied')")
    with tab.expect_download() as found:
        tab.locator("#memory-0 [data-save]").click()
    text = Path(found.value.path()).read_text(encoding="utf-8")
    assert text.startswith("<svg") and "var(--" not in text


@pytest.mark.parametrize("width", [390, 768, 1200])
def test_the_page_never_scrolls_sideways(
    visit: Any, page: str, many: Path, hostile: Path, width: int
) -> None:
    for text in (page, render_report(many, "latest"), render_report(hostile, "latest")):
        scroll, window = visit(text, width=width).evaluate(WIDTHS)
        assert scroll <= window


def test_hostile_names_do_nothing_in_a_browser(visit: Any, hostile: Path) -> None:
    tab = visit(render_report(hostile, "latest"))
    tab.locator("[data-chart=memory-0] svg").hover()
    assert tab.evaluate("window.hit") is None
    assert all(tab.evaluate(MARKS).values())


KEPT = {("main.main", "net/http.(*conn).serve", "main.(*cache).put"): 90, ("main.main", "x"): 10}
SHOWN = "() => [...document.querySelectorAll('.frame')].filter((f) => !f.hidden).length"


@pytest.fixture(scope="module")
def profiled(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A page with profiles of two configurations; a function's name is an attack."""
    root = write_archive(
        tmp_path_factory.mktemp("profiled"), configurations={"default": {}, "other": {}}, blocks=1
    )
    row = {"time_ns": EPOCH_NS, "phase": "cooldown", "kind": "heap", "reason": "end", "took_ns": 1}
    for number, path in enumerate(sorted(root.glob("*/trials/*/profile_files.arrow")), 1):
        stacks = {calls: value * MIB // number for calls, value in KEPT.items()}
        content = pprof(stacks | {(HOSTILE, BREAKOUT): 10 * MIB})
        write_table(path, [row | {"resident_bytes": None, "content": content}])
        reseal(path.parent)
    return render_report(root, "latest")


def test_profiles_are_read_by_pointer_and_key(visit: Any, profiled: str) -> None:
    tab = visit(profiled)
    told = tab.locator(".flame-told")
    frame = tab.locator(".flame").nth(1).locator(".frame", has_text="main.(*cache).put")
    frame.hover()
    assert told.inner_text() == ("main.(*cache).put: 45.0 MiB, 45.0 MiB (50 %) less than default")
    assert tab.locator(".frame.same").count() == 2, "the same call in both pictures"
    everything = tab.evaluate(SHOWN)
    tab.locator(".flame").first.locator(".frame").first.focus()
    for key in ("ArrowDown", "ArrowRight", "ArrowDown", "Enter"):
        tab.keyboard.press(key)
    assert tab.evaluate("document.activeElement.textContent") == "http.(*conn).serve"
    assert tab.evaluate(SHOWN) < everything
    assert tab.locator(".frame[tabindex='0']").count() == 2, "one stop of Tab in each picture"
    tab.keyboard.press("Escape")
    assert tab.evaluate(SHOWN) == everything
    tab.locator("#toggles input").nth(1).focus()
    tab.keyboard.press("Space")
    assert tab.locator(".flame:visible").count() == 1
    assert tab.evaluate("window.hit") is None


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_words_stand_out_from_what_is_behind_them(visit: Any, page: str, scheme: str) -> None:
    """WCAG 2.2: 4.5 to 1 for text, 3 to 1 for what a chart draws."""
    tab = visit(page, scheme=scheme)
    colours = tab.evaluate(
        """(names) => Object.fromEntries(names.map((name) => [name,
          getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim()]))""",
        [*TEXT, *DRAWN, *BEHIND],
    )
    for name in (*TEXT, *DRAWN):
        for behind in BEHIND:
            wanted = 4.5 if name in TEXT else 3.0
            assert contrast(colours[name], colours[behind]) >= wanted, (name, behind)


TEXT = ("fg", "muted", "accent", "better", "worse", "equivalent", "none", "open", "invalid")
DRAWN = tuple(f"c{i}" for i in range(8))
BEHIND = ("card", "bg", "band")


def contrast(first: str, second: str) -> float:
    """https://www.w3.org/TR/WCAG22/#dfn-contrast-ratio"""
    high, low = sorted((luminance(first), luminance(second)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def luminance(colour: str) -> float:
    digits = colour.removeprefix("#")
    whole = digits if len(digits) == 6 else "".join(digit * 2 for digit in digits)
    parts = (int(whole[i : i + 2], 16) / 255 for i in (0, 2, 4))
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return sum(weight * c for weight, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def test_each_control_and_picture_has_a_name(visit: Any, page: str) -> None:
    tab = visit(page)
    nameless = """() => [...document.querySelectorAll('button, input, svg[role], [role=tree]')]
      .filter((one) => !one.closest('[aria-hidden=true]') && !(one.getAttribute('aria-label') ||
        one.textContent.trim() || one.labels?.[0]?.textContent.trim())).map((o) => o.outerHTML)"""
    assert tab.evaluate(nameless) == []
    tab.keyboard.press("Tab")
    assert tab.evaluate("document.activeElement.textContent") == "Skip to the verdict"


def test_print_unfolds_tables(visit: Any, page: str) -> None:
    tab = visit(page)
    folded = "document.querySelectorAll('details:not([open]):has(table)').length"
    before = tab.evaluate(folded)
    assert before
    tab.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert tab.evaluate(folded) == 0
    tab.evaluate("dispatchEvent(new Event('afterprint'))")
    assert tab.evaluate(folded) == before

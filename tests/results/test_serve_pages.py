"""bench serve in a real browser: every page, three ways to look at it, and nothing gets out."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import reportpages
from archives import MIB, RUN_ID, reseal, write_archive
from served import Served, change_run, serving

OTHER = "20260922-101112-beef"
TRIAL = "b01-1-default-steady"
PAIR = {"default": {"peak_rss_bytes": 400 * MIB}, "optimised": {"peak_rss_bytes": 200 * MIB}}
HOSTILE = "<img src=x onerror=window.hit=1>"
BREAKOUT = "</script></code><script>window.hit=1</script><!-- &amp; {{ 7 * 7 }} \u2028"
LOOKS = {"light": (1200, "light"), "dark": (1200, "dark"), "phone": (390, "light")}
PAGES = ("/", f"/runs/{RUN_ID}", f"/runs/{RUN_ID}/trials", f"/runs/{RUN_ID}/trials/{TRIAL}",
         f"/runs/{RUN_ID}/live", f"/compare?run={RUN_ID}&run={OTHER}", "/sql")  # fmt: skip
NAMELESS = """() => [...document.querySelectorAll('input, select, textarea, button, a, iframe')]
  .filter((one) => !(one.labels && one.labels[0] && one.labels[0].textContent.trim())
    && !one.textContent.trim() && !one.getAttribute('aria-label') && !one.title)
  .map((one) => one.outerHTML)"""


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("seen") / "archive"
    write_archive(root, configurations=PAIR, repeated={"b02-1-default-steady"})
    write_archive(root, configurations=PAIR, run_id=OTHER)
    return root


@pytest.fixture(scope="module")
def server(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving(archive, tmp_path_factory.mktemp("tmp")) as served:
        yield served


browser = reportpages.browser


class Visitor:
    """A tab that was opened with the printed address; it notes every complaint and request."""

    def __init__(self, browser: Any, served: Served, look: str) -> None:
        width, scheme = LOOKS[look]
        self.served = served
        self.complaints: list[str] = []
        self.context = browser.new_context(
            viewport={"width": width, "height": 850}, color_scheme=scheme
        )
        self.context.set_default_timeout(120_000)
        self.tab = self.context.new_page()
        self.tab.on("console", lambda m: self.complaints.append(f"{m.type}: {m.text}"))
        self.tab.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.context.on("request", self._request)
        self.tab.goto(served.url)

    def _request(self, request: Any) -> None:
        if not request.url.startswith((f"{self.served.base}/", "data:", "blob:null/")):
            self.complaints.append(f"request: {request.url}")

    def goto(self, path: str) -> Any:
        # Not the report's own load: it is waited for below.
        self.tab.goto(self.served.base + path, wait_until="domcontentloaded")
        if self.tab.locator("iframe").count():
            self.report.locator("html[data-charts=ready]").wait_for()
        return self.tab

    @property
    def report(self) -> Any:
        return self.tab.frame_locator("iframe")


@pytest.fixture
def visit(browser: Any) -> Iterator[Any]:
    """Open a server in a tab; at the end nothing had gone wrong."""
    visitors: list[Visitor] = []

    def opened(served: Served, look: str = "light") -> Visitor:
        visitors.append(Visitor(browser, served, look))
        return visitors[-1]

    yield opened
    for visitor in visitors:
        visitor.context.close()
    assert [text for visitor in visitors for text in visitor.complaints] == []


@pytest.mark.parametrize("look", LOOKS)
def test_every_page_fits_and_every_control_has_a_name(
    visit: Any, server: Served, look: str
) -> None:
    visitor = visit(server, look)
    assert visitor.tab.url == f"{server.base}/", "the token is not in the address any more"
    for path in PAGES:
        tab = visitor.goto(path)
        wide = tab.evaluate("() => document.documentElement.scrollWidth - window.innerWidth")
        assert wide <= 0, path
        assert tab.evaluate(NAMELESS) == [], path
        assert tab.locator("h1, iframe").count() == 1, path


def test_light_and_dark_are_those_of_the_report(visit: Any, server: Served) -> None:
    colour = "() => getComputedStyle(document.body).backgroundColor"
    seen = {}
    for look in ("light", "dark"):
        visitor = visit(server, look)
        tab = visitor.goto(f"/runs/{RUN_ID}")
        seen[look] = tab.evaluate(colour)
        assert tab.frames[1].evaluate(colour) == seen[look]
    assert seen["light"] != seen["dark"]


def test_the_report_draws_and_can_not_use_the_session(visit: Any, server: Served) -> None:
    visitor = visit(server)
    visitor.goto(f"/runs/{RUN_ID}")
    frame = visitor.tab.frames[1]
    assert frame.evaluate("() => document.querySelectorAll('[data-chart] svg').length") > 4
    assert frame.evaluate("() => window.origin") == "null"
    tried = frame.evaluate(
        """() => {
          const tried = {};
          try { tried.cookie = document.cookie; } catch (error) { tried.cookie = error.name; }
          try { tried.parent = parent.document.title; } catch (error) { tried.parent = error.name; }
          return tried; }"""
    )
    assert tried == {"cookie": "SecurityError", "parent": "SecurityError"}
    fetched = frame.evaluate("() => fetch('/').then(() => 'answered', () => 'refused')")
    assert fetched == "refused"
    refused = [text for text in visitor.complaints if "Content Security Policy" in text]
    assert refused
    visitor.complaints.clear()
    with visitor.tab.expect_download() as download:
        visitor.report.locator("[data-save]").first.click()
    assert download.value.suggested_filename.endswith(".svg")


def test_the_cookie_is_nothing_to_scripts(visit: Any, server: Served) -> None:
    visitor = visit(server)
    assert visitor.tab.evaluate("() => document.cookie") == ""


def test_runs_are_chosen_and_compared(visit: Any, server: Served) -> None:
    visitor = visit(server)
    button = visitor.tab.locator("[data-compare]")
    assert button.is_disabled()
    for run_id in (RUN_ID, OTHER):
        visitor.tab.get_by_label(f"choose {run_id}").check()
    assert button.inner_text() == "Compare 2 runs"
    button.click()
    visitor.tab.wait_for_url("**/compare?*")
    assert "12 of 12 blocks" in visitor.tab.inner_text("main")


def test_sql_is_asked_by_keyboard_and_saved(visit: Any, server: Served) -> None:
    visitor = visit(server)
    visitor.goto("/sql")
    visitor.tab.fill("#query", "select 'a' as word, 42 as n")
    visitor.tab.keyboard.press("Control+Enter")
    visitor.tab.wait_for_selector("#answer")
    assert visitor.tab.inner_text("#answer td.number") == "42"
    assert visitor.tab.input_value("#query") == "select 'a' as word, 42 as n"
    with visitor.tab.expect_download() as download:
        visitor.tab.get_by_role("button", name="CSV").click()
    assert Path(download.value.path()).read_text() == "word,n\na,42\n"


def test_nothing_that_a_service_says_is_ever_run(visit: Any, tmp_path: Path) -> None:
    archive = hostile(tmp_path / "archive")
    with serving(archive, tmp_path / "tmp") as served:
        visitor = visit(served)
        trial = f"/runs/{RUN_ID}/trials/{TRIAL}"
        for path in ("/", f"/?q={HOSTILE}", f"/runs/{RUN_ID}", f"/runs/{RUN_ID}/trials", trial,
                     f"/runs/{RUN_ID}/live", f"/compare?run={RUN_ID}"):  # fmt: skip
            tab = visitor.goto(path)
            assert_inert(tab)
            if path == trial:
                assert BREAKOUT in tab.text_content("body")
                assert "\\x1b[31mred" in tab.inner_text(".log")
        visitor.goto("/sql")
        sql = f"select '{HOSTILE}' as \"{HOSTILE}\", '{BREAKOUT}', text from validity"
        visitor.tab.fill("#query", sql)
        visitor.tab.click("button.primary")
        visitor.tab.wait_for_selector("#answer, .wrong")
        assert visitor.tab.locator(".wrong").all_inner_texts() == []
        assert_inert(visitor.tab)
        assert HOSTILE in visitor.tab.inner_text("#answer thead")


def assert_inert(tab: Any) -> None:
    for frame in tab.frames:
        assert frame.evaluate("() => window.hit") is None
        assert frame.locator("img").count() == 0


def hostile(root: Path) -> Path:
    """An archive in which all that a service or a user can name is an attack."""
    write_archive(root, configurations={"default": {}, HOSTILE.replace("/", ""): {"failed": 3}})
    change_run(root, RUN_ID, service=BREAKOUT, matrix_path=HOSTILE)
    for path in root.glob(f"{RUN_ID}/trials/*/trial.json"):
        record = json.loads(path.read_text())
        record["exit"] |= {"cause": "crashed", "text": BREAKOUT}
        record |= {"node": {"kernel": BREAKOUT, HOSTILE: HOSTILE}, "versions": {HOSTILE: BREAKOUT}}
        record["spec"]["service"]["environment"] = [["EVIL", BREAKOUT]]
        record["findings"] = [
            {"code": "x", "level": "warning", "text": BREAKOUT, "remedy": HOSTILE}
        ]
        path.write_text(json.dumps(record))
        path.with_name("service.log").write_text(f"{BREAKOUT}\n{HOSTILE}\n\x1b[31mred\n")
        reseal(path.parent)
    return root

"""Archives and pages that several tests of the report look at, and a browser to look with."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from archives import MIB, RUN_ID, reseal, write_archive

from results.files import RUN_FILES, write_sums
from results.report.page import render_report

DRIFT = (1.0, 1.02, 0.99, 1.01, 0.98, 1.03)
PAIR = {
    "default": {"peak_rss_bytes": 400 * MIB, "gc_cycles": 5, "factors": DRIFT},
    "optimised": {
        "peak_rss_bytes": 200 * MIB,
        "gc_cycles": 40,
        "latency_ns": 4_000_000,
        "latency_step_ns": 4_000,
        "factors": DRIFT[::-1],
    },
}
HOSTILE = "<img src=x onerror=window.hit=1>"
BREAKOUT = "</script><script>window.hit=1</script><!-- &amp; {{ 7 * 7 }} \u2028"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


def chart_data(page: str) -> dict[str, Any]:
    text = re.search(r'<script type="application/json" id="charts">(.*?)</script>', page, re.S)
    assert text
    return json.loads(text[1])


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_archive(
        tmp_path_factory.mktemp("pair"),
        configurations=PAIR,
        repeated={"b02-1-default-steady"},
        comparison={"margins": {"throughput": 0.02}},
    )


@pytest.fixture(scope="module")
def page(archive: Path) -> str:
    return render_report(archive, "latest")


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_archive(
        tmp_path_factory.mktemp("many"),
        configurations=PAIR | {"stripped": {"peak_rss_bytes": 390 * MIB, "binary_bytes": 5 * MIB}},
        workloads=("steady", "burst"),
        blocks=2,
    )


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An archive in which everything that a service or a user can name is an attack."""
    root = write_archive(
        tmp_path_factory.mktemp("hostile"),
        configurations={"default": {"factors": DRIFT}, HOSTILE: {"failed": 3}, "a'\"`]]>": {}},
        invalid={"b01-1-default-steady"},
    )
    folder = root / RUN_ID
    (folder / "matrix.yaml").write_text(f"# {BREAKOUT}\n")
    document = json.loads((folder / "run.json").read_text())
    document |= {"service": BREAKOUT, "matrix_path": BREAKOUT}
    for build in document["builds"].values():
        build |= {"build_info": BREAKOUT, "go_version": HOSTILE, "build_flags": [BREAKOUT]}
    (folder / "run.json").write_text(json.dumps(document))
    for path in folder.glob("trials/*/trial.json"):
        record = json.loads(path.read_text())
        record["exit"] |= {"cause": "crashed", "text": BREAKOUT}
        record |= {"node": {"kernel": BREAKOUT, HOSTILE: HOSTILE}, "versions": {HOSTILE: BREAKOUT}}
        record["spec"]["service"]["environment"] = [["EVIL", BREAKOUT], ["GOMEMLIMIT", "200MiB"]]
        record["spec"]["load"]["scenario"] = BREAKOUT
        record["node_class"] = HOSTILE
        record["findings"].append(
            {"code": "x", "level": "warning", "text": BREAKOUT, "remedy": HOSTILE}
        )
        record["limits"] = [
            {
                "name": "memory_max_bytes", "asked": 2.0e8, "read_back": None, "enforced": False,
                "mechanism": HOSTILE, "reason": BREAKOUT,
            }
        ]  # fmt: skip
        path.write_text(json.dumps(record))
        reseal(path.parent)
    write_sums(folder, RUN_FILES)
    return root


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if not CHROMIUM:
        pytest.skip("no chromium here: apt-get install chromium")
    playwright = pytest.importorskip("playwright.sync_api", reason="no playwright here")
    with playwright.sync_playwright() as started:
        running = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield running
        running.close()


@pytest.fixture
def visit(browser: Any, tmp_path: Path) -> Iterator[Any]:
    """Open a page from disk; at the end there was no error and no request."""
    contexts = []
    complaints: list[str] = []

    def open_page(text: str, *, width: int = 1200, scheme: str = "light") -> Any:
        file = tmp_path / f"page-{len(contexts)}.html"
        file.write_text(text, encoding="utf-8")
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        contexts.append(context)
        tab = context.new_page()
        tab.on("console", lambda message: complaints.append(f"{message.type}: {message.text}"))
        tab.on("pageerror", lambda error: complaints.append(str(error)))
        tab.on(
            "request",
            lambda request: (
                None
                if request.url == file.as_uri() or request.url.startswith("data:")
                else complaints.append(f"request: {request.url}")
            ),
        )
        tab.goto(file.as_uri())
        tab.wait_for_selector("html[data-charts=ready], html:not(:has(#charts))")
        return tab

    yield open_page
    for context in contexts:
        context.close()
    assert complaints == []

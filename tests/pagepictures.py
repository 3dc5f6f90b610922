"""The pictures of a report in docs/: python -m tests.pagepictures ARCHIVE [RUN]."""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

from results.report.page import render_report

DOCS = Path(__file__).resolve().parents[1] / "docs"
PICTURES = {
    "report-light.png": {"width": 1280, "height": 1500, "scheme": "light", "scale": 1},
    "report-dark.png": {"width": 1280, "height": 1500, "scheme": "dark", "scale": 1},
    "report-phone.png": {"width": 390, "height": 1400, "scheme": "light", "scale": 2},
}


def main(archive: Path, run_name: str) -> None:
    """Open the page in chromium and take what is on top of it."""
    from playwright.sync_api import sync_playwright

    with tempfile.TemporaryDirectory() as folder, sync_playwright() as started:
        page = Path(folder) / "report.html"
        page.write_text(render_report(archive, run_name), encoding="utf-8")
        browser = started.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        for name, look in PICTURES.items():
            context = browser.new_context(
                viewport={"width": look["width"], "height": look["height"]},
                color_scheme=look["scheme"],
                device_scale_factor=look["scale"],
            )
            tab = context.new_page()
            tab.goto(page.as_uri())
            tab.wait_for_selector("html[data-charts=ready]")
            tab.screenshot(path=DOCS / name)
            context.close()
        browser.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]), (sys.argv[2:] or ["latest"])[0])

"""A report shows where its run stands among the other runs of its service."""

from __future__ import annotations

from pathlib import Path

import pytest
from histories import clone
from reportpages import chart_data

from results.report import course
from results.report.page import render_report

LEVELS_MIB = (60, 61, 60, 75, 76, 75)


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("runs")
    for number, level in enumerate(LEVELS_MIB, 1):
        commit = "a" if level < 70 else "b"
        clone(root, number, [level, level + 0.5], commit=commit * 40)
    return root


def test_the_course_of_what_decides_is_drawn_with_this_run_marked(archive: Path) -> None:
    page = render_report(archive, "20261202")
    assert '<h2 id="history-title">History</h2>' in page
    charts = chart_data(page)
    runs = charts["course-peak-rss-0"]["tables"]["runs"]
    words = runs["configuration"]["words"]
    own = [n for n, code in enumerate(runs["configuration"]["codes"]) if words[code] == "default"]
    assert [round(runs["value"][n]) for n in own] == [60, 61, 60, 75, 76, 75]
    assert [runs["place"][n] for n in own if runs["this"][n]] == [2]
    shifts = charts["course-peak-rss-0"]["tables"]["shifts"]
    assert shifts["place"] == [3.5]
    assert shifts["verdict"]["words"] == ["worse"]
    assert {"course-gc-cpu-share-0", "course-throughput-0"} <= charts.keys()


def test_what_differs_where_it_shifted_is_in_the_table(archive: Path) -> None:
    page = render_report(archive, "latest")
    assert "commit aaaaaaaaaa → bbbbbbbbbb" in page
    assert page == render_report(archive, "latest")


def test_the_only_run_of_a_service_has_no_history(tmp_path: Path) -> None:
    clone(tmp_path, 1, [60, 61])
    clone(tmp_path, 2, [60, 61], service="another")
    assert "history-title" not in render_report(tmp_path, "20261201")


def test_more_rows_than_a_page_waits_for_are_told_instead(
    archive: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(course, "BYTES_MAX", 1)
    page = render_report(archive, "latest")
    assert "The archive has 6 runs of sessioncache" in page
    assert "course-peak-rss-0" not in chart_data(page)

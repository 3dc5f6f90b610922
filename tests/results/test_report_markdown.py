"""The report as a comment on a pull request: short, folded, and names are only text."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from archives import MIB, write_archive
from hypothesis import given
from hypothesis import strategies as st

from results.markdown import markdown_text
from results.report.markdown import LETTERS_MAX, markdown_report
from results.report.page import render_report
from results.sql.database import open_database

PAIR = {"default": {"peak_rss_bytes": 400 * MIB}, "optimised": {"peak_rss_bytes": 200 * MIB}}


def test_the_verdict_comes_first_and_the_rest_is_folded(tmp_path: Path) -> None:
    root = write_archive(tmp_path, configurations=PAIR, invalid={"b01-1-default-steady"}, blocks=8)
    text = render_report(root, "latest", "md")
    head, folded = text.split("<details>", 1)
    assert head.startswith("### sessioncache\n\n**optimised needs 50 % less peak memory")
    assert "> ⚠ 1 trial is invalid and not counted" in head
    rows = [line for line in head.splitlines() if line.startswith("| ")]
    assert rows[1].startswith("| **peak RSS** | 400.0 MiB | 200.0 MiB | -50.0 % |")
    assert rows[1].endswith("| **better** |")
    assert all(line.count(" | ") == 5 for line in rows)
    assert "binary size" in folded and "too late" in folded
    assert folded.count("</details>") == 2


def test_what_others_wrote_is_only_text(tmp_path: Path) -> None:
    name = "a|b`<img src=x>@team\n# *x* [y](http:z)"
    root = write_archive(tmp_path, configurations={"default": {}, name: {}})
    text = render_report(root, "latest", "md")
    assert "<img" not in text and "@team" not in text and "\n# " not in text
    tables = [line for line in text.splitlines() if line.startswith("|")]
    assert {len(re.split(r"(?<!\\)\|", line)) for line in tables} == {8}, "a pipe splits no cell"


@given(st.text())
def test_escaped_text_is_one_line_without_tags_or_mentions(text: str) -> None:
    shown = markdown_text(text)
    assert "\n" not in shown and "\r" not in shown
    assert not re.search(r"[<>@]", shown)
    assert not re.search(r"(?<!\\)(\\\\)*[`|*]", shown)
    assert not re.search(r"https?://", shown, re.IGNORECASE)


def test_a_comment_can_hold_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run with more tables than a comment holds is cut at a fold, and it says so."""
    root = write_archive(tmp_path, configurations=PAIR, blocks=1)
    with open_database(root) as database:
        comparison = database.comparison()
    assert len(markdown_report(comparison)) < LETTERS_MAX
    monkeypatch.setattr("results.report.markdown.LETTERS_MAX", 1_500)
    text = markdown_report(comparison)
    assert len(text) < 1_500
    assert "more than a comment holds" in text
    assert text.count("<details>") == text.count("</details>")

"""The report as a picture: valid, self-contained, the same bytes again, and text stays text."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from archives import MIB, write_archive

from results.errors import UserError
from results.report.colours import coloured, light_colours, mixed
from results.report.images import render_image

SVG = "{http://www.w3.org/2000/svg}"
PAIR = {
    "default": {"peak_rss_bytes": 400 * MIB},
    "<b>&\"'\x07]]>\n🦊": {"peak_rss_bytes": 200 * MIB},
}


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_archive(tmp_path_factory.mktemp("images"), configurations=PAIR)


@pytest.fixture(scope="module")
def svg(archive: Path) -> str:
    return render_image(archive, "latest", "svg").decode()


def test_it_is_well_formed_and_tells_verdict_table_and_memory(svg: str) -> None:
    root = ElementTree.fromstring(svg)
    texts = ["".join(text.itertext()) for text in root.iter(f"{SVG}text")]
    whole = "\n".join(texts)
    assert "needs 50 % less peak memory" in whole.replace("\N{NO-BREAK SPACE}", " ")
    assert "● peak RSS" in texts
    assert "−50.0 %" in texts
    assert "Memory over time" in texts
    assert "resident memory, MiB" in whole
    assert not [tag for tag in root.iter() if tag.tag in ("b", f"{SVG}b", f"{SVG}script")]


def test_it_needs_nothing_from_elsewhere(svg: str) -> None:
    assert "var(" not in svg
    addresses = set(re.findall(r"https?://[^\"'\s<]+", svg))
    assert addresses <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}
    ids = re.findall(r'\bid="([^"]+)"', svg)
    assert len(ids) == len(set(ids)), "charts beside each other have no id in common"
    assert set(re.findall(r"url\(#([^)]+)\)", svg)) <= set(ids)


@pytest.mark.parametrize("form", ["svg", "png"])
def test_the_same_archive_makes_the_same_bytes(archive: Path, form: str) -> None:
    first, second = (render_image(archive, "latest", form, "memory") for _ in range(2))
    assert first == second
    assert first.startswith(b"\x89PNG" if form == "png" else b"<svg")


def test_one_figure_may_be_chosen_and_a_wrong_name_is_answered_with_the_right_ones(
    archive: Path,
) -> None:
    text = render_image(archive, "latest", "svg", "percentiles").decode()
    assert "Latency by percentile" in text
    assert "Memory over time" not in text
    with pytest.raises(
        UserError, match=r"no figure 'heap'.*comparison, memory, gc-cycles, per.*profile-heap"
    ):
        render_image(archive, "latest", "svg", "heap")


@pytest.mark.parametrize(
    "fields",
    [
        {"blocks": 1, "missing": {"b01-1-default-steady"}, "configurations": {"default": {}}},
        {"blocks": 1, "configurations": {"default": {}}},
        {"blocks": 2, "configurations": {f"c{i}": {} for i in range(4)}},
    ],
)
def test_a_run_of_any_size_has_a_picture(tmp_path: Path, fields: dict[str, Any]) -> None:
    root = write_archive(tmp_path, **fields)
    ElementTree.fromstring(render_image(root, "latest", "svg"))


def test_profiles_are_pictures_too(archive: Path) -> None:
    text = render_image(archive, "latest", "svg", "profile-heap").decode()
    ElementTree.fromstring(text)
    assert "What the heap holds" in text
    assert text.count("main.keep") == 2, "one frame for each configuration"


def test_colours_are_those_of_the_page() -> None:
    assert coloured({"a": ["var(--c1)", 3]}) == {"a": [light_colours()["--c1"], 3]}
    assert mixed("#ff0000", 0.5, "#fff") == "#ff8080"


def test_the_command_takes_the_form_from_the_file_s_name(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from typer.testing import CliRunner

    from orchestrator.cli import app

    monkeypatch.chdir(tmp_path)
    run = CliRunner().invoke
    done = run(app, ["report", "-a", str(archive), "-o", "memory.svg", "--figure", "memory"])
    assert done.exit_code == 0, done.output
    assert (tmp_path / "memory.svg").read_bytes() == render_image(
        archive, "latest", "svg", "memory"
    )
    done = run(app, ["report", "-a", str(archive), "--format", "svg", "-o", "-"])
    assert done.stdout_bytes.startswith(b"<svg")
    refused = run(app, ["report", "-a", str(archive), "--figure", "memory", "--format", "md"])
    assert isinstance(refused.exception, UserError)

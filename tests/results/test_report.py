"""The report page: it says what the comparison says, shows every peak, lets nothing in or out."""

from __future__ import annotations

import html
import json
import math
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from string import Template
from typing import Any

import pyarrow as pa
import pytest
import reportpages
from archives import MIB, MIXED, RUN_ID, write_archive
from hypothesis import given, settings
from hypothesis import strategies as st
from reportpages import BREAKOUT, DRIFT, HOSTILE, PAIR, chart_data

from results.archive.archive import Archive
from results.archive.fragments import read_trials
from results.comparing.compare import Comparison
from results.errors import UserError
from results.report import verdict
from results.report.data import QUERIES, query_text
from results.report.forest import HEIGHT, WIDTH, forest_table, mark_of
from results.report.page import render_report
from results.sql.database import Database, open_database

archive, page, many, hostile = (
    reportpages.archive,
    reportpages.page,
    reportpages.many,
    reportpages.hostile,
)
"""Fixtures."""

VOID = {"meta", "link", "input", "br", "hr", "img"}


def compared(folder: Path) -> Comparison:
    with open_database(folder, ["latest"]) as database:
        return database.comparison()


def comparison_of(tmp_path: Path, **fields: Any) -> Comparison:
    return compared(write_archive(tmp_path, **fields))


class Reader(HTMLParser):
    """Tags in order; complains about one that is not closed as it was opened."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.open: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> closes something else"

    def handle_data(self, data: str) -> None:
        self.text.append(data)


# The sentence


def test_a_decided_comparison_is_one_sentence_with_prize_and_price(archive: Path) -> None:
    text = verdict.lead(compared(archive))
    assert text.startswith("optimised needs 50 % less peak memory than default (95 % interval 4")
    assert "and pays" in text
    assert "4.0 times the p99 latency" in text
    assert "more GC CPU" in text or "times the GC CPU" in text
    assert "throughput" not in text, "equal within its margin is neither prize nor price"


def test_too_few_blocks_decide_nothing_and_say_how_many_would(tmp_path: Path) -> None:
    text = verdict.lead(comparison_of(tmp_path, configurations=PAIR, blocks=2))
    assert text == (
        "Nothing is decided yet: optimised and default have 2 blocks in common, a verdict needs 6; "
        "so far: optimised needs 50 % less peak memory than default."
    )


def test_one_open_figure_does_not_hide_what_is_decided(tmp_path: Path) -> None:
    primary = {"primary": ["peak_rss", "throughput"]}
    comparison = comparison_of(tmp_path, configurations=PAIR, blocks=8, comparison=primary)
    (table,) = comparison.tables
    rows = [
        replace(row, verdict="needs 9 blocks") if row.metric.name == "throughput" else row
        for row in table.rows
    ]
    text = verdict.sentence(comparison, replace(table, rows=tuple(rows)))
    assert text.startswith("optimised needs 50 % less peak memory than default (95 % interval 4")
    assert "throughput than default so far, which decides nothing: a verdict needs 9 blocks" in text
    assert "and pays" in text


def test_blocks_in_common_are_those_of_what_decides(tmp_path: Path) -> None:
    comparison = comparison_of(tmp_path, configurations=PAIR, blocks=8)
    (table,) = comparison.tables
    rows = [
        replace(row, verdict="needs 6 blocks", pairs=3) if row.primary else row
        for row in table.rows
    ]
    text = verdict.sentence(comparison, replace(table, rows=tuple(rows)))
    assert "have 3 blocks in common, a verdict needs 6" in text


def test_figures_of_several_systems_are_called_what_they_have_in_common(tmp_path: Path) -> None:
    small = {"peak_cgroup_bytes": 100 * MIB, "peak_job_bytes": 100 * MIB}
    comparison = comparison_of(
        tmp_path,
        configurations={"default": {"factors": DRIFT}, "small": {"factors": DRIFT} | small},
        blocks=8, groups=MIXED, comparison={"primary": ["peak_cgroup"]},
    )  # fmt: skip
    text = verdict.lead(comparison)
    assert text.endswith("of 2 comparisons, 2 show better peak memory under the limit.")


def test_a_configuration_that_vanished_is_a_doubt(tmp_path: Path) -> None:
    gone = [f"b{block:02}-3-tuned-steady" for block in range(1, 7)]
    comparison = comparison_of(tmp_path, configurations=PAIR | {"tuned": {}}, missing=gone)
    assert verdict.doubts(comparison) == [
        "not compared: tuned under steady on linux-test has no valid trial"
    ]


def test_no_difference_is_not_told_as_one(tmp_path: Path) -> None:
    same = {"default": {"factors": DRIFT}, "optimised": {"factors": DRIFT[::-1]}}
    text = verdict.lead(comparison_of(tmp_path, configurations=same))
    assert text.startswith("No difference in peak memory between optimised and default is shown (9")
    assert "−" in text and "+" in text, "an interval around zero has signs"


def test_equivalence_names_its_margin(tmp_path: Path) -> None:
    same = {"default": {}, "optimised": {"peak_rss_bytes": 200 * MIB + 1000}}
    fields = {"margins": {"peak_rss": 0.05}}
    text = verdict.lead(comparison_of(tmp_path, configurations=same, comparison=fields))
    assert text == "optimised and default have the same peak memory within ±5 %."


def test_more_memory_is_told_as_more(tmp_path: Path) -> None:
    worse = {"default": {"factors": DRIFT}, "other": {"peak_rss_bytes": 700 * MIB}}
    text = verdict.lead(comparison_of(tmp_path, configurations=worse))
    assert text.startswith("other needs 3.5 times the peak memory of default (95 % interval 3.4 to")


def test_a_price_of_next_to_nothing_is_not_in_the_sentence(tmp_path: Path) -> None:
    slower = {"latency_ns": 1_001_000, "peak_rss_bytes": 100 * MIB}
    text = verdict.lead(comparison_of(tmp_path, configurations={"default": {}, "other": slower}))
    assert text == "other needs 50 % less peak memory than default (95 % interval 50 % to 50 %)."


def test_without_valid_trials_nothing_can_be_said(tmp_path: Path) -> None:
    ids = {f"b0{b}-{p}-{n}-steady" for b in (1, 2) for p, n in ((1, "default"), (2, "optimised"))}
    comparison = comparison_of(tmp_path, configurations=PAIR, blocks=2, invalid=ids)
    assert verdict.lead(comparison) == (
        "Nothing can be said: no configuration has valid trials to compare; 4 trials are invalid."
    )
    assert verdict.doubts(comparison) == ["4 trials are invalid and not counted"]


def test_several_configurations_are_summed_up(tmp_path: Path) -> None:
    others = {"a": {"peak_rss_bytes": 100 * MIB}, "b": {"peak_rss_bytes": 150 * MIB}}
    base = {"default": {"peak_rss_bytes": 400 * MIB, "factors": DRIFT}}
    comparison = comparison_of(tmp_path, configurations=base | others, blocks=8)
    text = verdict.lead(comparison)
    assert text.startswith("a needs 75 % less peak memory than default")
    assert text.endswith("of 2 comparisons, 2 show better peak memory.")


# The table


@pytest.mark.parametrize(
    ("word", "want"),
    [
        ("better", "better"),
        ("worse", "worse"),
        ("no difference shown", "none"),
        ("equivalent (±2 %)", "equivalent"),
        ("invalid (no valid pair)", "invalid"),
        ("needs 6 blocks", "open"),
        ("n/a (no GC trace)", "open"),
    ],
)
def test_each_verdict_has_its_own_mark(word: str, want: str) -> None:
    assert mark_of(word) == want


def test_intervals_stay_inside_their_picture(archive: Path) -> None:
    (table,) = compared(archive).tables
    made = forest_table(table)
    rows = [row for _, rows in made.groups for row in rows]
    assert len(rows) == len(table.rows), "every metric of the comparison is shown"
    for row in rows:
        if row.drawn:
            assert 0 <= row.drawn.low <= row.drawn.point <= row.drawn.high <= WIDTH
    places = [x for x, _ in made.ticks]
    assert places == sorted(places)
    assert WIDTH / 2 in places, "no change is in the middle"
    assert HEIGHT < WIDTH


def test_a_bound_that_does_not_exist_ends_in_an_arrow(tmp_path: Path) -> None:
    (table,) = comparison_of(tmp_path, configurations=PAIR, blocks=2).tables
    rows = [row for _, rows in forest_table(table).groups for row in rows]
    peak = next(row for row in rows if row.label == "peak RSS")
    assert peak.drawn and peak.drawn.arrow_low and peak.drawn.arrow_high
    assert peak.interval == "–"


# The data


@given(
    series=st.lists(
        st.lists(st.integers(1, 2**40), min_size=1, max_size=120), min_size=1, max_size=3
    ),
    slices=st.integers(1, 50),
)
@settings(max_examples=40)
def test_decimation_keeps_every_peak(memory_of: Any, series: list[list[int]], slices: int) -> None:
    """Of each trial the least and greatest sample of any slice, so also of the whole trial."""
    kept = memory_of(series, slices)
    assert sum(map(len, kept.values())) <= 2 * (slices + 1) * len(series)
    for number, values in enumerate(series):
        mine = kept[number]
        assert max(mine.values()) == max(values)
        assert min(mine.values()) == min(values)
        assert all(values[int(second)] == value for second, value in mine.items()), "real samples"
    whole_s = max(map(len, series)) - 1
    for number, values in enumerate(series):
        cut: dict[int, list[int]] = {}
        for second, value in enumerate(values):
            cut.setdefault(math.floor(second / max(whole_s, 1e-9) * slices), []).append(value)
        for inside in cut.values():
            assert {max(inside), min(inside)} <= set(kept[number].values())


@pytest.fixture(scope="module")
def memory_of(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Run the page's own query over given samples, one a second from the start of measure."""
    root = write_archive(tmp_path_factory.mktemp("three"), configurations=PAIR, blocks=2)
    found = Archive(root)
    trials = read_trials(found, found.runs())
    records = trials.records[:3]

    def run(series: list[list[int]], slices: int) -> dict[int, dict[float, int]]:
        rows: dict[str, list[Any]] = {
            "trial_id": [],
            "time_ns": [],
            "rss_bytes": [],
            "working_set_bytes": [],
        }
        for record, values in zip(records, series, strict=False):
            start = next(span.start_ns for span in record.phases if span.name == "measure")
            rows["trial_id"] += [record.trial_id] * len(values)
            rows["time_ns"] += [start + i * 10**9 for i in range(len(values))]
            rows["rss_bytes"] += values
            rows["working_set_bytes"] += [None] * len(values)
        size = len(rows["time_ns"])
        more = {"run_id": [RUN_ID] * size, "phase": ["measure"] * size}
        own = pa.table(rows | more)
        schema = trials.tables["memory"].schema
        columns = [
            own[name].cast(schema.field(name).type)
            if name in own.column_names and not pa.types.is_dictionary(schema.field(name).type)
            else own[name].combine_chunks().dictionary_encode().cast(schema.field(name).type)
            if name in own.column_names
            else pa.nulls(size, schema.field(name).type)
            for name in schema.names
        ]
        memory = pa.Table.from_arrays(columns, names=schema.names)
        text = Template(query_text("memory_over_time")).substitute(
            run=f"'{RUN_ID}'", buckets=str(slices)
        )
        with Database(replace(trials, tables=trials.tables | {"memory": memory})) as database:
            answer = database.query(text).to_pylist()
        kept: dict[int, dict[float, int]] = {}
        ids = [record.trial_id for record in records]
        for row in answer:
            kept.setdefault(ids.index(row["trial_id"]), {})[row["second"]] = row["resident_bytes"]
        return kept

    return run


def test_each_query_tells_its_grain_and_units() -> None:
    for name in QUERIES:
        lines = query_text(name).splitlines()
        assert lines[0].startswith("-- grain: "), name
        assert any(line.startswith("-- units: ") for line in lines), name


def test_the_sql_in_the_page_is_what_was_run(archive: Path, page: str) -> None:
    found = re.findall(r"<pre tabindex=.0.><code>(-- grain: .*?)</code></pre>", page, re.S)
    shown = {html.unescape(text) for text in found}
    assert len(shown) >= len(set(QUERIES) - {"ratios", "commit_over_time"})
    with open_database(archive) as database:
        for sql in sorted(shown):
            assert "$" not in sql
            database.query(sql)


def test_percentiles_in_the_page_are_those_of_the_table(archive: Path, page: str) -> None:
    """p50 of the curve and p50 of the comparison are the same number."""
    points = chart_data(page)["percentiles-0"]["tables"]["points"]
    names, kinds = points["configuration"], points["kind"]
    found = [
        points["median_ns"][i]
        for i in range(len(points["one_in"]))
        if points["one_in"][i] == 2.0
        and names["words"][names["codes"][i]] == "optimised"
        and kinds["words"][kinds["codes"][i]] == "latency"
    ]
    (table,) = compared(archive).tables
    row = next(row for row in table.rows if row.metric.name == "latency_p50")
    assert found == [pytest.approx(row.candidate, rel=1e-3)]


# The page


def test_latency_over_time_has_the_service_time_beside_it(page: str) -> None:
    seconds = chart_data(page)["latency-over-time-0"]["tables"]["seconds"]
    both = list(zip(seconds["service_p99_ns"], seconds["p99_ns"], strict=True))
    assert len(both) > 10
    assert all(service * 2 == pytest.approx(latency, abs=2) for service, latency in both)
    assert "p99 of service time (dashed)" in page
    assert ">service p99</th>" in page


def test_the_page_has_every_part_and_is_well_formed(page: str) -> None:
    reader = Reader(page)
    assert not reader.open, "every tag is closed"
    ids = [attributes["id"] for _, attributes in reader.tags if attributes.get("id")]
    assert len(ids) == len(set(ids)), "no id twice"
    for wanted in ("comparison", "memory-section", "latency", "gc", "validity", "provenance"):
        assert wanted in ids
    tags = [tag for tag, _ in reader.tags]
    assert tags.count("h1") == 1
    assert {"header", "nav", "main", "footer"} <= set(tags)
    charts = [a["data-chart"] for _, a in reader.tags if a.get("data-chart")]
    assert charts == list(chart_data(page))
    text = "".join(reader.text)
    assert "too late (its repetition counts)" in text
    assert "sessioncache: go1.23.9" in text, "what the binary says of itself"
    for part in chart_data(page).values():
        assert part["spec"]["description"]


def test_nothing_is_loaded_from_anywhere(page: str) -> None:
    outside = {
        attributes.get("src") or attributes.get("href")
        for tag, attributes in Reader(page).tags
        if tag in ("script", "link", "img", "iframe", "a", "use")
    }
    assert all(v is None or v.startswith("#") or v == "data:," for v in outside), outside
    ours = re.sub(r"<script>.*?</script>", "", page, flags=re.S)
    hosts = set(re.findall(r"https?://[\w./-]+", ours))
    assert all(host.startswith("https://vega.github.io/schema/") for host in hosts), hosts
    assert "default-src 'none'" in html.unescape(page)
    assert "url(" not in re.search(r"<style>(.*?)</style>", page, re.S)[1]  # type: ignore[index]


def test_the_policy_allows_exactly_the_scripts_of_the_page(page: str) -> None:
    import base64
    import hashlib

    scripts = re.findall(r"<script>(.*?)</script>", page, re.S)
    wanted = {base64.b64encode(hashlib.sha256(s.encode()).digest()).decode() for s in scripts}
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)
    assert policy
    assert set(re.findall(r"sha256-([\w+/=]+)", policy[1].replace("&#39;", "'"))) == wanted
    assert "unsafe-eval" not in policy[1]


def test_the_page_of_a_small_run_is_small(page: str) -> None:
    assert len(page.encode()) < 3_000_000


def test_the_same_archive_makes_the_same_bytes(archive: Path, tmp_path: Path, page: str) -> None:
    """In another process too, and wherever the archive lies."""
    moved = shutil.copytree(archive, tmp_path / "elsewhere")
    text = "import sys, pathlib\nfrom results.report.page import render_report\n"
    text += "sys.stdout.reconfigure(encoding='utf-8')\n"
    text += "sys.stdout.write(render_report(pathlib.Path(sys.argv[1]), 'latest'))"
    done = subprocess.run([sys.executable, "-c", text, moved], capture_output=True, check=True)
    assert done.stdout.decode() == page


def test_more_configurations_and_workloads_have_a_chart_each(many: Path) -> None:
    charts = chart_data(render_report(many, "latest"))
    assert {"ablation-peak-rss-0", "ablation-peak-rss-1", "memory-0", "memory-1"} <= set(charts)
    assert {f"heat-{c}-{p}" for c in range(3) for p in range(2)} <= set(charts)
    rows = charts["ablation-peak-rss-0"]["tables"]["rows"]
    assert rows["configuration"]["words"] == ["optimised", "stripped"]


@pytest.mark.parametrize("blocks", [0, 1])
def test_a_run_with_next_to_nothing_still_has_a_page(tmp_path: Path, blocks: int) -> None:
    ids = {"b01-1-default-steady", "b01-2-optimised-steady"}
    root = write_archive(
        tmp_path,
        configurations=PAIR,
        blocks=1,
        missing=ids if not blocks else set(),
        invalid=ids if blocks else set(),
    )
    page = render_report(root, "latest")
    assert not Reader(page).open
    assert ("Nothing can be said" if blocks else "Nothing was measured") in page


def test_a_trial_that_was_cut_off_is_told(tmp_path: Path) -> None:
    write_archive(tmp_path, configurations=PAIR, partial={"b01-1-default-steady"})
    assert "b01-1-default-steady was cut off" in render_report(tmp_path, "latest")


def test_other_forms_are_the_comparison(archive: Path) -> None:
    plain = json.loads(render_report(archive, "latest", "json"))
    assert plain["baseline"] == "default"
    lines = render_report(archive, "latest", "csv").splitlines()
    assert lines[0].startswith("node_class,os,workload,baseline,configuration,metric")
    assert len(lines) == 1 + len(plain["rows"])
    assert "| **peak RSS** |" in render_report(archive, "latest", "md")
    with pytest.raises(UserError, match="there is no format 'pdf'"):
        render_report(archive, "latest", "pdf")


def test_the_command_writes_a_file_or_to_standard_output(
    archive: Path, tmp_path: Path, page: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from typer.testing import CliRunner

    from orchestrator.cli import app

    monkeypatch.chdir(tmp_path)
    run = CliRunner().invoke
    done = run(app, ["report", "--archive", str(archive)])
    assert done.exit_code == 0
    assert done.stdout.startswith(f"wrote {RUN_ID}.html (1.0")
    assert (tmp_path / f"{RUN_ID}.html").read_text(encoding="utf-8") == page
    done = run(app, ["report", "latest", "-a", str(archive), "--format", "csv"])
    assert done.stdout.startswith("node_class,os,workload")
    refused = run(app, ["report", "-a", str(archive), "-o", str(tmp_path)])
    assert isinstance(refused.exception, UserError)
    assert "can't be written to: Is a directory" in str(refused.exception)


# What comes from outside


def test_hostile_names_stay_text(hostile: Path) -> None:
    page = render_report(hostile, "latest")
    reader = Reader(page)
    assert not reader.open
    tags = [tag for tag, _ in reader.tags]
    assert "img" not in tags
    assert tags.count("script") == 4, "the data, the bundle, the page's two own"
    assert not [a for _, a in reader.tags if any(name.startswith("on") for name in a)]
    text = "".join(reader.text)
    assert BREAKOUT in text and HOSTILE in text, "shown as they are"
    assert "49" not in re.findall(r"&amp; \{\{ (.*?) \}\}", page)
    assert HOSTILE in chart_data(page)["memory-0"]["spec"]["params"][0]["value"]

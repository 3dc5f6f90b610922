"""Keeping an archive, as a user calls it: baselines, gc, import, export, and odd archives."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from archives import MIB, RUN_ID, reseal, write_archive
from bench_command import Workplace

from results.files import RUN_FILES, write_sums

LATER = "20260922-000000-abcd"
DRIFT = (1.0, 1.01, 0.99, 1.02, 0.98, 1.005)
CONFIGURATIONS = {"default": {"factors": DRIFT}, "optimised": {"factors": DRIFT}}
LARGER = CONFIGURATIONS | {"default": {"factors": DRIFT, "peak_rss_bytes": 400 * MIB}}


@pytest.fixture
def workplace(tmp_path: Path) -> Workplace:
    return Workplace(tmp_path)


def edit(workplace: Workplace, run_id: str, **fields: Any) -> None:
    path = workplace.archive / run_id / "run.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))
    write_sums(path.parent, RUN_FILES)


def test_a_regression_against_a_named_run_ends_with_1_when_asked(workplace: Workplace) -> None:
    write_archive(workplace.archive, configurations=CONFIGURATIONS)
    write_archive(workplace.archive, configurations=LARGER, run_id=LATER)
    edit(workplace, LATER, started_ns=1_800_000_000 * 10**9)
    assert workplace.bench("baseline", "set", "release", RUN_ID).code == 0
    (told,) = workplace.bench("baseline", "ls", "--json").json()
    assert (told["name"], told["run_id"], told["doubt"]) == ("release", RUN_ID, None)
    plain = workplace.bench("compare", "--against", "release", "--json")
    assert plain.code == 0, plain.text
    assert plain.json()["against"] == {"name": "release", "run": RUN_ID}
    assert plain.json()["worse"] == ["peak RSS of default under steady"]
    gate = workplace.bench("compare", "latest", "--against", "release", "--fail-on-worse")
    assert gate.code == 1
    assert "worse than release: peak RSS of default under steady" in gate.err
    assert "not paired" in " ".join(gate.out.split())
    back = workplace.bench("compare", RUN_ID, "--against", LATER, "--fail-on-worse", "--markdown")
    assert back.code == 0, back.text
    assert "| **peak RSS** |" in back.out
    two = workplace.bench("compare", RUN_ID, LATER, "--against", "release")
    assert two.code == 2
    assert workplace.bench("baseline", "unset", "release").code == 0
    gone = workplace.bench("compare", "--against", "release")
    assert gone.code == 2
    assert "there is no baseline 'release'" in gone.err


def test_a_gate_that_can_not_tell_does_not_pass(workplace: Workplace) -> None:
    write_archive(workplace.archive, configurations=CONFIGURATIONS, blocks=2)
    told = workplace.bench("compare", "--fail-on-worse")
    assert told.code == 3
    assert "can't tell whether it is worse" in told.err
    assert workplace.bench("compare").code == 0


def test_a_gate_does_not_pass_what_vanished(workplace: Workplace) -> None:
    names = CONFIGURATIONS | {"tuned": {"factors": DRIFT}}
    killed = [f"b{block:02}-3-tuned-steady" for block in range(1, 8)]
    write_archive(workplace.archive, configurations=names, blocks=7)
    write_archive(workplace.archive, configurations=names, blocks=7, run_id=LATER, invalid=killed)
    for asked in ([], ["--against", RUN_ID]):
        told = workplace.bench("compare", LATER, *asked, "--fail-on-worse")
        assert told.code == 3, told.text
        assert "tuned under steady on linux-test has no valid trial" in told.err
    whole = workplace.bench("compare", RUN_ID, "--fail-on-worse")
    assert whole.code == 0, whole.text


def test_show_tells_every_reason_for_doubt(workplace: Workplace) -> None:
    write_archive(workplace.archive, blocks=1)
    trial = workplace.archive / RUN_ID / "trials" / "b01-1-default-steady"
    record = json.loads((trial / "trial.json").read_text())
    text = "samples saw a peak 9% below the kernel's: it lay between two of them"
    record["findings"] = [
        {"code": "peak_between_samples", "level": "note", "text": text, "remedy": ""}
    ]
    (trial / "trial.json").write_text(json.dumps(record))
    reseal(trial)
    assert text in " ".join(workplace.bench("show", RUN_ID).out.split())


def test_gc_says_first_and_removes_when_told(workplace: Workplace) -> None:
    for number in (1, 2, 3):
        run_id = f"2026010{number}-000000-abcd"
        write_archive(workplace.archive, run_id=run_id, blocks=1)
        edit(workplace, run_id, started_ns=number, finished_ns=number)
    workplace.bench("baseline", "set", "first", "20260101")
    asked = workplace.bench("gc", "--older-than", "90d")
    assert asked.code == 0, asked.text
    assert "would remove" in asked.out
    assert "it is a baseline" in asked.out
    assert len(workplace.run_ids()) == 3
    assert workplace.bench("gc", "--older-than", "90d", "--yes").code == 0
    assert workplace.run_ids() == ["20260101-000000-abcd", "20260103-000000-abcd"]
    assert workplace.bench("verify").code == 0
    for wrong in ([], ["--older-than", "90"], ["--max-size", "50"], ["--keep-last", "0"]):
        told = workplace.bench("gc", *wrong)
        assert told.code == 2, told.text
        assert "Traceback" not in told.text


def test_runs_travel_in_one_file(workplace: Workplace) -> None:
    write_archive(workplace.archive, blocks=1)
    assert workplace.bench("export", "-o", "runs.tar.zst").code == 0
    told = workplace.bench("import", "runs.tar.zst", "--archive", "other", "--json")
    assert told.code == 0, told.text
    assert told.json() == [{"run_id": RUN_ID, "outcome": "imported", "why": ""}]
    assert workplace.bench("verify", "--archive", "other").code == 0
    path = next((workplace.archive).glob("*/trials/*/requests.arrow"))
    path.write_bytes(path.read_bytes()[:-8])
    refused = workplace.bench("import", "archive", "--archive", "third")
    assert refused.code == 3
    assert "requests.arrow has changed" in refused.out
    assert workplace.bench("export", "-o", "nosuch://bucket/x").code == 2


def test_what_is_damaged_is_told_by_every_command_that_reads_it(workplace: Workplace) -> None:
    write_archive(workplace.archive, configurations=CONFIGURATIONS, blocks=6)
    assert workplace.bench("sql", "select count(*) from requests").err == ""
    path = workplace.archive / RUN_ID / "trials" / "b01-1-default-steady" / "requests.arrow"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    words = "requests.arrow has changed since it was sealed"
    compared = workplace.bench("compare")
    assert f"b01-1-default-steady: {words}" in " ".join(compared.out.split())
    assert "5 of 6 blocks" in compared.out
    assert words in workplace.bench("sql", "select count(*) from requests").err
    workplace.bench("report", "-o", "page.html")
    assert words in (workplace.root / "page.html").read_text()
    assert workplace.bench("verify").code == 3


HOSTILE = ("it's", 'a "quote"', "<img src=x onerror=alert(1)>", "😀 é", "$(id)", "new\nline")


def test_any_name_of_a_configuration_stays_a_name(workplace: Workplace) -> None:
    configurations = {name: {} for name in ("default", *HOSTILE)}
    write_archive(workplace.archive, configurations=configurations, blocks=2)
    edit(workplace, RUN_ID, service="<b>[red]../x'\n\x1b[31m")
    for command in (["compare"], ["compare", "--json"], ["show"], ["runs"], ["verify"]):
        told = workplace.bench(*command)
        assert told.code == 0, (command, told.text)
        assert "\x1b" not in told.text, "a pipe gets no colours, so no escapes at all"
    counted = workplace.bench("sql", "--format", "json", "select distinct configuration from cells")
    assert {row["configuration"] for row in counted.json()} == {"default", *HOSTILE}
    assert workplace.bench("export", "-o", "lake").code == 0
    page = workplace.bench("report", "-o", "-")
    assert page.code == 0, page.err
    assert "<img src=x" not in page.out


def test_odd_archives_end_in_one_clear_line(workplace: Workplace) -> None:
    write_archive(workplace.archive, blocks=2)
    write_archive(workplace.archive, blocks=2, run_id=LATER)
    edit(workplace, LATER, service="other")
    told = workplace.bench("compare", RUN_ID, LATER)
    assert told.code == 2
    assert "they have services other and sessioncache" in told.err
    edit(workplace, LATER, schema_version=9, heapgate_version="7.0")
    for command in (["compare", LATER], ["report", LATER], ["compare", "--against", LATER, RUN_ID]):
        newer = workplace.bench(*command)
        assert newer.code == 2, command
        assert "written in format 9, by Heapgate 7.0" in newer.err
    assert workplace.bench("runs").code == 0
    assert workplace.bench("show", LATER).code == 0
    (workplace.archive / LATER).rename(workplace.archive / "renamed")
    moved = workplace.bench("compare", "renamed")
    assert moved.code == 2
    assert f"is that of run '{LATER}': its folder must have that name" in moved.err
    (workplace.archive / RUN_ID / "run.json").write_text("{")
    for command in (["compare"], ["gc", "--keep-last", "1"], ["baseline", "ls"], ["runs"]):
        told = workplace.bench(*command)
        assert "Traceback" not in told.text, command
    assert workplace.bench("verify").code == 3

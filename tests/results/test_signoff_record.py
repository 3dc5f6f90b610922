"""A signed record says what the archive says; whoever changes anything in either is found out."""

from __future__ import annotations

import contextlib
import copy
import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, date, datetime
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from archives import MIB, RUN_ID, reseal, write_archive, write_table
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rich.console import Console

from results.errors import UserError
from results.signoff.check import SignedRecord, check_record, read_record
from results.signoff.forms import markdown_record, print_record
from results.signoff.language import parse_objective
from results.signoff.record import GO, NO_GO, Question, make_record, text_of
from results.signoff.signing import PublicKey, make_key, public_key_of, read_key, sign
from results.signoff.waivers import Waiver
from results.sql.database import open_database

AT = datetime(2026, 11, 28, 12, 0, tzinfo=UTC)
TODAY = AT.date()
FACTORS = (1.0, 1.02, 0.99, 1.01, 0.98, 1.005, 0.995, 1.015)
HOLDS = ("peak_rss <= 200MiB", "peak_rss better by >= 30%", "errors <= 1%")
BREAKS = "peak_rss <= 50MiB"
WAIVER = Waiver(BREAKS, "Jane <jane@example.org>", "fixed in the next release", date(2026, 12, 1))


def question(*texts: str, **more: Any) -> Question:
    objectives = tuple(map(parse_objective, texts))
    return Question("optimised", objectives, **({"waivers": (), "decided_at": AT} | more))


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("signoff") / "archive"
    configurations = {
        "default": {"factors": FACTORS},
        "optimised": {"peak_rss_bytes": 120 * MIB, "factors": FACTORS, "binary_bytes": 6_000_000},
    }
    return write_archive(root, configurations=configurations, blocks=8)


@pytest.fixture(scope="module")
def key_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("keys") / "release"
    make_key(path, "release manager")
    return path


@pytest.fixture(scope="module")
def trusted(key_file: Path) -> list[PublicKey]:
    return [public_key_of(read_key(key_file))]


def made(archive: Path, asked: Question) -> dict[str, Any]:
    with open_database(archive, [RUN_ID]) as database:
        return make_record(database, asked)


@pytest.fixture(scope="module")
def good(archive: Path) -> dict[str, Any]:
    record: dict[str, Any] = json.loads(text_of(made(archive, question(*HOLDS))))
    return record


def signed(record: dict[str, Any], key_file: Path) -> SignedRecord:
    data = text_of(record).encode()
    return SignedRecord(Path("signoff.json"), data, record, sign(data, read_key(key_file)))


def test_all_objectives_hold(good: dict[str, Any]) -> None:
    assert good["decision"] == GO
    assert [d["decision"] for d in good["objectives"]] == ["PASS"] * 3
    assert all(d["trials"] == 8 for d in good["objectives"])
    assert good["build"][0]["sha256"] == f"{6_000_000:064x}"
    assert good["validity"] == good["validity"] | {"trials": 16, "valid": 16, "invalid": []}
    assert {row["metric"] for row in good["figures"]} >= {"peak_rss", "latency_p99", "throughput"}
    assert {row["configuration"] for row in good["figures"]} == {"optimised"}
    assert good["settings"][0]["environment"] == {"GOGC": "100"}


def test_one_objective_that_fails_is_a_no(archive: Path) -> None:
    record = made(archive, question(*HOLDS, BREAKS))
    assert record["decision"] == NO_GO
    assert [d["objective"] for d in record["objectives"] if d["blocks"]] == [BREAKS]


def test_a_waiver_lets_it_pass_until_its_day_and_is_on_the_record(archive: Path) -> None:
    record = made(archive, question(BREAKS, waivers=(WAIVER,)))
    assert record["decision"] == GO
    assert record["objectives"][0]["decision"] == "FAIL"
    assert record["objectives"][0]["waived_by"] == WAIVER.to_plain()
    late = made(archive, question(BREAKS, waivers=(replace(WAIVER, expires=date(2026, 11, 27)),)))
    assert late["decision"] == NO_GO
    assert "ended on 2026-11-27" in late["policy"]["remarks"][0]
    last_day = replace(WAIVER, expires=TODAY)
    assert made(archive, question(BREAKS, waivers=(last_day,)))["decision"] == GO
    idle = made(archive, question(HOLDS[0], waivers=(WAIVER,)))["policy"]["remarks"]
    assert "about no objective" in idle[0]


def test_what_can_not_be_told_blocks(archive: Path) -> None:
    assert made(archive, question("no_leak"))["decision"] == NO_GO
    warned = replace(parse_objective("no_leak"), severity="warn")
    asked = question(*HOLDS)
    asked = replace(asked, objectives=(*asked.objectives, warned))
    assert made(archive, asked)["decision"] == GO


def test_a_run_that_is_not_whole_is_not_signed_off(archive: Path, tmp_path: Path) -> None:
    other = tmp_path / "archive"
    shutil.copytree(archive, other)
    path = other / RUN_ID / "run.json"
    document = json.loads(path.read_text()) | {"status": "interrupted"}
    path.write_text(json.dumps(document))
    record = made(other, question(*HOLDS))
    assert record["decision"] == NO_GO
    assert any("bench resume" in doubt for doubt in record["doubts"])


def test_without_objectives_there_is_nothing_to_sign_off(archive: Path) -> None:
    with pytest.raises(UserError, match="--policy"):
        made(archive, question())
    with pytest.raises(UserError, match="there are: default, optimised"):
        made(archive, replace(question(*HOLDS), configuration="tuned"))


@pytest.mark.parametrize("more", [{"configurations": ("default",)}, {"severity": "warn"}])
def test_where_nothing_can_block_there_is_no_go(archive: Path, more: dict[str, Any]) -> None:
    objective = replace(parse_objective(HOLDS[0]), **more)
    with pytest.raises(UserError, match="no blocking objective is about 'optimised'"):
        made(archive, replace(question(), objectives=(objective,)))


def test_names_that_the_run_lacks_are_told_and_on_the_record(
    archive: Path, key_file: Path, trusted: list[PublicKey]
) -> None:
    """A shared policy may name another service's; a typo would take an objective away unseen."""
    misspelt = replace(parse_objective(BREAKS), configurations=("optimisd", "default"))
    asked = question(*HOLDS)
    record = made(archive, replace(asked, objectives=(*asked.objectives, misspelt)))
    said = f"{BREAKS} is about configuration 'optimisd', which no trial is of: not checked there"
    assert record["policy"]["absent"] == [said]
    console = Console(file=StringIO(), width=200)
    print_record(record, console)
    assert f"! {said}" in console.file.getvalue()  # type: ignore[attr-defined]
    assert said in markdown_record(record).replace("&lt;", "<")
    plain = json.loads(text_of(record))
    assert check_record(signed(plain, key_file), archive, trusted, today=TODAY) == []
    del plain["policy"]["absent"]
    older = check_record(signed(plain, key_file), archive, trusted, today=TODAY)
    assert older == [], "a record from before it was told is still good"


def test_a_waiver_covers_the_workloads_that_it_names(tmp_path: Path) -> None:
    configurations = {"default": {"factors": FACTORS}, "optimised": {"factors": FACTORS}}
    two = write_archive(
        tmp_path, configurations=configurations, blocks=8, workloads=["evening", "night"]
    )
    night = replace(WAIVER, workloads=("night",))
    record = made(two, question(BREAKS, waivers=(night,)))
    assert {d["workload"]: d["blocks"] for d in record["objectives"]} == {
        "evening": True,
        "night": False,
    }
    assert f"{BREAKS} under night: fixed" in markdown_record(record).replace("&lt;", "<")
    assert Waiver.from_plain(night.to_plain()) == night
    assert made(two, question(BREAKS, waivers=(WAIVER,)))["decision"] == GO


def test_a_true_record_checks(
    good: dict[str, Any], archive: Path, key_file: Path, trusted: list[PublicKey]
) -> None:
    own = signed(good, key_file)
    build = good["build"][0]["sha256"]
    assert check_record(own, archive, trusted, binary_sha256=build, today=TODAY) == []


def leaves(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, inner in items:
        if isinstance(inner, (dict, list)) and inner:
            yield from leaves(inner, (*at, key))
        else:
            yield (*at, key)


def changed(record: dict[str, Any], path: tuple[Any, ...]) -> dict[str, Any]:
    forged = copy.deepcopy(record)
    place: Any = forged
    for key in path[:-1]:
        place = place[key]
    old = place[path[-1]]
    if isinstance(old, bool):
        place[path[-1]] = not old
    elif isinstance(old, (int, float)):
        place[path[-1]] = old * 1.0001 + 1
    else:
        place[path[-1]] = f"{old}x" if old else "x"
    return forged


@pytest.fixture
def opened_once(archive: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The same open archive for every check, because opening it reads and hashes all of it."""
    with open_database(archive, [RUN_ID]) as database:
        monkeypatch.setattr(
            "results.signoff.check.open_database", lambda *_: contextlib.nullcontext(database)
        )
        yield


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@pytest.mark.usefixtures("opened_once")
@given(st.data())
def test_one_changed_value_is_named_even_when_signed_again_by_the_right_key(
    good: dict[str, Any],
    archive: Path,
    key_file: Path,
    trusted: list[PublicKey],
    data: st.DataObject,
) -> None:
    """All but three: who asked, how, and when are not in the archive; the signature holds them."""
    own = [p for p in leaves(good) if p[0] not in ("command", "noise", "decided_at")]
    path = data.draw(st.sampled_from(own))
    forged = changed(good, path)
    found = check_record(signed(forged, key_file), archive, trusted, today=TODAY)
    assert found, path
    unsigned = replace(signed(good, key_file), data=text_of(forged).encode(), record=forged)
    assert any("changed" in line for line in check_record(unsigned, archive, trusted, today=TODAY))


def test_each_kind_of_forgery_is_named(
    good: dict[str, Any], archive: Path, key_file: Path, trusted: list[PublicKey], tmp_path: Path
) -> None:
    def found(own: SignedRecord, where: Path = archive, **how: Any) -> str:
        return "\n".join(check_record(own, where, trusted, **({"today": TODAY} | how)))

    make_key(tmp_path / "mallory", "mallory")
    assert "not trusted here: SHA256:" in found(signed(good, tmp_path / "mallory"))
    assert "about another build" in found(signed(good, key_file), binary_sha256="00")
    asked = question(BREAKS, waivers=(WAIVER,))
    waived = json.loads(text_of(made(archive, asked)))
    assert found(signed(waived, key_file)) == ""
    assert "ended on 2026-12-01" in found(signed(waived, key_file), today=date(2026, 12, 2))
    moved = signed({**good, "decision": NO_GO}, key_file)
    assert 'decision: the record says "NO-GO", the archive "GO"' in found(moved)
    for nonsense in ("x", 7, ["x"], {"objective": "x"}):
        torn = copy.deepcopy(good)
        torn["objectives"][0]["waived_by"] = nonsense
        assert "a waiver in it can't be read" in found(signed(torn, key_file))
    with_less = copy.deepcopy(good)
    del with_less["policy"]
    assert "can't be made again" in found(signed(with_less, key_file))
    assert "can't be made again" in found(signed(good, key_file), tmp_path / "nowhere")


def flip(path: Path, place: int) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)


def rewrite(path: Path) -> None:
    """Another measurement in place of the archived one, and digests that fit it."""
    import pyarrow as pa

    rows = pa.ipc.open_file(path).read_all().to_pylist()
    write_table(path, [row | {"service_ns": row["service_ns"] + 1} for row in rows])
    reseal(path.parent)


@pytest.mark.parametrize(
    "damage",
    [
        lambda trial: flip(trial / "requests.arrow", 5_000),
        lambda trial: flip(trial / "trial.json", 200),
        lambda trial: rewrite(trial / "requests.arrow"),
        shutil.rmtree,
    ],
    ids=["byte of a table", "byte of a record", "rewritten and sealed again", "trial removed"],
)
def test_a_changed_archive_is_noticed(
    good: dict[str, Any],
    archive: Path,
    key_file: Path,
    trusted: list[PublicKey],
    tmp_path: Path,
    damage: Callable[[Path], None],
) -> None:
    other = tmp_path / "archive"
    shutil.copytree(archive, other)
    damage(other / RUN_ID / "trials" / "b03-2-optimised-steady")
    assert check_record(signed(good, key_file), other, trusted, today=TODAY)


def test_records_that_are_none(good: dict[str, Any], key_file: Path, tmp_path: Path) -> None:
    path = tmp_path / "signoff.json"
    with pytest.raises(UserError, match="No such file"):
        read_record(path)
    own = signed(good, key_file)
    path.write_bytes(own.data)
    with pytest.raises(UserError, match="is not signed"):
        read_record(path)
    path.with_name("signoff.json.sig").write_text(own.signature)
    assert read_record(path).record == good
    for text, said in (
        (own.data[:1000], "cut off"),
        (b"[]", "no record"),
        (b"{}", "no record"),
        (b"[" * 100_000, "cut off"),
        (text_of(good | {"record_version": 2}).encode(), "version 2"),
    ):
        path.write_bytes(text)
        with pytest.raises(UserError, match=said):
            read_record(path)


@pytest.mark.parametrize("noted", ["0123abcd" * 5, "0123abcd" * 5 + "-dirty", None])
def test_the_commit_that_was_built_is_on_the_record(
    archive: Path, key_file: Path, trusted: list[PublicKey], tmp_path: Path, noted: str | None
) -> None:
    """Nothing is stamped into a build; what was noted beside it is told, and checked."""
    other = tmp_path / "archive"
    shutil.copytree(archive, other)
    for path in other.glob("*/trials/*optimised*/trial.json"):
        trial = json.loads(path.read_text())
        trial["spec"]["service"]["binary"]["commit"] = noted
        path.write_text(json.dumps(trial))
        reseal(path.parent)
    record = json.loads(text_of(made(other, question(*HOLDS))))
    (build,) = record["build"]
    assert build["commit"] == (noted.removesuffix("-dirty") if noted else None)
    assert build["commit_modified"] == bool(noted and noted.endswith("-dirty"))
    assert check_record(signed(record, key_file), other, trusted, today=TODAY) == []
    build |= {"commit": None, "commit_modified": False}
    older = check_record(signed(record, key_file), other, trusted, today=TODAY)
    assert older == [], "a record from before it was told is still good"
    build["commit"] = "f" * 40
    forged = check_record(signed(record, key_file), other, trusted, today=TODAY)
    assert forged[0].startswith("build[0].commit: the record says")

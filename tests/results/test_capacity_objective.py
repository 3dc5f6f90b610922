"""`capacity >= 800/s`: decided by the searches in the archive, and made again from their runs."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Iterator
from contextlib import nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from archives import EPOCH_NS, MIB, RUN_ID, reseal, write_archive
from searches import LIMITS, Answer, change_document, write_search

from results.archive.archive import Archive
from results.archive.retention import Policy, fates
from results.signoff.check import SignedRecord, check_record
from results.signoff.language import parse_objective
from results.signoff.record import GO, NO_GO, Question, make_record, text_of
from results.signoff.signing import PublicKey, make_key, public_key_of, read_key, sign
from results.sql.database import open_database

AT = datetime(2026, 11, 28, 12, 0, tzinfo=UTC)
FACTORS = (1.0, 1.02, 0.99, 1.01, 0.98, 1.005, 0.995, 1.015)
OPTIMISED = {"peak_rss_bytes": 120 * MIB, "binary_bytes": 6_000_000, "requests": 40}
HOLDS = [(800.0, True), (1_600.0, False), (1_130.0, True), (1_340.0, False), (1_200.0, True),
         (1_270.0, False)]  # fmt: skip
"""The answers of a search whose service carries about 1,235/s."""

CONFIRMED: list[Answer] = [*HOLDS, (1_200.0, True, "confirm"), (1_290.0, False, "above")]
TRIED = [(rate, holds) for rate, holds, *_ in CONFIRMED]
"""And its confirmation in fresh processes, one step above too."""


def write_run(root: Path) -> Path:
    configurations = {
        "default": {"factors": FACTORS, "requests": 40},
        "optimised": OPTIMISED | {"factors": FACTORS},
    }
    return write_archive(root, configurations=configurations, blocks=8)


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    archive = write_run(tmp_path_factory.mktemp("searched") / "archive")
    write_search(archive, CONFIRMED, OPTIMISED)
    return archive


def made(archive: Path, *texts: str, **more: Any) -> dict[str, Any]:
    objectives = tuple(map(parse_objective, texts))
    with open_database(archive, [RUN_ID]) as database:
        record = make_record(database, Question("optimised", objectives, (), AT, **more))
    plain: dict[str, Any] = json.loads(text_of(record))
    return plain


def decided(archive: Path, *texts: str) -> tuple[str, str]:
    found = made(archive, *texts)["objectives"][0]
    return found["decision"], found["reason"]


@pytest.mark.parametrize(
    ("bound", "word"), [("800/s", "PASS"), ("1240/s", "CAN'T TELL"), ("1600/s", "FAIL")]
)
def test_it_is_decided_on_the_whole_interval(searched: Path, bound: str, word: str) -> None:
    record = made(searched, f"capacity >= {bound}", *LIMITS)
    (decision, *_) = record["objectives"]
    assert decision["decision"] == word
    assert decision["trials"] == len(CONFIRMED)
    assert decision["interval"]["low"] < 1_235 < decision["interval"]["high"]
    assert "with p50 <= 5ms, errors <= 1%" in decision["reason"]
    assert record["decision"] == (GO if word == "PASS" else NO_GO)


def test_the_record_lists_the_runs_that_it_rests_on(searched: Path) -> None:
    (search,) = made(searched, "capacity >= 800/s")["capacity"]
    assert [(r["rate_rps"], r["holds"]) for r in search["runs"]] == TRIED
    assert all(len(run["sha256"]) == 64 for run in search["runs"])
    assert made(searched, "peak_rss <= 1GiB")["capacity"] is None


def test_the_sql_view_says_the_same(searched: Path, tmp_path: Path) -> None:
    archive = tmp_path / "archive"
    shutil.copytree(searched, archive)
    wanted = [parse_objective("capacity >= 800/s").to_plain()]
    change_document(archive / RUN_ID, objectives=wanted)
    with open_database(archive, [RUN_ID]) as database:
        (row,) = database.query("from objectives").to_pylist()
    assert (row["kind"], row["decision"], row["configuration"]) == ("capacity", "PASS", "optimised")


def test_without_a_search_of_just_this_nothing_is_known(tmp_path: Path) -> None:
    archive, two = write_run(tmp_path), HOLDS[:2]
    none = ("CAN'T TELL", "no capacity was searched: bench capacity matrix.yaml")
    assert decided(archive, "capacity >= 800/s") == none
    write_search(archive, two, OPTIMISED, key="elsewhere", node_class="linux-larger")
    write_search(archive, two, OPTIMISED, key="night", workloads=["night"])
    assert decided(archive, "capacity >= 800/s") == none
    write_search(archive, two, OPTIMISED | {"binary_bytes": 7_000_000}, key="build")
    assert "is of another build" in decided(archive, "capacity >= 800/s")[1]
    write_search(archive, two, OPTIMISED | {"environment": (("GOGC", "50"),)}, key="a-newer-one")
    assert "is of other settings" in decided(archive, "capacity >= 800/s")[1]


def test_a_search_must_have_asked_for_what_the_sign_off_asks_for(searched: Path) -> None:
    assert decided(searched, "capacity >= 800/s", "p50 <= 6ms")[0] == "PASS", "it asked for more"
    word, why = decided(searched, "capacity >= 800/s", "p50 <= 4ms")
    assert (word, "did not ask for p50 <= 4ms" in why) == ("CAN'T TELL", True)
    assert "did not ask for p99" in decided(searched, "capacity >= 800/s", "p99 <= 1s")[1]


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ([], "not confirmed: no trial was left for it"),
        ([(1_200.0, False, "confirm")], "not confirmed: at 1,200/s a fresh process did not hold"),
        ([(1_200.0, True, "confirm"), (1_230.0, False)], "not confirmed: no trial was left for it"),
        ([(1_200.0, True, "of another version")], "not confirmed: no trial was left for it"),
    ],
)
def test_what_no_fresh_process_confirmed_does_not_pass(
    tmp_path: Path, more: list[Answer], why: str
) -> None:
    """A confirmation stands for the answer after which it was made, and for no later one."""
    archive = write_run(tmp_path)
    write_search(archive, [*HOLDS, *more], OPTIMISED)
    word, reason = decided(archive, "capacity >= 800/s")
    assert (word, why in reason) == ("CAN'T TELL", True), reason
    assert "/s) with p50" in reason, "what was found is told all the same"


def test_no_more_passes_than_was_seen_to_hold(tmp_path: Path) -> None:
    archive = write_run(tmp_path)
    write_search(archive, [*HOLDS, (900.0, True, "confirm")], OPTIMISED)
    assert decided(archive, "capacity >= 900/s")[0] == "PASS"
    word, reason = decided(archive, "capacity >= 1000/s")
    assert (word, "confirmed only at 900/s" in reason) == ("CAN'T TELL", True), reason


@pytest.mark.parametrize("broken", [[(800.0, True)], [(800.0, False)], HOLDS[:3]])
def test_a_search_that_was_broken_off_hides_no_whole_one(
    searched: Path, tmp_path: Path, broken: list[Answer]
) -> None:
    archive = tmp_path / "archive"
    shutil.copytree(searched, archive)
    newer_ns = EPOCH_NS + 10**14
    for run_id in write_search(archive, broken, OPTIMISED, key="k2"):
        change_document(archive / run_id, started_ns=newer_ns, finished_ns=newer_ns + 10**9)
    record = made(archive, "capacity >= 800/s")
    assert record["decision"] == GO
    assert [search["key"] for search in record["capacity"]] == ["k1"]


def test_a_newer_search_whose_answer_was_refuted_decides(searched: Path, tmp_path: Path) -> None:
    archive = tmp_path / "archive"
    shutil.copytree(searched, archive)
    newer_ns = EPOCH_NS + 10**14
    refuted: list[Answer] = [*HOLDS, (1_200.0, False, "confirm")]
    for run_id in write_search(archive, refuted, OPTIMISED, key="k2"):
        change_document(archive / run_id, started_ns=newer_ns, finished_ns=newer_ns + 10**9)
    assert decided(archive, "capacity >= 800/s")[0] == "CAN'T TELL"


@pytest.mark.parametrize(
    ("answers", "said"),
    [
        ([(800.0, True), (1_600.0, True), (3_200.0, True), (3_200.0, True)], "at least"),
        ([(800.0, False), (400.0, False), (200.0, False), (200.0, False)], "at most"),
        ([(100.0, False), (200.0, False), (1_600.0, True), (3_200.0, True), (100.0, False),
          (3_200.0, True)], "held at higher rates and not at lower ones"),
    ],
)  # fmt: skip
def test_a_capacity_beyond_what_was_tried(
    tmp_path: Path, answers: list[tuple[float, bool]], said: str
) -> None:
    archive = write_run(tmp_path)
    write_search(archive, answers, OPTIMISED)
    word, why = decided(archive, "capacity >= 800/s")
    assert said in why
    words = {"at least": "PASS", "at most": "FAIL"}
    assert word == words.get(said, "CAN'T TELL")


@pytest.fixture(scope="module")
def good(searched: Path) -> dict[str, Any]:
    return made(searched, "capacity >= 800/s", *LIMITS)


@pytest.mark.parametrize(
    ("rates", "holds", "bound", "word"),
    [
        ([100.0, 200.0, 200.0], True, 201, "CAN'T TELL"),
        ([100.0, 200.0, 200.0], True, 200, "PASS"),
        ([100.0], True, 101, "CAN'T TELL"),
        ([100.0, 50.0, 50.0], False, 50, "CAN'T TELL"),
        ([100.0, 50.0, 50.0], False, 51, "FAIL"),
    ],
)
def test_of_rates_that_were_not_tried_nothing_is_known(
    tmp_path: Path, rates: list[float], holds: bool, bound: int, word: str
) -> None:
    archive = write_run(tmp_path)
    write_search(archive, [(rate, holds) for rate in rates], OPTIMISED)
    assert decided(archive, f"capacity >= {bound}/s")[0] == word


def signed(record: dict[str, Any], key_file: Path) -> SignedRecord:
    data = text_of(record).encode()
    return SignedRecord(Path("signoff.json"), data, record, sign(data, read_key(key_file)))


@pytest.fixture(scope="module")
def key_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("keys") / "release"
    make_key(path, "release manager")
    return path


def wrong(record: dict[str, Any], archive: Path, key_file: Path) -> str:
    trusted: list[PublicKey] = [public_key_of(read_key(key_file))]
    return "\n".join(check_record(signed(record, key_file), archive, trusted, today=AT.date()))


@pytest.fixture
def opened_once(searched: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The same open archive for every check, because opening it reads and hashes all of it."""
    searches = [run.run_id for run in Archive(searched).runs() if run.run_id != RUN_ID]
    with open_database(searched, [RUN_ID]) as run, open_database(searched, searches) as search:
        for place, opened in (("signoff.check", run), ("capacity.archived", search)):
            monkeypatch.setattr(
                f"results.{place}.open_database", lambda *_, own=opened: nullcontext(own)
            )
        yield


@pytest.mark.usefixtures("opened_once")
def test_a_forged_capacity_is_named(good: dict[str, Any], searched: Path, key_file: Path) -> None:
    assert wrong(good, searched, key_file) == ""
    for change in (
        lambda search: search["interval"].update(low=1_300.0),
        lambda search: search["runs"].pop(1),
        lambda search: search["runs"][1].update(holds=True),
        lambda search: search["runs"][0].update(sha256="0" * 64),
        lambda search: search["runs"][0].update(rate_rps=900.0),
        lambda search: search["limits"].pop(),
    ):
        forged = copy.deepcopy(good)
        change(forged["capacity"][0])
        assert "capacity[0]" in wrong(forged, searched, key_file)
    assert "capacity" in wrong(good | {"capacity": None}, searched, key_file)


def test_a_changed_search_is_noticed(
    good: dict[str, Any], searched: Path, key_file: Path, tmp_path: Path
) -> None:
    """A trial that failed is removed, or is made to hold, or that and sealed again."""
    (failed,) = [r["run_id"] for r in good["capacity"][0]["runs"] if r["rate_rps"] == 1_600]
    other = tmp_path / "removed"
    shutil.copytree(searched, other)
    shutil.rmtree(other / failed)
    assert "capacity[0]" in wrong(good, other, key_file)
    other = tmp_path / "rewritten"
    shutil.copytree(searched, other)
    (trial,) = (other / failed / "trials").iterdir()
    (held_trial,) = (other / good["capacity"][0]["runs"][0]["run_id"] / "trials").iterdir()
    shutil.copy(held_trial / "requests.arrow", trial / "requests.arrow")
    word, why = decided(other, "capacity >= 800/s", *LIMITS)
    assert (word, "requests.arrow has changed" in why) == ("CAN'T TELL", True)
    assert "objectives[0].decision" in wrong(good, other, key_file)
    reseal(trial)
    assert "holds: the record says false, the archive true" in wrong(good, other, key_file)


def test_what_came_later_does_not_change_a_record(
    searched: Path, key_file: Path, tmp_path: Path
) -> None:
    archive = tmp_path / "archive"
    shutil.copytree(searched, archive)
    good = made(archive, "capacity >= 800/s")
    later_ns = round(AT.timestamp() * 1e9) + 60 * 10**9
    for run_id in write_search(archive, [(500.0, False)] * 3, OPTIMISED, key="later"):
        change_document(archive / run_id, started_ns=later_ns, finished_ns=later_ns + 10**9)
    assert wrong(good, archive, key_file) == ""


def test_of_two_searches_the_newer_one_decides(searched: Path, tmp_path: Path) -> None:
    archive = tmp_path / "archive"
    shutil.copytree(searched, archive)
    newer_ns = EPOCH_NS + 10**14
    for run_id in write_search(archive, [(500.0, False), (250.0, False)] * 3, OPTIMISED, key="k2"):
        change_document(archive / run_id, started_ns=newer_ns, finished_ns=newer_ns + 10**9)
    assert decided(archive, "capacity >= 800/s")[0] == "FAIL"


def test_runs_that_a_signed_record_rests_on_are_kept(searched: Path, tmp_path: Path) -> None:
    archive = tmp_path / "archive"
    shutil.copytree(searched, archive)
    record = made(archive, "capacity >= 800/s")
    (archive / RUN_ID / "signoff-optimised.json").write_text(text_of(record))
    policy = Policy(older_than_ns=1, last_too=True)
    found = fates(Archive(archive), policy, now_ns=EPOCH_NS * 2)
    assert {fate.why for fate in found if fate.run.run_id != RUN_ID} == {
        f"the sign-off of {RUN_ID} rests on it"
    }
    assert not any(fate.goes for fate in found)

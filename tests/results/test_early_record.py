"""The record of a run that was ended early: what it says, and that it can be made again."""

from __future__ import annotations

import copy
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from archives import MIB, RUN_ID, write_archive
from searches import change_document

from results.signoff.check import SignedRecord, check_record
from results.signoff.language import parse_objective
from results.signoff.record import GO, NO_GO, Question, make_record, text_of
from results.signoff.signing import make_key, public_key_of, read_key, sign
from results.sql.database import open_database

AT = datetime(2026, 11, 28, 12, 0, tzinfo=UTC)
FACTORS = (1.0, 1.02, 0.99, 1.01, 0.98, 1.005, 0.995, 1.015)
HOLDS, BREAKS = "peak_rss <= 200MiB", "peak_rss <= 50MiB"
LIMIT = {"memory_max_bytes": 1024 * MIB, "requests": 40}


def ended_after(archive: Path, blocks: int, *, planned: int = 12, **document: Any) -> Path:
    configurations = {
        "default": LIMIT | {"factors": FACTORS},
        "optimised": LIMIT | {"peak_rss_bytes": 120 * MIB, "factors": FACTORS},
    }
    missing = [
        f"b{block:02}-{position}-{name}-steady"
        for block in range(blocks + 1, planned + 1)
        for position, name in enumerate(configurations, 1)
    ]
    write_archive(archive, configurations=configurations, blocks=planned, missing=missing)
    early = {"blocks": blocks, "blocks_planned": planned, "trials_saved": len(missing),
             "trials_planned": 2 * planned, "why": "it was decided", "outcomes": []}  # fmt: skip
    change_document(archive / RUN_ID, **{"status": "decided", "stopped_early": early} | document)
    return archive


def made(archive: Path, *texts: str) -> dict[str, Any]:
    with open_database(archive, [RUN_ID]) as database:
        objectives = tuple(map(parse_objective, texts))
        record = make_record(database, Question("optimised", objectives, (), AT))
    plain: dict[str, Any] = json.loads(text_of(record))
    return plain


@pytest.mark.parametrize(
    ("text", "blocks", "word", "decision"),
    [
        (HOLDS, 10, "PASS", GO),
        (HOLDS, 8, "CAN'T TELL", NO_GO),
        ("peak_rss better by >= 30%", 11, "PASS", GO),
        ("peak_rss better by >= 30%", 10, "CAN'T TELL", NO_GO),
        (BREAKS, 3, "CAN'T TELL", NO_GO),
        (BREAKS, 10, "FAIL", NO_GO),
    ],
)
def test_it_passes_only_where_the_whole_run_surely_would(
    tmp_path: Path, text: str, blocks: int, word: str, decision: str
) -> None:
    archive = ended_after(tmp_path, blocks)
    record = made(archive, text)
    (found,) = record["objectives"]
    assert (found["decision"], record["decision"], record["doubts"]) == (word, decision, [])
    assert f"was ended after {blocks} of 12 blocks" in record["validity"]["warnings"][0]
    change_document(archive / RUN_ID, objectives=[parse_objective(text).to_plain()])
    with open_database(archive) as database:
        (row,) = database.query("from objectives").to_pylist()
    assert (row["decision"], row["reason"]) == (word, found["reason"])


def test_only_its_own_account_makes_an_unfinished_run_whole(tmp_path: Path) -> None:
    record = made(ended_after(tmp_path, 10, stopped_early=None), HOLDS)
    assert record["decision"] == NO_GO
    assert "is decided: finish it with: bench resume" in record["doubts"][0]


def test_it_is_made_again_and_what_was_changed_is_named(tmp_path: Path) -> None:
    archive = ended_after(tmp_path / "archive", 10)
    make_key(tmp_path / "key", "release")
    key = read_key(tmp_path / "key")

    def wrong(record: dict[str, Any]) -> str:
        data = text_of(record).encode()
        signed = SignedRecord(Path("signoff.json"), data, record, sign(data, key))
        return "\n".join(check_record(signed, archive, [public_key_of(key)], today=AT.date()))

    good = made(archive, HOLDS)
    assert good["evidence"][0]["stopped_early"]["blocks"] == 10
    assert wrong(good) == ""
    forged = copy.deepcopy(good)
    forged["evidence"][0]["stopped_early"] = None
    assert "evidence[0].stopped_early: the record says null" in wrong(forged)
    # A record that was signed before there was headroom stays good.
    older = copy.deepcopy(good)
    older["figures"] = [row for row in older["figures"] if row["metric"] != "headroom"]
    assert len(older["figures"]) == len(good["figures"]) - 1
    assert wrong(older) == ""
    older["figures"].pop()
    assert "figures" in wrong(older)

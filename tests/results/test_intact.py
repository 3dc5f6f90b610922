"""No file is opened before its digest is right, and what is believed unread was right lately."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from archives import RUN_ID, reseal, write_archive

from results.archive import intact
from results.archive.archive import Archive
from results.archive.intact import damaged_files, damaged_trials, digest_of_run
from results.sql.database import open_database

TRIAL = "b01-1-default-steady"


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """Written a while ago: what was written just now is never believed unread."""
    root = write_archive(tmp_path / "archive", blocks=2)
    for path in root.rglob("*"):
        os.utime(path, (1, 1))
    return root


@pytest.fixture
def read_bytes(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files whose digests were made."""
    read: list[Path] = []
    made = intact.file_digest

    def digest(path: Path) -> str:
        read.append(path)
        return made(path)

    monkeypatch.setattr(intact, "file_digest", digest)
    return read


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Sets the clock some seconds ahead of now."""
    real = time.time
    return lambda seconds: monkeypatch.setattr(time, "time", lambda: real() + seconds)


def folders(archive: Path) -> list[Path]:
    return sorted((archive / RUN_ID / "trials").iterdir())


def test_what_was_right_lately_is_believed_until_somebody_writes_to_it(
    archive: Path, tmp_path: Path, read_bytes: list[Path], later: Callable[[float], None]
) -> None:
    checked = tmp_path / "state" / "checked.json"
    later(60)
    assert damaged_trials(folders(archive), checked) == {}
    assert len(read_bytes) > 10
    read_bytes.clear()
    assert damaged_trials(folders(archive), checked) == {}
    assert read_bytes == []
    path = folders(archive)[0] / "requests.arrow"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    os.utime(path, (1, 1))
    found = damaged_trials(folders(archive), checked)
    assert found == {path.parent: {"requests.arrow": "has changed since it was sealed"}}
    assert {p.parent for p in read_bytes} == {path.parent}, "the other trial is still believed"
    assert damaged_trials(folders(archive), checked) == found, "damage is never believed"


def test_after_a_day_every_byte_is_read_again(
    archive: Path, tmp_path: Path, read_bytes: list[Path], later: Callable[[float], None]
) -> None:
    checked = tmp_path / "checked.json"
    later(60)
    damaged_trials(folders(archive), checked)
    for seconds, read_again in ((3600, False), (25 * 3600, True), (-3600, True)):
        read_bytes.clear()
        later(seconds)
        damaged_trials(folders(archive), checked)
        assert bool(read_bytes) is read_again, seconds


def test_what_was_written_just_now_is_not_believed(
    archive: Path, tmp_path: Path, read_bytes: list[Path]
) -> None:
    reseal(folders(archive)[0])
    damaged_trials(folders(archive)[:1], tmp_path / "checked.json")
    assert not (tmp_path / "checked.json").exists()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"a": 1}', '{"a": ["b"]}', '{"a": ["b", "c"]}'])
def test_a_damaged_list_of_what_was_right_is_worth_nothing(
    archive: Path, tmp_path: Path, read_bytes: list[Path], text: str
) -> None:
    (tmp_path / "checked.json").write_text(text)
    assert damaged_trials(folders(archive), tmp_path / "checked.json") == {}
    assert read_bytes


def test_a_list_that_can_not_be_written_is_no_failure(archive: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert damaged_trials(folders(archive), tmp_path / "file" / "checked.json") == {}


def test_each_kind_of_damage_has_its_words(archive: Path) -> None:
    folder = folders(archive)[0]
    (folder / "memory.arrow").unlink()
    (folder / "service.log").write_text("other")
    (folder / "requests-1.arrow").write_bytes(b"")
    (folder / "gc.arrow").unlink()
    (folder / "gc.arrow").mkdir()
    assert damaged_files(folder) == {
        "gc.arrow": "is gone",
        "memory.arrow": "is gone",
        "requests-1.arrow": "has come since the folder was sealed",
        "service.log": "has changed since it was sealed",
    }
    (folder / "SHA256SUMS").write_bytes(b"\xff")
    assert list(damaged_files(folder)) == ["SHA256SUMS"]


def test_a_run_is_known_by_its_digests(archive: Path) -> None:
    run = Archive(archive).run(RUN_ID).path
    before = digest_of_run(run)
    assert digest_of_run(run) == before
    (folders(archive)[0] / "service.log").write_text("other")
    reseal(folders(archive)[0])
    assert digest_of_run(run) != before


def test_damage_to_a_log_alone_is_told_and_costs_no_trial(archive: Path) -> None:
    (folders(archive)[0] / "service.log").write_text("other")
    with open_database(archive, [RUN_ID]) as database:
        assert [record.valid for record in database.records] == [True, True]
        (told,) = [w for w in database.comparison().warnings if "service.log" in w]
    assert told == f"{RUN_ID}: {TRIAL}: service.log has changed since it was sealed"


def test_a_changed_document_of_a_run_is_a_warning_beside_the_table(archive: Path) -> None:
    path = archive / RUN_ID / "run.json"
    document = json.loads(path.read_text())
    document["comparison"]["margins"] = {"peak_rss": 0.5}
    path.write_text(json.dumps(document))
    with open_database(archive, [RUN_ID]) as database:
        assert any(
            "run.json is not what its digest says" in w for w in database.comparison().warnings
        )
    del document["builds"]
    path.write_text(json.dumps(document))
    assert Archive(archive).runs() == []
    assert [why for _, why in Archive(archive).unreadable()] == ["can't be read: it is damaged"]

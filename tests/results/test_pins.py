"""Names of runs: a run that is not what was named is noticed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from archives import RUN_ID, reseal, write_archive

from results.archive.archive import Archive
from results.archive.pins import FILE, changed_since, pin, pinned_run, pins_of, unpin
from results.errors import RunIncomplete, UserError


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    write_archive(tmp_path, blocks=1, run_id="20260101-000000-aaaa")
    return Archive(write_archive(tmp_path, blocks=1))


def trial(archive: Archive) -> Path:
    return archive.path / RUN_ID / "trials" / "b01-1-default-steady"


def test_a_name_finds_its_run_and_can_be_moved_and_taken_away(archive: Archive) -> None:
    pin(archive, "release-1.4", archive.run(RUN_ID))
    assert pinned_run(archive, "release-1.4").run_id == RUN_ID
    pin(archive, "release-1.4", archive.run("20260101"))
    assert pinned_run(archive, "release-1.4").run_id == "20260101-000000-aaaa"
    assert pinned_run(archive, RUN_ID).run_id == RUN_ID, "a run's own id serves too"
    unpin(archive, "release-1.4")
    assert pins_of(archive) == {}
    with pytest.raises(UserError, match=r"no baseline 'release-1\.4', only: none"):
        pinned_run(archive, "release-1.4")
    with pytest.raises(UserError, match="there is no baseline"):
        unpin(archive, "release-1.4")


def test_the_file_is_for_people(archive: Archive) -> None:
    made = pin(archive, "été", archive.run(RUN_ID))
    text = (archive.path / FILE).read_text(encoding="utf-8")
    assert "été" in text
    assert json.loads(text)["baselines"]["été"] == {
        "run_id": RUN_ID, "sha256": made.sha256, "pinned_at": made.pinned_at,
    }  # fmt: skip
    assert [run.run_id for run in archive.runs()] == ["20260101-000000-aaaa", RUN_ID]


@pytest.mark.parametrize("what", ["resealed", "one more trial", "run.json", "no digests"])
def test_a_run_that_changed_is_noticed(archive: Archive, what: str) -> None:
    made = pin(archive, "release", archive.run(RUN_ID))
    if what == "resealed":
        (trial(archive) / "service.log").write_text("other")
        reseal(trial(archive))
    elif what == "one more trial":
        write_archive(archive.path / "other", blocks=2)
        more = archive.path / "other" / RUN_ID / "trials" / "b02-1-default-steady"
        more.rename(trial(archive).with_name(more.name))
    elif what == "run.json":
        run = archive.run(RUN_ID)
        archive.write_run_document(run.path, run.document | {"status": "incomplete"})
    else:
        (archive.path / RUN_ID / "SHA256SUMS").unlink()
    assert changed_since(archive.run(RUN_ID), made)
    with pytest.raises(UserError, match=f"baseline set release {RUN_ID}"):
        pinned_run(archive, "release")


@pytest.mark.parametrize(
    "name", ["", "latest", "a b", "../x", "a/b", "-x", "x" * 65, "<b>", "'", "new\nline", RUN_ID]
)
def test_names_that_would_mislead_are_refused(archive: Archive, name: str) -> None:
    with pytest.raises(UserError):
        pin(archive, name, archive.run(RUN_ID))
    assert pins_of(archive) == {}


def test_neither_a_damaged_nor_a_running_run_gets_a_name(archive: Archive) -> None:
    run = archive.run(RUN_ID)
    archive.write_run_document(run.path, run.document | {"status": "running"})
    with pytest.raises(UserError, match="still running"):
        pin(archive, "release", archive.run(RUN_ID))
    archive.write_run_document(run.path, run.document)
    (trial(archive) / "requests.arrow").write_bytes(b"")
    with pytest.raises(RunIncomplete, match="damaged"):
        pin(archive, "release", archive.run(RUN_ID))


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"baselines": {"a": {}}}', '{"baselines": 3}'])
def test_a_file_that_is_none_is_told(archive: Archive, text: str) -> None:
    (archive.path / FILE).write_text(text)
    with pytest.raises(UserError, match="not a list of baselines"):
        pins_of(archive)


def test_two_who_name_at_once_lose_no_name(archive: Archive) -> None:
    from concurrent.futures import ThreadPoolExecutor

    run = archive.run(RUN_ID)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda number: pin(archive, f"name-{number}", run), range(12)))
    assert len(pins_of(archive)) == 12


def test_an_archive_that_can_not_be_written_to_is_told(archive: Archive) -> None:
    from results.errors import EnvironmentLacks

    (archive.path / f".{FILE}.lock").mkdir()
    with pytest.raises(EnvironmentLacks, match="can't be written to"):
        pin(archive, "release", archive.run(RUN_ID))

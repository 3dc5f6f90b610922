"""A damaged archive is found, whatever is damaged in it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest
from archives import write_archive
from hypothesis import given, settings
from hypothesis import strategies as st

from results.archive.archive import Archive, RunEntry
from results.archive.pins import FILE, pin
from results.archive.verify import Damage, damaged_pins, unreadable_runs, verify_run
from results.files import SUMS, write_sums

RUNS: dict[Path, list[RunEntry]] = {}
"""The runs of an archive as they were opened before anything was damaged."""


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_archive(tmp_path_factory.mktemp("verify"), blocks=2)


def damage(archive: Path) -> list[Damage]:
    (run,) = RUNS.setdefault(archive, Archive(archive).runs())
    return list(verify_run(run))


def files(archive: Path) -> list[Path]:
    return sorted(path for path in archive.rglob("*") if path.is_file())


@pytest.fixture
def restored(archive: Path) -> Iterator[Path]:
    """The archive, put back as it was afterwards."""
    before = {path: path.read_bytes() for path in files(archive)}
    yield archive
    for path in files(archive):
        if path not in before:
            path.unlink()
    for path, data in before.items():
        path.write_bytes(data)


def test_an_untouched_archive_is_as_it_was_measured(archive: Path) -> None:
    assert damage(archive) == []


def test_the_digests_are_those_of_a_standard_tool(archive: Path) -> None:
    for sums in archive.rglob(SUMS):
        subprocess.run(["sha256sum", "--check", "--strict", SUMS], cwd=sums.parent, check=True)


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_a_flipped_bit_in_any_file_is_found(archive: Path, data: st.DataObject) -> None:
    path = data.draw(st.sampled_from(files(archive)))
    original = path.read_bytes()
    path.write_bytes(flip(original, data))
    try:
        assert damage(archive), path.name
    finally:
        path.write_bytes(original)


def flip(content: bytes, draw: st.DataObject) -> bytes:
    at = draw.draw(st.integers(0, len(content) - 1))
    return (
        content[:at] + bytes([content[at] ^ 1 << draw.draw(st.integers(0, 7))]) + content[at + 1 :]
    )


@pytest.fixture(scope="module")
def named(tmp_path_factory: pytest.TempPathFactory) -> Archive:
    archive = Archive(write_archive(tmp_path_factory.mktemp("named"), blocks=1))
    pin(archive, "release-1.4", archive.run("latest"))
    pin(archive, "été", archive.run("latest"))
    return archive


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_a_flipped_bit_in_the_list_of_names_is_found(named: Archive, data: st.DataObject) -> None:
    path = named.path / FILE
    original = path.read_bytes()
    assert list(damaged_pins(named)) == []
    path.write_bytes(flip(original, data))
    try:
        (found, *_) = damaged_pins(named)
        assert found.path == path
    finally:
        path.write_bytes(original)


def test_names_of_runs_that_are_not_what_was_named_are_found(tmp_path: Path) -> None:
    archive = Archive(write_archive(tmp_path, blocks=1))
    pin(archive, "release", archive.run("latest"))
    older = json.loads((tmp_path / FILE).read_text())
    del older["sha256"]  # as it was written before there was one
    (tmp_path / FILE).write_text(json.dumps(older))
    assert list(damaged_pins(archive)) == []
    run = archive.run("latest")
    archive.write_run_document(run.path, run.document | {"status": "incomplete"})
    (changed,) = damaged_pins(archive)
    assert changed.text.endswith("and it has changed since")
    run.path.rename(tmp_path / "elsewhere")
    (gone,) = damaged_pins(archive)
    assert gone.text.endswith("and it is not in the archive any more")


def test_a_run_whose_document_can_not_be_read_is_not_passed_over(restored: Path) -> None:
    (document,) = restored.glob("*/run.json")
    document.write_bytes(b"\0" + document.read_bytes())
    (found,) = unreadable_runs(Archive(restored))
    assert found.path == document


@pytest.mark.parametrize("name", ["requests.arrow", "trial.json", "service.log"])
def test_a_file_that_is_gone_or_came_later_is_named(restored: Path, name: str) -> None:
    (folder, *_) = sorted(restored.glob("*/trials/*"))
    (folder / name).rename(folder / "other")
    assert {(d.path.name, d.text) for d in damage(restored)} == {
        ("other", "has come since the folder was sealed"),
        (name, "is gone"),
    }


def test_rows_that_the_record_does_not_count_are_found_behind_right_digests(
    restored: Path,
) -> None:
    first, second, *_ = sorted(restored.glob("*/trials/*"))
    (second / "memory.arrow").write_bytes((first / "gc.arrow").read_bytes())
    write_sums(second, [p.name for p in second.iterdir() if p.name != SUMS])
    texts = [d.text for d in damage(restored)]
    assert any("rows, the record counts" in text for text in texts)
    assert any("other columns" in text for text in texts)


def test_a_run_without_its_trials_is_damaged_and_no_crash(tmp_path: Path) -> None:
    root = write_archive(tmp_path, blocks=1)
    (run,) = Archive(root).runs()
    (run.path / "trials").rename(tmp_path / "elsewhere")
    assert [found.text for found in verify_run(run)] == ["is gone"]
    assert Archive(root).records(run.run_id) == []
    assert Archive(root).trial_names(run.run_id) == []


def test_a_record_of_another_trial_is_not_believed(restored: Path) -> None:
    first, second, *_ = sorted(restored.glob("*/trials/*"))
    (second / "trial.json").write_bytes((first / "trial.json").read_bytes())
    write_sums(second, [p.name for p in second.iterdir() if p.name != SUMS])
    assert [d.text for d in damage(restored)] == [
        f"is that of {first.parents[1].name}/{first.name}"
    ]
    records, lost = Archive(restored).read_records(first.parents[1].name)
    assert [record.trial_id for record in records] == [first.name]
    assert list(lost) == [second.name]


def test_values_are_unpacked_when_anybody_may_have_written_the_digests(restored: Path) -> None:
    (folder, *_) = sorted(restored.glob("*/trials/*"))
    (run,) = RUNS[restored]
    assert list(verify_run(run, decode=True)) == []
    with pa.ipc.open_file(folder / "gc.arrow") as file:
        table = file.read_all()
    at = table.schema.get_field_index("kind")
    words = pa.DictionaryArray.from_arrays(
        pa.array([7] * table.num_rows, pa.int32()), pa.array(["cycle"]), safe=False
    )
    with pa.ipc.new_file(folder / "gc.arrow", table.schema) as writer:
        writer.write_table(table.set_column(at, table.schema.field(at), words))
    write_sums(folder, [p.name for p in folder.iterdir() if p.name != SUMS])
    (found,) = verify_run(run, decode=True)
    assert "can't be read as a table" in found.text

"""The archive: runs by name, records of sealed trials, documents that are whole at any time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from archives import write_archive
from hypothesis import given
from hypothesis import strategies as st

from results.archive.archive import Archive, default_archive
from results.errors import EnvironmentLacks, UserError
from results.files import write_sums, write_whole
from results.record import Finding, TrialRecord


def document(run_id: str, started_ns: int = 1) -> dict[str, Any]:
    return {"schema_version": 1, "run_id": run_id, "status": "running", "started_ns": started_ns}


def record(trial_id: str, started_ns: int = 1) -> TrialRecord:
    return TrialRecord(
        schema_version=1, run_id="run", trial_id=trial_id, block=1, position=1, attempt=1,
        configuration="default", baseline=True, workload="steady", node_id="n", node_class="c",
        started_ns=started_ns, finished_ns=2, spec={}, node={}, versions={}, clock={},
    )  # fmt: skip


@pytest.fixture
def matrix(tmp_path: Path) -> Path:
    path = tmp_path / "matrix.yaml"
    path.write_text("service: é\n", encoding="utf-8")
    return path


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    return Archive.create(tmp_path / "archive")


def add_trial(folder: Path, name: str, text: str) -> None:
    (folder / "trials" / name).mkdir()
    (folder / "trials" / name / "trial.json").write_text(text, encoding="utf-8")
    write_sums(folder / "trials" / name, ["trial.json"])


def test_a_missing_archive_is_the_users_to_name(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--archive"):
        Archive(tmp_path / "nowhere")


def test_a_place_that_can_not_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(EnvironmentLacks, match=r"file/archive can't be written to: Not a dir"):
        Archive.create(tmp_path / "file" / "archive")


def test_creating_an_archive_twice_leaves_what_is_in_it(archive: Archive, matrix: Path) -> None:
    archive.create_run("one", document("one"), matrix)
    again = Archive.create(archive.path)
    assert [entry.run_id for entry in again.runs()] == ["one"]
    assert [path.name for path in archive.path.iterdir()] == ["one"]


def test_a_new_run_has_its_document_and_the_users_matrix(archive: Archive, matrix: Path) -> None:
    folder = archive.create_run("one", document("one"), matrix)
    assert folder == archive.path / "one"
    assert (folder / "matrix.yaml").read_bytes() == matrix.read_bytes()
    assert json.loads((folder / "run.json").read_text()) == document("one")
    with pytest.raises(EnvironmentLacks, match="one"):
        archive.create_run("one", document("one"), matrix)


def test_runs_come_in_order_of_their_start(archive: Archive, matrix: Path) -> None:
    for run_id, started_ns in (("b", 2), ("a", 3), ("c", 1)):
        archive.create_run(run_id, document(run_id, started_ns), matrix)
    assert [entry.run_id for entry in archive.runs()] == ["c", "b", "a"]
    assert archive.run("latest").run_id == "a"


@pytest.mark.parametrize(
    "text",
    ["", "{", "null", "[]", "3", "{}", '{"run_id": "x"}', '{"run_id": "x", "started_ns": ""}'],
)
def test_a_damaged_run_hides_no_other(archive: Archive, matrix: Path, text: str) -> None:
    archive.create_run("good", document("good"), matrix)
    (archive.path / "bad").mkdir()
    (archive.path / "bad" / "run.json").write_text(text)
    assert [entry.run_id for entry in archive.runs()] == ["good"]
    assert archive.run("latest").run_id == "good"


def test_a_run_is_found_by_the_beginning_of_its_id(archive: Archive, matrix: Path) -> None:
    for run_id in ("20260101-000000-abcd", "20260102-000000-abcd", "20260102-000000"):
        archive.create_run(run_id, document(run_id), matrix)
    assert archive.run("20260101").run_id == "20260101-000000-abcd"
    assert archive.run("20260102-000000").run_id == "20260102-000000", "exact before prefix"
    with pytest.raises(UserError, match=r"not unique.*20260102-000000.*20260102-000000-abcd"):
        archive.run("202601")
    with pytest.raises(UserError, match=r"not in the archive.*20260101-000000-abcd"):
        archive.run("20260101-000000-abce")


def test_an_empty_archive_tells_what_to_do(archive: Archive) -> None:
    with pytest.raises(UserError, match="no runs yet"):
        archive.run("latest")


def test_only_sealed_and_readable_trials_have_records(archive: Archive, matrix: Path) -> None:
    folder = archive.create_run("run", document("run"), matrix)
    add_trial(folder, "late", record("late", started_ns=20).to_json())
    add_trial(folder, "early", record("early", started_ns=10).to_json())
    add_trial(folder, "cut.partial", record("cut").to_json())
    for number, text in enumerate(("", "null", '"text"', "[]", "{}", "\udcff"), 1):
        raw = text.encode("utf-8", "surrogateescape")
        (folder / "trials" / f"bad{number}").mkdir()
        (folder / "trials" / f"bad{number}" / "trial.json").write_bytes(raw)
        write_sums(folder / "trials" / f"bad{number}", ["trial.json"])
    assert [r.trial_id for r in archive.records("run")] == ["early", "late"]
    assert archive.partial_trials("run") == [folder / "trials" / "cut.partial"]
    names = [f"bad{number}" for number in range(1, 7)]
    assert archive.trial_names("run") == [*names, "cut", "early", "late"]


def test_the_default_archive_is_told_by_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEAPGATE_ARCHIVE", "/elsewhere")
    assert default_archive() == Path("/elsewhere")
    monkeypatch.setenv("HEAPGATE_ARCHIVE", "")
    assert default_archive() == Path("archive")


def test_listing_runs_loads_nothing_heavy() -> None:
    code = (
        "import sys, results.archive.archive\n"
        "print(sorted({'pyarrow', 'numpy', 'grpc', 'duckdb'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_document_that_can_not_be_written_leaves_the_old_one(
    archive: Archive, matrix: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = archive.create_run("one", document("one"), matrix)

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(EnvironmentLacks, match="No space left"):
        archive.write_run_document(folder, document("one") | {"status": "complete"})
    assert archive.run("one").status == "running"
    assert sorted(path.name for path in folder.iterdir()) == [
        "SHA256SUMS", "matrix.yaml", "run.json", "trials",
    ]  # fmt: skip


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r")))
def test_any_text_is_read_back_as_written(
    tmp_path_factory: pytest.TempPathFactory, text: str
) -> None:
    path = tmp_path_factory.mktemp("whole") / "file"
    path.write_text("an older one")
    write_whole(path, text)
    assert path.read_text(encoding="utf-8") == text
    assert list(path.parent.iterdir()) == [path]


@given(st.text(st.characters(exclude_categories=["Cs"])), st.integers(0, 2**63 - 1))
def test_a_record_survives_its_file(text: str, started_ns: int) -> None:
    written = record("t", started_ns)
    written.findings.append(Finding("rows_lost", "invalid", text))
    read = TrialRecord.from_json(written.to_json())
    assert read == written
    assert not read.valid


@pytest.mark.parametrize("damage", ["cut", "gone", "empty"])
def test_a_trial_that_lost_a_table_since_does_not_count(tmp_path: Path, damage: str) -> None:
    root = write_archive(tmp_path / "archive", blocks=2)
    path = next(root.glob("*/trials/b01-*/requests.arrow"))
    data = path.read_bytes()
    path.unlink()
    if damage != "gone":
        path.write_bytes(data[: len(data) // 2] if damage == "cut" else b"")
    records = Archive(root).records(path.parents[2].name)
    broken = [record for record in records if not record.valid]
    assert [record.trial_id for record in broken] == [path.parent.name]
    assert "requests.arrow damaged or missing" in broken[0].findings[-1].text

"""Runs from elsewhere: verified before they enter, whole or not at all, over nothing."""

from __future__ import annotations

import gzip
import io
import json
import os
import shutil
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest
from archives import reseal, write_archive
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from results.archive.archive import Archive
from results.archive.intake import STAGING, abandoned_imports, import_runs
from results.archive.packing import unpack
from results.archive.verify import verify_run
from results.errors import UserError
from results.files import RUN_FILES, write_sums
from results.sql.database import open_database
from results.sql.export import export_packed

ONE, TWO, THREE = (f"2026010{n}-000000-abcd" for n in (1, 2, 3))


@pytest.fixture
def there(tmp_path: Path) -> Path:
    """An archive of three runs, from which runs are taken."""
    for run_id in (ONE, TWO, THREE):
        write_archive(tmp_path / "there", run_id=run_id, blocks=1)
    return tmp_path / "there"


@pytest.fixture
def here(tmp_path: Path) -> Archive:
    return Archive.create(tmp_path / "here")


def outcomes(archive: Archive, source: Path) -> dict[str, str]:
    return {arrival.run_id: arrival.outcome for arrival in import_runs(archive, source)}


def names(archive: Archive) -> list[str]:
    return sorted(path.name for path in archive.path.iterdir())


def packed(there: Path, form: str) -> Path:
    """The archive in one file."""
    target = there.with_name(f"runs{form}")
    runs = Archive(there).runs()
    if form in (".tar", ".tar.zst"):
        export_packed(runs, target)
    elif form == ".zip":
        shutil.make_archive(str(target.with_suffix("")), "zip", there)
    else:
        shutil.make_archive(str(target).removesuffix(form), "gztar", there.parent, there.name)
    return target


def tables_of(archive: Path) -> list[dict[str, object]]:
    with open_database(archive) as database:
        return database.query("from trial_metrics").to_pylist()


@pytest.mark.parametrize("form", ["folder", ".tar", ".tar.zst", ".tar.gz", ".zip"])
def test_runs_arrive_as_they_were(there: Path, here: Archive, form: str) -> None:
    source = there if form == "folder" else packed(there, form)
    assert outcomes(here, source) == dict.fromkeys((ONE, TWO, THREE), "imported")
    assert names(here) == [ONE, TWO, THREE], "nothing else is left"
    assert [list(verify_run(run)) for run in here.runs()] == [[], [], []]
    assert tables_of(here.path) == tables_of(there)
    assert outcomes(here, source) == dict.fromkeys((ONE, TWO, THREE), "here already")


def test_one_run_by_its_folder(there: Path, here: Archive) -> None:
    assert outcomes(here, there / TWO) == {TWO: "imported"}


def test_a_damaged_run_is_refused_by_name_and_the_others_come_in(
    there: Path, here: Archive
) -> None:
    path = there / TWO / "trials" / "b01-1-default-steady" / "requests.arrow"
    path.write_bytes(path.read_bytes()[:-9])
    found = {arrival.run_id: arrival for arrival in import_runs(here, there)}
    assert {name: a.outcome for name, a in found.items()} == {
        ONE: "imported", TWO: "refused", THREE: "imported",
    }  # fmt: skip
    assert "requests.arrow has changed" in found[TWO].why
    assert names(here) == [ONE, THREE]


def test_another_run_of_the_same_name_overwrites_nothing(there: Path, here: Archive) -> None:
    import_runs(here, there / ONE)
    before = (here.path / ONE / "SHA256SUMS").read_bytes()
    trial = there / ONE / "trials" / "b01-1-default-steady"
    (trial / "service.log").write_text("another log\n")
    reseal(trial)
    (arrival,) = import_runs(here, there / ONE)
    assert arrival.outcome == "refused"
    assert "is here already" in arrival.why
    assert (here.path / ONE / "SHA256SUMS").read_bytes() == before
    assert (here.path / ONE / "trials" / trial.name / "service.log").read_text() == "ready\n"


def test_values_that_no_table_may_have_are_refused_behind_right_digests(
    there: Path, here: Archive
) -> None:
    """A word's number beyond the words: who reads it reads memory that is not the file's."""
    trial = there / ONE / "trials" / "b01-1-default-steady"
    with pa.ipc.open_file(trial / "requests.arrow") as file:
        table = file.read_all()
    at = table.schema.get_field_index("method")
    words = pa.DictionaryArray.from_arrays(
        pa.array([99] * table.num_rows, pa.int32()), pa.array(["GET"]), safe=False
    )
    changed = table.set_column(at, table.schema.field(at), words)
    with pa.ipc.new_file(trial / "requests.arrow", table.schema) as writer:
        writer.write_table(changed)
    reseal(trial)
    (arrival,) = import_runs(here, there / ONE)
    assert arrival.outcome == "refused"
    assert "can't be read as a table" in arrival.why


def spoil(there: Path, how: str) -> None:
    run = there / ONE
    document = json.loads((run / "run.json").read_text())
    if how == "running":
        document["status"] = "running"
    elif how == "another name":
        document["run_id"] = "../escaped"
    elif how == "no document":
        document = {"run_id": ONE, "started_ns": 1, "status": "complete"}
    elif how == "newer":
        document["schema_version"] = 99
    (run / "run.json").write_text(json.dumps(document))
    write_sums(run, RUN_FILES)
    trial = run / "trials" / "b01-1-default-steady"
    if how == "record of another":
        (trial / "trial.json").write_text(
            (trial / "trial.json").read_text().replace(ONE, "../../elsewhere")
        )
        reseal(trial)
    elif how == "record without a service":
        record = json.loads((trial / "trial.json").read_text())
        record["spec"] = {}
        (trial / "trial.json").write_text(json.dumps(record))
        reseal(trial)
    elif how == "a link":
        (trial / "service.log").unlink()
        (trial / "service.log").symlink_to("/etc/passwd")
    elif how == "a pipe":
        os.mkfifo(trial / "pipe")
    elif how == "no digests":
        (run / "SHA256SUMS").unlink()


@pytest.mark.parametrize(
    ("how", "why"),
    [
        ("running", "still running"),
        ("another name", "its folder must have that name"),
        ("no document", "not the document of a run"),
        ("newer", "of format 99"),
        ("record of another", "is that of ../../elsewhere"),
        ("record without a service", "lacks something"),
        ("a link", "neither a file nor a folder"),
        ("a pipe", "neither a file nor a folder"),
        ("no digests", "can't be read"),
    ],
)
def test_what_no_archive_should_have_is_refused(
    there: Path, here: Archive, how: str, why: str
) -> None:
    spoil(there, how)
    (arrival,) = import_runs(here, there / ONE)
    assert arrival.outcome == "refused"
    assert why in arrival.why
    assert names(here) == []


def test_a_trial_that_was_cut_off_stays_behind(there: Path, here: Archive) -> None:
    (there / ONE / "trials" / "b01-1-default-steady").rename(there / ONE / "trials" / "x.partial")
    assert outcomes(here, there / ONE) == {ONE: "imported"}
    assert list((here.path / ONE / "trials").iterdir()) == []


def evil_tar(path: Path, change: Callable[[tarfile.TarInfo], None]) -> Path:
    with tarfile.open(path, "w") as tar:
        for name in ("run/run.json", "run/evil"):
            member = tarfile.TarInfo(name)
            member.size = 2
            if name == "run/evil":
                change(member)
            tar.addfile(member, io.BytesIO(b"{}"))
    return path


def kind_of(kind: bytes, link: str = "") -> Callable[[tarfile.TarInfo], None]:
    def change(member: tarfile.TarInfo) -> None:
        member.type, member.linkname, member.size = kind, link, 0

    return change


def name_of(name: str) -> Callable[[tarfile.TarInfo], None]:
    return lambda member: setattr(member, "name", name)


@pytest.mark.parametrize(
    "change",
    [
        name_of("../evil"),
        name_of("/evil"),
        name_of("run/../../evil"),
        name_of("run/trials/a/b/c/d/e"),
        name_of("C:\\evil"),
        name_of("run\\..\\..\\evil"),
        name_of("run/new\nline"),
        name_of("run/run.json"),
        name_of("run/run.json/evil"),
        name_of("."),
        kind_of(tarfile.SYMTYPE, "/etc/passwd"),
        kind_of(tarfile.LNKTYPE, "run/run.json"),
        kind_of(tarfile.CHRTYPE),
        kind_of(tarfile.FIFOTYPE),
    ],
)
def test_a_pack_that_reaches_out_is_refused_whole(
    tmp_path: Path, here: Archive, change: Callable[[tarfile.TarInfo], None]
) -> None:
    source = evil_tar(tmp_path / "evil.tar", change)
    with pytest.raises(UserError, match="is refused"):
        import_runs(here, source)
    assert names(here) == []
    assert sorted(p.name for p in tmp_path.iterdir()) == ["evil.tar", "here"]


def test_a_zip_with_a_link_or_a_way_out_is_refused(tmp_path: Path, here: Archive) -> None:
    for number, (name, mode) in enumerate((("run/a", 0o120777), ("../a", 0o100644))):
        source = tmp_path / f"{number}.zip"
        with zipfile.ZipFile(source, "w") as pack:
            member = zipfile.ZipInfo(name)
            member.external_attr = mode << 16
            pack.writestr(member, "/etc/passwd")
        with pytest.raises(UserError, match="is refused"):
            import_runs(here, source)
    assert names(here) == []


@pytest.mark.parametrize("form", [".tar", ".tar.gz"])
def test_a_tar_that_is_cut_between_two_files_is_refused(
    tmp_path: Path, here: Archive, form: str
) -> None:
    write_archive(tmp_path / "there", run_id=ONE, blocks=1)
    whole = packed(tmp_path / "there", ".tar").read_bytes()
    with tarfile.open(fileobj=io.BytesIO(whole)) as tar:
        places = [member.offset for member in tar.getmembers()][1:]
    for place in places:
        cut = tmp_path / f"cut{form}"
        cut.write_bytes(whole[:place] if form == ".tar" else gzip.compress(whole[:place]))
        with pytest.raises(UserError, match="cut off"):
            import_runs(here, cut)
    assert names(here) == []


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_a_damaged_pack_never_brings_in_damaged_runs(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    root = tmp_path_factory.mktemp("damaged")
    write_archive(root / "there", run_id=ONE, blocks=1)
    form = data.draw(st.sampled_from([".tar", ".tar.zst", ".tar.gz", ".zip"]))
    source = packed(root / "there", form)
    content = bytearray(source.read_bytes())
    at = int(data.draw(st.floats(0, 1, exclude_max=True)) * len(content))
    if data.draw(st.booleans()):
        content[at] ^= 1 << data.draw(st.integers(0, 7))
    else:
        del content[at:]
    source.write_bytes(content)
    here = Archive.create(root / "here")
    try:
        import_runs(here, source)
    except UserError:
        assert names(here) == []
    for run in here.runs():
        assert list(verify_run(run)) == []
        assert tables_of(here.path) == tables_of(root / "there")
    shutil.rmtree(root)


@pytest.mark.parametrize(
    "content", [b"", b"no pack", b"\x28\xb5\x2f\xfd", gzip.compress(b"x", mtime=0)]
)
def test_what_is_no_pack_is_told(tmp_path: Path, here: Archive, content: bytes) -> None:
    (tmp_path / "source").write_bytes(content)
    with pytest.raises(UserError, match=r"can't be read as a tar or zip|no runs in"):
        import_runs(here, tmp_path / "source")
    with pytest.raises(UserError, match="there is no"):
        import_runs(here, tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="there are no runs"):
        import_runs(here, tmp_path / "empty")


def test_parquet_says_why_it_can_not_be_imported(tmp_path: Path, here: Archive) -> None:
    (tmp_path / "lake" / "requests" / "run_id=a").mkdir(parents=True)
    with pytest.raises(UserError, match="nothing could be verified"):
        import_runs(here, tmp_path / "lake")


def test_a_pack_larger_than_the_disk_is_refused_before_it_fills(tmp_path: Path) -> None:
    from results.errors import EnvironmentLacks

    source = tmp_path / "huge.tar"
    member = tarfile.TarInfo("run/huge")
    member.size = 2**60
    source.write_bytes(member.tobuf(tarfile.GNU_FORMAT) + bytes(1024))
    (tmp_path / "into").mkdir()
    with pytest.raises(EnvironmentLacks, match="not enough room"):
        unpack(source, tmp_path / "into")


def test_what_a_killed_import_left_is_found_when_it_is_old(here: Archive) -> None:
    left = here.path / f"{STAGING}abc"
    (left / "run" / ONE / "trials").mkdir(parents=True)
    assert here.runs() == []
    assert list(here.unreadable()) == []
    assert abandoned_imports(here, older_than_s=3600) == []
    os.utime(left, (1, 1))
    assert abandoned_imports(here, older_than_s=3600) == [left]

"""Programs and scenarios on a node's disk: sent once, never anything but what was planned."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.bundles import pack_scenarios
from results.errors import EnvironmentLacks, UserError
from workers.parcels import Parcels


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@given(st.lists(st.binary(max_size=100), max_size=8))
def test_what_was_sent_is_not_asked_for_again(
    tmp_path_factory: pytest.TempPathFactory, sent: list[bytes]
) -> None:
    parcels = Parcels(tmp_path_factory.mktemp("parcels"))
    digests = [digest(data) for data in dict.fromkeys(sent)]
    assert parcels.missing(digests) == digests
    for data in sent:
        parcels.store(digest(data), "program", data)
    assert parcels.missing(digests) == []
    assert all(parcels.path(digest(data)).read_bytes() == data for data in sent)


def test_a_parcel_that_is_not_what_was_sent_is_refused(tmp_path: Path) -> None:
    parcels = Parcels(tmp_path)
    with pytest.raises(EnvironmentLacks, match="arrived with SHA-256"):
        parcels.store(digest(b"planned"), "program", b"another")
    assert parcels.missing([digest(b"planned")]) == [digest(b"planned")]
    assert list(tmp_path.iterdir()) == []


def test_a_name_can_not_lead_out_of_the_folder(tmp_path: Path) -> None:
    root = tmp_path / "parcels"
    Parcels(root).store(digest(b"x"), "../../escaped", b"x")
    assert sorted(p.name for p in tmp_path.rglob("*") if p.is_file()) == ["escaped"]
    assert Parcels(root).path(digest(b"x")).parent.parent == root


def test_the_oldest_parcels_go_first(tmp_path: Path) -> None:
    parcels = Parcels(tmp_path)
    for age, data in enumerate([b"new" * 100, b"old" * 100]):
        parcels.store(digest(data), "program", data)
        os.utime(tmp_path / digest(data), (10_000 - age, 10_000 - age))
    parcels.prune(keep_bytes=400)
    assert parcels.missing([digest(b"new" * 100), digest(b"old" * 100)]) == [digest(b"old" * 100)]


def test_a_scenario_travels_with_what_lies_beside_it(tmp_path: Path) -> None:
    folder, target = tmp_path / "scenario", tmp_path / "packed"
    folder.mkdir()
    target.mkdir()
    (folder / "locustfile.py").write_text("import helper")
    (folder / "helper.py").write_text("x = 1")
    (folder / ".secret").write_text("not sent")
    (first,) = pack_scenarios([str(folder / "locustfile.py")], target)
    os.utime(folder / "helper.py", (1, 1))
    (second,) = pack_scenarios([str(folder / "locustfile.py")], target)
    assert first.sha256 == second.sha256, "the same files make the same parcel"
    parcels = Parcels(tmp_path / "parcels")
    parcels.store(first.sha256, first.path.name, first.path.read_bytes())
    unpacked = parcels.unpacked(first.sha256)
    assert {p.name: p.read_text() for p in unpacked.iterdir()} == {
        "locustfile.py": "import helper",
        "helper.py": "x = 1",
    }


def test_a_scenario_beside_large_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "locustfile.py").touch()
    with (tmp_path / "dump").open("wb") as file:
        file.truncate(17 * 2**20)
    with pytest.raises(UserError, match="in a folder of its own"):
        pack_scenarios([str(tmp_path / "locustfile.py")], tmp_path)

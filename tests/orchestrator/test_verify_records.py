"""`bench verify` of an archive: names of runs and signed records are looked at too."""

from __future__ import annotations

from pathlib import Path

import pytest
from archives import RUN_ID, write_archive
from bench_command import Workplace
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.answers.verify import damaged_records
from results.archive.archive import Archive, RunEntry

POLICY = "objectives: [peak_rss <= 1GiB]\n"
RECORD = "signoff-optimised.json"


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    place = Workplace(tmp_path_factory.mktemp("signed"))
    write_archive(place.archive, configurations={"default": {}, "optimised": {}}, blocks=1)
    (place.root / "policy.yaml").write_text(POLICY)
    assert place.bench("keys", "new", "release").code == 0
    signed = place.bench("signoff", "--policy", "policy.yaml")
    assert (place.archive / RUN_ID / f"{RECORD}.sig").exists(), signed.text
    return place


@pytest.fixture(scope="module")
def run(workplace: Workplace) -> RunEntry:
    return Archive(workplace.archive).run("latest")


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_a_flipped_bit_in_a_record_or_its_signature_is_found(
    run: RunEntry, data: st.DataObject
) -> None:
    path = run.path / data.draw(st.sampled_from((RECORD, f"{RECORD}.sig")))
    original = path.read_bytes()
    assert list(damaged_records(run)) == []
    content = bytearray(original)
    at = data.draw(st.integers(0, len(content) - 1))
    content[at] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(bytes(content))
    try:
        assert list(damaged_records(run)), (path.name, at)
    finally:
        path.write_bytes(original)


def test_no_byte_of_a_signature_may_change(run: RunEntry) -> None:
    path = run.path / f"{RECORD}.sig"
    original = path.read_bytes()
    try:
        for at, byte in enumerate(original):
            for bit in range(8):
                path.write_bytes(
                    original[:at] + bytes([byte ^ 1 << bit]) + original[at + 1 :]
                )  # fmt: skip
                assert list(damaged_records(run)), (at, bit)
    finally:
        path.write_bytes(original)


def test_what_was_named_and_signed_is_verified_with_the_archive(workplace: Workplace) -> None:
    assert workplace.bench("baseline", "set", "release").code == 0
    assert workplace.bench("verify").code == 0
    record = workplace.archive / RUN_ID / RECORD
    text = record.read_text()
    record.write_text(text.replace("optimised", "optimized"))
    told = workplace.bench("verify")
    assert told.code == 3
    assert f"{RECORD} the record is not the one that was signed" in told.out.replace("\n", " ")
    assert workplace.bench("verify", RUN_ID).code == 3
    record.write_text(text)
    names = workplace.archive / "baselines.json"
    names.write_text(names.read_text().replace("release", "relaese"))
    told = workplace.bench("verify", "--json")
    assert told.code == 3
    (row,) = told.json()
    assert (row["run_id"], Path(row["path"]).name) == (None, "baselines.json")
    assert workplace.bench("verify", RUN_ID).code == 0
    names.unlink()


def test_an_unsigned_record_is_told_and_is_no_damage(workplace: Workplace) -> None:
    signature = workplace.archive / RUN_ID / f"{RECORD}.sig"
    text = signature.read_text()
    signature.unlink()
    told = workplace.bench("verify")
    assert told.code == 0
    assert f"{RECORD} is not signed: whether it changed can't be told" in told.out
    signature.write_text(text)


def test_a_record_that_went_elsewhere_keeps_its_run(tmp_path: Path) -> None:
    place = Workplace(tmp_path)
    write_archive(place.archive, configurations={"default": {}, "optimised": {}}, blocks=1)
    (tmp_path / "policy.yaml").write_text(POLICY)
    assert place.bench("keys", "new", "release").code == 0
    signing = ["signoff", "--policy", "policy.yaml", "-o", "record.json"]
    place.bench(*signing)
    kept = place.archive / RUN_ID / RECORD
    assert kept.read_bytes() == (tmp_path / "record.json").read_bytes()
    (row,) = place.bench("gc", "--max-size", "1KiB", "--last-too", "--yes", "--json").json()
    assert (row["removed"], row["why"]) == (False, "it is signed")
    assert place.bench("verify", str(kept)).code == 0
    signed = kept.read_bytes()
    (tmp_path / "state" / "keys" / "release").unlink()
    assert "is not signed" in place.bench(*signing).text
    assert kept.read_bytes() == signed

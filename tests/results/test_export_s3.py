"""`bench export -o s3://…` against a server that speaks S3: the set is there, whole, readable."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pyarrow.dataset as ds
import pyarrow.fs
import pyarrow.parquet as pq
import pytest
from archives import write_archive

from results.export import COMPLETE
from results.record import TrialRecord

BENCH = Path(sys.executable).with_name("bench")
SECRET = "wJalrXUtnFEMIkeyofnobody"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server with the bucket `measured`."""
    log = tmp_path_factory.mktemp("s3") / "log"
    with log.open("w") as told:
        server = subprocess.Popen(
            [sys.executable, "-u", "-m", "moto.server", "-H", "127.0.0.1", "-p", "0"],
            stdout=told,
            stderr=subprocess.STDOUT,
        )
    try:
        while not (found := re.search(r"http://127\.0\.0\.1:\d+", log.read_text())):
            assert server.poll() is None, log.read_text()
        bucket = urllib.request.Request(f"{found[0]}/measured", method="PUT")
        urllib.request.urlopen(bucket, timeout=60).close()
        yield found[0]
    finally:
        server.kill()
        server.wait()


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_archive(tmp_path_factory.mktemp("export"), blocks=2)


def export_to(store: str, archive: Path, address: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {
        "AWS_ACCESS_KEY_ID": "somebody",
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_ENDPOINT_URL": store,
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_REGION": "us-east-1",
    }
    command = [BENCH, "export", "--archive", archive, "-o", address]
    return subprocess.run(
        command, check=False, capture_output=True, text=True, env=environment, timeout=240
    )


def test_the_set_is_in_the_bucket_and_reads_back(store: str, archive: Path) -> None:
    address = "s3://measured/lake"
    told = export_to(store, archive, address)
    assert told.returncode == 0, told.stderr
    assert "wrote s3://measured/lake (" in told.stdout
    bucket = pyarrow.fs.S3FileSystem(
        access_key="somebody", secret_key=SECRET, endpoint_override=store, region="us-east-1"
    )
    assert bucket.get_file_info(f"measured/lake/{COMPLETE}").is_file
    requests = ds.dataset("measured/lake/requests", filesystem=bucket, partitioning="hive")
    sealed = (TrialRecord.read(path) for path in archive.glob("*/trials/*/trial.json"))
    assert requests.count_rows() == sum(record.rows["requests"] for record in sealed)
    cells = pq.read_table("measured/lake/cells.parquet", filesystem=bucket)
    assert "peak_rss" in cells["metric"].to_pylist()
    again = export_to(store, archive, address)
    assert (again.returncode, "is there already" in again.stderr) == (2, True)
    for said in (told, again):
        assert SECRET not in said.stdout + said.stderr
    assert not any(SECRET.encode() in p.read_bytes() for p in archive.rglob("*") if p.is_file())


def test_a_bucket_that_is_not_there_is_told(store: str, archive: Path) -> None:
    told = export_to(store, archive, "s3://nowhere/lake")
    assert told.returncode == 4
    assert "s3://nowhere/lake can't be" in told.stderr


@pytest.mark.parametrize(
    "address",
    [f"s3://somebody:{SECRET}@measured/lake", f"s3://measured/lake?secret_key={SECRET}"],
)
def test_a_key_in_the_address_is_refused_and_not_repeated(archive: Path, address: str) -> None:
    told = export_to("http://127.0.0.1:9", archive, address)
    assert told.returncode == 2
    assert "AWS_SECRET_ACCESS_KEY" in told.stderr
    assert SECRET not in told.stdout + told.stderr

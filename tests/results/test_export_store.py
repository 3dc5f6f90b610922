"""`bench export` into object stores that speak S3 and Google's protocol: whole, and readable."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pyarrow.dataset as ds
import pyarrow.fs
import pyarrow.parquet as pq
import pytest
from archives import write_archive

from results.record import TrialRecord
from results.sql.export import COMPLETE

BENCH = Path(sys.executable).with_name("bench")
SECRET = "wJalrXUtnFEMIkeyofnobody"


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
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
def gs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """What addresses in the bucket `measured` of a server end with."""
    with closing(socket.create_server(("127.0.0.1", 0))) as free:
        port = free.getsockname()[1]
    log = tmp_path_factory.mktemp("gs") / "log"
    with log.open("w") as told:
        server = subprocess.Popen(
            [
                *(sys.executable, "-m", "gcp_storage_emulator", "start", "--in-memory"),
                *("--host", "127.0.0.1", "--port", str(port), "--default-bucket", "measured"),
            ],
            stdout=told,
            stderr=subprocess.STDOUT,
        )
    try:
        while not _answers(port):
            assert server.poll() is None, log.read_text()
        yield f"?endpoint_override=127.0.0.1:{port}&scheme=http"
    finally:
        server.kill()
        server.wait()


def _answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        time.sleep(0.05)
        return False
    return True


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_archive(tmp_path_factory.mktemp("export"), blocks=2)


def export_to(address: str, archive: Path, s3: str = "") -> subprocess.CompletedProcess[str]:
    environment = os.environ | {
        "AWS_ACCESS_KEY_ID": "somebody",
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_ENDPOINT_URL": s3,
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_REGION": "us-east-1",
    }
    command = [BENCH, "export", "--archive", archive, "-o", address]
    return subprocess.run(
        command, check=False, capture_output=True, text=True, env=environment, timeout=240
    )


def check_whole(bucket: pyarrow.fs.FileSystem, archive: Path) -> None:
    """The set is in `measured/lake`, and has the archive's rows."""
    assert bucket.get_file_info(f"measured/lake/{COMPLETE}").is_file
    requests = ds.dataset("measured/lake/requests", filesystem=bucket, partitioning="hive")
    sealed = (TrialRecord.read(path) for path in archive.glob("*/trials/*/trial.json"))
    assert requests.count_rows() == sum(record.rows["requests"] for record in sealed)
    cells = pq.read_table("measured/lake/cells.parquet", filesystem=bucket)
    assert "peak_rss" in cells["metric"].to_pylist()


def test_the_set_is_in_the_bucket_and_reads_back(s3: str, archive: Path) -> None:
    address = "s3://measured/lake"
    told = export_to(address, archive, s3)
    assert told.returncode == 0, told.stderr
    assert "wrote s3://measured/lake (" in told.stdout
    bucket = pyarrow.fs.S3FileSystem(
        access_key="somebody", secret_key=SECRET, endpoint_override=s3, region="us-east-1"
    )
    check_whole(bucket, archive)
    again = export_to(address, archive, s3)
    assert (again.returncode, "is there already" in again.stderr) == (2, True)
    for said in (told, again):
        assert SECRET not in said.stdout + said.stderr
    assert not any(SECRET.encode() in p.read_bytes() for p in archive.rglob("*") if p.is_file())


def test_googles_store_takes_it_too(gs: str, archive: Path) -> None:
    address = f"gs://anonymous@measured/lake{gs}"
    told = export_to(address, archive)
    assert told.returncode == 0, told.stderr
    bucket, _ = pyarrow.fs.FileSystem.from_uri(address)
    check_whole(bucket, archive)
    again = export_to(address, archive)
    assert (again.returncode, "is there already" in again.stderr) == (2, True)


@pytest.mark.parametrize("kind", ["s3", "gs"])
def test_a_bucket_that_is_not_there_is_told_and_not_made(
    kind: str, s3: str, gs: str, archive: Path
) -> None:
    address = "s3://nowhere/lake" if kind == "s3" else f"gs://anonymous@nowhere/lake{gs}"
    for _ in range(2):
        told = export_to(address, archive, s3)
        assert told.returncode == 4
        assert "there is no bucket 'nowhere'" in told.stderr


def test_a_store_that_does_not_answer_is_told(archive: Path) -> None:
    nobody = "endpoint_override=127.0.0.1:9&scheme=http&retry_limit_seconds=1"
    told = export_to(f"gs://anonymous@measured/lake?{nobody}", archive)
    assert told.returncode == 4
    assert "can't be" in told.stderr


@pytest.mark.parametrize(
    "address",
    [f"s3://somebody:{SECRET}@measured/lake", f"s3://measured/lake?secret_key={SECRET}"],
)
def test_a_key_in_the_address_is_refused_and_not_repeated(archive: Path, address: str) -> None:
    told = export_to(address, archive, "http://127.0.0.1:9")
    assert told.returncode == 2
    assert "AWS_SECRET_ACCESS_KEY" in told.stderr
    assert SECRET not in told.stdout + told.stderr

"""Feeders: whichever way rows are shared out, none is used twice and none is left out."""

from __future__ import annotations

import itertools
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest
from driven import Drive, driven, scenario
from hypothesis import given
from hypothesis import strategies as st
from servers import HERE, serving

from orchestrator.bundles import pack_scenarios
from workers.parcels import Parcels
from workloads.datafiles import Stripe, drawn, in_order, own_rows, read_table

VISITOR = """
from locust import task, constant
from workloads.feeders import Feeder
from workloads.users import HttpUser

people = Feeder("people.csv"{mode})

class Visitor(HttpUser):
    wait_time = constant(0)

    @task
    def visit(self):
        self.client.get("/people/" + people.next()["id"])
"""


@given(total=st.integers(0, 300), count=st.integers(1, 9), seed=st.none() | st.integers(0, 2**31))
def test_stripes_share_out_every_row_once(total, count, seed) -> None:
    shares = [own_rows(total, Stripe(i, count), seed).tolist() for i in range(count)]
    assert sorted(itertools.chain(*shares)) == list(range(total))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1
    again = [own_rows(total, Stripe(i, count), seed).tolist() for i in range(count)]
    assert shares == again, "the seed says the order"


@given(st.lists(st.integers(-9, 99), min_size=1, max_size=50), st.integers(0, 2**31))
def test_drawing_is_by_the_seed_and_differs_between_stripes(values, seed) -> None:
    table = pa.table({"value": values})

    def first(stripe: Stripe) -> list[int]:
        return [row["value"] for row in itertools.islice(drawn(table, seed, stripe), 40)]

    assert first(Stripe(0, 2)) == first(Stripe(0, 2))
    assert set(first(Stripe(1, 2))) <= set(values)
    if len(set(values)) == len(values) > 5:
        assert first(Stripe(0, 2)) != first(Stripe(1, 2))


TEXTS = st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\0"), max_size=8)


@given(st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=20))
def test_a_csv_file_gives_back_the_texts_that_were_written(tmp_path_factory, rows) -> None:
    import csv

    path = tmp_path_factory.mktemp("csv") / "rows.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, quoting=csv.QUOTE_ALL)
        writer.writerows([("a", "b"), *rows])
    table = read_table(path)
    read = [
        (row["a"], row["b"]) for row in in_order(table, own_rows(table.num_rows, Stripe(), None))
    ]
    assert read == rows


def test_arrow_and_parquet_keep_their_types(tmp_path) -> None:
    table = pa.table({"id": [7, 8], "tags": [["a"], []]})
    pa.parquet.write_table(table, tmp_path / "rows.parquet")
    with pa.ipc.new_file(tmp_path / "rows.arrow", table.schema) as writer:
        writer.write_table(table)
    with pa.ipc.new_stream(tmp_path / "rows.ipc", table.schema) as writer:
        writer.write_table(table)
    for name in ("rows.parquet", "rows.arrow", "rows.ipc"):
        assert read_table(tmp_path / name).to_pylist() == table.to_pylist()


@pytest.mark.parametrize(
    ("content", "want_words"),
    [
        (b"", "Empty CSV file"),
        (b"a,b\n", "has no rows"),
        (b"a,b\n1\n", "Row #2: Expected 2 columns, got 1"),
        (b"a,a\n1,2\n", "two columns with the name 'a'"),
        (b"a\n\xff\n", "invalid UTF8"),
        (None, "there is no file"),
    ],
)
def test_a_file_that_can_not_feed_says_why(tmp_path, content, want_words) -> None:
    path = tmp_path / "rows.csv"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ValueError, match=want_words):
        read_table(path)


def people(folder: Path, count: int) -> None:
    rows = "\n".join(f"{number:05d},name {number}" for number in range(count))
    (folder / "people.csv").write_text(f"id,name\n{rows}\n")


def test_no_row_is_used_by_two_processes_and_its_end_is_told(tmp_path) -> None:
    people(tmp_path, 100)
    scenario(tmp_path, VISITOR.format(mode=""))
    with serving("plain_server.py") as server, ExitStack() as started:
        drives = []
        for index in range(2):
            drive = Drive(tmp_path, server.base_url, users=4, measure_ms=400, stripe=(index, 2))
            started.callback(drive.generator.close)
            drives.append(drive)
        for drive in drives:
            drive.prepare()
        for drive in drives:
            drive.go()
        ended = [drive.outcome() for drive in drives]
    asked = Counter(row["name"] for done in ended for row in done.rows)
    assert asked == {f"/people/{number:05d}": 1 for number in range(100)}
    for done in ended:
        (event,) = done.events
        assert "people.csv: all 50 rows of this process were used" in event
        assert "(1 times)" in event


def test_a_circular_feeder_begins_again_with_its_own_rows(tmp_path) -> None:
    people(tmp_path, 7)
    with serving("plain_server.py") as server:
        done = driven(
            tmp_path, VISITOR.format(mode=', mode="circular", shuffle=True'), server.base_url,
            users=1, measure_ms=300, stripe=(1, 2),
        )  # fmt: skip
    asked = [row["name"] for row in done.rows]
    assert len(asked) > 9
    assert asked[:3] == asked[3:6] == asked[6:9]
    assert len(set(asked)) == 3
    assert done.events == []


def test_a_file_with_fewer_rows_than_processes_is_refused(tmp_path) -> None:
    from results.errors import UserError

    people(tmp_path, 2)
    scenario(tmp_path, VISITOR.format(mode=""))
    drive = Drive(tmp_path, "http://127.0.0.1:9", users=1, stripe=(2, 3))
    try:
        with pytest.raises(UserError, match=r"locustfile\.py:6.*2 rows for 3 processes"):
            drive.prepare()
    finally:
        drive.generator.close()


def test_data_files_and_protos_travel_with_the_locustfile(tmp_path) -> None:
    folder = tmp_path / "scenario"
    folder.mkdir()
    scenario(folder, VISITOR)
    people(folder, 3)
    (folder / "echo.proto").write_bytes((HERE / "echo.proto").read_bytes())
    pa.parquet.write_table(pa.table({"id": [1]}), folder / "rows.parquet")
    (packed,) = pack_scenarios([str(folder / "locustfile.py")], tmp_path)
    (tmp_path / "parcels").mkdir()
    parcels = Parcels(tmp_path / "parcels")
    parcels.store(packed.sha256, packed.path.name, packed.path.read_bytes())
    there = parcels.unpacked(packed.sha256)
    assert {p.name: p.read_bytes() for p in there.iterdir()} == {
        p.name: p.read_bytes() for p in folder.iterdir()
    }
    people(folder, 4)
    assert pack_scenarios([str(folder / "locustfile.py")], tmp_path)[0].sha256 != packed.sha256

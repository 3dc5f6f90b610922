"""The service on one node, its load from two others: one schedule, and no loss untold."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from results.archive.archive import Archive
from results.errors import RunIncomplete
from tests.cluster.lan import Host, Lan, lan, needs_namespaces
from tests.cluster.runs import (
    Bench,
    accounts,
    archived,
    check_accounts,
    check_all_measured,
    matrix,
    open_folder,
    records,
    run_folder,
    strays,
)
from tests.orchestrator.clusters import until
from workers.load.arrivals import schedule
from workers.spec import LoadSpec, from_plain

NODES = "{labels: {role: service}, load: {nodes: 2, labels: {role: load}}}"
BUSY = {"generator_late"}
"""What a machine that others use too may do to an open loop: such a trial is invalid, and right."""


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    with open_folder() as made:
        yield made


@pytest.fixture(scope="module")
def whole(folder: Path) -> Iterator[Lan]:
    """A node for the service, two that load it, and one more that may."""
    needs_namespaces()
    loaders = dict.fromkeys(("l1", "l2", "l3"), ("role=load",))
    with lan(folder, {"service": ("role=service",), **loaders}) as made:
        yield made


@pytest.fixture(scope="module")
def done(whole: Lan, folder: Path) -> tuple[Path, Bench]:
    """A run to its end, with arrivals that two nodes share."""
    mine = folder / "done"
    matrix(mine, nodes=NODES, trials=1, load="arrivals: {poisson: 120/s}")
    bench = Bench.start(whole, mine, "run", "matrix.yaml")
    try:
        code = bench.ended()
    finally:
        bench.close()
    bad = {f["code"] for r in records(mine) for f in r["findings"] if f["level"] == "invalid"}
    assert bad <= BUSY, bench.said
    assert code == 0 or bad, bench.said
    return mine, bench


def parts_of(folder: Path, record: dict[str, Any]) -> list[Any]:
    """The requests of a trial by load node."""
    trial = run_folder(folder) / "trials" / record["trial_id"]
    return [pa.ipc.open_file(trial / f"requests-{part}.arrow").read_all() for part in (1, 2)]


def planned_offsets(record: dict[str, Any]) -> Any:
    """What one generator would be given for the trial that was recorded."""
    load = from_plain(LoadSpec, record["spec"]["load"])
    phases = record["spec"]["phases"]
    assert load.arrivals
    return schedule(load.arrivals, load.seed, phases["warmup_ns"] + phases["measure_ns"])


def test_both_nodes_requests_are_all_in_the_archive(done: tuple[Path, Bench]) -> None:
    mine, _ = done
    check_accounts(mine)
    for record in records(mine):
        assert record["rows"].keys() >= {"requests-1", "requests-2"}
        assert "requests" not in record["rows"]
        assert record["load"]["planned"] == record["load"]["sent"] == archived(record)
        for part, generator in enumerate(record["generators"], 1):
            assert generator["part"] == part
            assert generator["sent"] == record["rows"][f"requests-{part}"] > 0
            assert generator["differences"] == []
        ids = {g["node_id"] for g in record["generators"]}
        assert len(ids | {record["node_id"]}) == 3


def test_the_stripes_of_both_nodes_are_the_schedule_of_one(done: tuple[Path, Bench]) -> None:
    """Exactly within a node; between them within what is known of their clocks."""
    mine, _ = done
    for record in records(mine):
        offsets = planned_offsets(record)
        begins = []
        for index, table in enumerate(parts_of(mine, record)):
            intended = np.sort(table["start_ns"].to_numpy() - table["lag_ns"].to_numpy())
            begins.append(intended[0] - offsets[index])
            assert (intended - begins[-1]).tolist() == offsets[index::2].tolist()
        errors_ns = sum(g["clock_offset"]["error_ns"] for g in record["generators"])
        shown_ns = [g["clock_offset"]["offset_ns"] for g in record["generators"]]
        # By the head's clock both began at the same instant.
        apart_ns = (begins[0] + shown_ns[0]) - (begins[1] + shown_ns[1])
        assert abs(apart_ns) <= errors_ns + 1_000_000


def test_clocks_are_compared_with_the_heads(done: tuple[Path, Bench]) -> None:
    mine, _ = done
    for record in records(mine):
        for clock in [record["clock_offset"], *(g["clock_offset"] for g in record["generators"])]:
            assert clock["error_ns"] > 0
            # All of them show this machine's clock.
            assert abs(clock["offset_ns"]) <= clock["error_ns"] + 1_000_000


def test_sql_has_one_table_of_both_parts(done: tuple[Path, Bench], whole: Lan) -> None:
    mine, _ = done
    answer = whole.head.bench(
        "sql", "select trial_id, count(*) as n from requests group by 1 order by 1",
        "--format", "json", "--archive", str(mine / "archive"),
    )  # fmt: skip
    found = {row["trial_id"]: row["n"] for row in json.loads(answer)}
    assert found == {record["trial_id"]: archived(record) for record in records(mine)}


@pytest.mark.timeout(300)
def test_load_nodes_that_die_are_replaced_while_there_are_others(whole: Lan, folder: Path) -> None:
    """The first one is replaced; after the second there is none left, and the run is resumed."""
    mine = folder / "lost"
    matrix(mine, nodes=NODES, trials=2)
    bench = Bench.start(whole, mine, "run", "matrix.yaml", patience_s=12)
    victims, said = [], ""
    try:
        for place in ("[1/", "[3/"):
            bench.until_says(place)
            victims.append(kill_load_node(whole, mine, bench))
        code = bench.ended()
        said = bench.said
        assert code == RunIncomplete.exit_code, said
        assert "bench resume" in said
        check_losses(mine, [node_id for _, node_id in victims])
        joining = [threading.Thread(target=h.join_again, args=(whole.head,)) for h, _ in victims]
        for thread in joining:
            thread.start()
        for thread in joining:
            thread.join()
        until(whole.all_ready, 90)
        bench = Bench.start(whole, mine, "resume", "latest")
        assert bench.ended() in (0, RunIncomplete.exit_code), bench.said
    finally:
        bench.close()
        print(said, bench.said)
    check_accounts(mine)
    check_all_measured(mine, 4)
    (run,) = Archive(mine / "archive").runs()
    until(lambda: not strays([run.run_id], [host.state for host in whole.hosts]), 30)


def check_losses(folder: Path, victims: list[str]) -> None:
    """Each loss made one trial invalid, with all that is known of its requests."""
    losses = [record for record in records(folder) if " was lost" in reasons(record)]
    assert len(losses) == len(victims)
    for record, victim in zip(losses, victims, strict=True):
        assert f"load node {victim} was lost" in reasons(record)
        dead, other = sorted(record["generators"], key=lambda g: g["node_id"] != victim)
        assert dead["node_id"] == victim
        # Of the dead one's requests there are those that had arrived; the other's are all there.
        ((sent, kept, lost),) = accounts(record)
        assert sent == kept + lost
        assert sent >= dead["sent"]
        assert kept == record["rows"].get(f"requests-{dead['part']}", 0)
        assert other["sent"] == record["rows"][f"requests-{other['part']}"] > 0


def reasons(record: dict[str, Any]) -> str:
    """Why a trial is invalid, in the words of its findings."""
    return " ".join(f["text"] for f in record["findings"] if f["level"] == "invalid")


def kill_load_node(whole: Lan, folder: Path, bench: Bench) -> tuple[Host, str]:
    """Kill a load node once rows of both are in the archive; the machine and its node's id."""

    ids = {name: str(node["node_id"]) for name, node in whole.head.nodes().items()}

    def both_arrive() -> bool:
        partial = run_folder(folder) / "trials"
        return all(list(partial.glob(f"*.partial/requests-{part}.journal")) for part in (1, 2))

    until(lambda: both_arrive() or not bench.running, 60)
    assert bench.running, bench.said
    host = next(h for h in whole.hosts if h.processes("workers.load.generator"))
    for process in host.processes():
        process.kill()
    return host, ids[host.name]

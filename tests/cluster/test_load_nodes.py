"""The service on one node, its load from two others: one schedule, and no loss untold."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from results.archive import Archive
from results.trialfiles import salvaged_table
from tests.cluster.lan import Host, Lan, lan, needs_namespaces
from tests.cluster.runs import (
    Bench,
    accounts,
    archived,
    check_accounts,
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
    matrix(mine, nodes=NODES, trials=2, load="arrivals: {poisson: 120/s}")
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
    return [salvaged_table(trial / f"requests-{part}.arrow") for part in (1, 2)]


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
            intended = np.sort(table["intended_ns"].to_numpy())
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


def test_a_load_node_that_dies_is_replaced_and_its_block_measured_again(
    whole: Lan, folder: Path
) -> None:
    mine = folder / "lost"
    matrix(mine, nodes=NODES, trials=2, measure="2500ms")
    bench = Bench.start(whole, mine, "run", "matrix.yaml")
    try:
        victim, victim_id = loading_host(whole, mine, bench)
        for process in victim.processes():
            process.kill()
        code = bench.ended()
    finally:
        bench.close()
        print(bench.said)
    said = bench.said
    assert code == 0, said
    lost, *others = records(mine)
    assert not lost["valid"]
    reasons = " ".join(f["text"] for f in lost["findings"] if f["level"] == "invalid")
    assert f"load node {victim_id} was lost" in reasons
    # The other one's requests are all there; of the dead one's, what had arrived.
    dead, other = sorted(lost["generators"], key=lambda g: g["node_id"] != victim_id)
    assert dead["node_id"] == victim_id
    ((sent, kept, counted_lost),) = accounts(lost)
    assert sent == kept + counted_lost
    assert sent >= dead["sent"]
    assert kept == lost["rows"].get(f"requests-{dead['part']}", 0)
    assert other["sent"] == lost["rows"][f"requests-{other['part']}"] > 0
    assert len(others) == 4
    assert all(record["valid"] for record in others)
    assert victim_id not in {g["node_id"] for record in others for g in record["generators"]}
    check_accounts(mine)
    (run,) = Archive(mine / "archive").runs()
    victim.join_again(whole.head)
    until(whole.all_ready, 90)
    until(lambda: not strays([run.run_id], [host.state for host in whole.hosts]), 30)


def test_without_another_load_node_the_run_ends_and_can_be_resumed(
    whole: Lan, folder: Path
) -> None:
    mine = folder / "scarce"
    matrix(mine, nodes=NODES, trials=2, measure="2500ms")
    bench = Bench.start(whole, mine, "run", "matrix.yaml", patience_s=3)
    whole.head.bench("node", "drain", "l3")
    try:
        victim, _ = loading_host(whole, mine, bench)
        for process in victim.processes():
            process.kill()
        code = bench.ended()
        assert code == 3, bench.said
        assert "bench resume" in bench.said
        victim.join_again(whole.head)
        whole.head.bench("node", "drain", "l3", "--undo")
        until(whole.all_ready, 90)
        bench = Bench.start(whole, mine, "resume", "latest")
        assert bench.ended() == 0, bench.said
    finally:
        bench.close()
    check_accounts(mine)
    blocks = {(r["block"], r["configuration"]) for r in records(mine) if r["valid"]}
    assert len(blocks) == 4


def loading_host(whole: Lan, folder: Path, bench: Bench) -> tuple[Host, str]:
    """A load node of the trial that runs, and its id, once rows of both are in the archive."""
    bench.until_says("[1/")

    def both_arrive() -> bool:
        partial = run_folder(folder) / "trials"
        return all(list(partial.glob(f"*.partial/requests-{part}.arrow")) for part in (1, 2))

    until(lambda: both_arrive() or not bench.running, 60)
    assert bench.running, bench.said
    host = next(h for h in whole.hosts if h.processes("workers.load.generator"))
    return host, str(whole.head.nodes()[host.name]["node_id"])

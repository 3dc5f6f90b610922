"""What a node says of itself, and how its cores are divided."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.affinity import pin_process, split_cores
from workers.facts import FACTS, node_class, node_facts, node_id, versions

NO_TOPOLOGY = Path("/nonexistent")


def siblings(folder: Path, *groups: str) -> Path:
    """A topology as the kernel shows it: "0,4" are the two threads of one physical core."""
    for group in groups:
        for core in group.split(","):
            place = folder / f"cpu{core}" / "topology"
            place.mkdir(parents=True)
            (place / "thread_siblings_list").write_text(group + "\n")
    return folder


@given(
    st.sets(st.integers(0, 63), min_size=2),
    st.none() | st.floats(0.1, 100),
)
def test_every_core_has_one_side_and_no_side_is_empty(
    allowed: set[int], cpus_limit: float | None
) -> None:
    split = split_cores(allowed, cpus_limit, NO_TOPOLOGY)
    assert sorted(split.service + split.other) == sorted(allowed)
    assert split.service and split.other and not split.shared
    if cpus_limit is None:
        assert len(split.other) == 1
    else:
        assert len(split.service) <= max(1, cpus_limit + 1)


def test_one_core_is_shared_and_says_so() -> None:
    split = split_cores([3], None)
    assert split.service == split.other == (3,)
    assert split.shared and "only one" in split.reason


def test_no_core() -> None:
    with pytest.raises(ValueError, match="no processor core"):
        split_cores([], None)


@pytest.mark.parametrize(
    ("cpus_limit", "want_service"),
    [(None, (1, 2, 3)), (0.5, (3,)), (1, (3,)), (1.5, (2, 3)), (8, (1, 2, 3))],
)
def test_a_cpu_limit_leaves_more_to_the_others(
    cpus_limit: float | None, want_service: tuple[int, ...]
) -> None:
    assert split_cores(range(4), cpus_limit, NO_TOPOLOGY).service == want_service


def test_threads_of_one_physical_core_stay_together(tmp_path: Path) -> None:
    topology = siblings(tmp_path, "0,4", "1,5", "2,6", "3,7")
    split = split_cores(range(8), None, topology)
    assert (split.service, split.other) == ((1, 2, 3, 5, 6, 7), (0, 4))
    split = split_cores(range(8), 3, topology)
    assert (split.service, split.other) == ((2, 3, 6, 7), (0, 1, 4, 5))


def test_a_single_physical_core_is_divided_all_the_same(tmp_path: Path) -> None:
    split = split_cores([0, 1], None, siblings(tmp_path, "0,1"))
    assert (split.service, split.other) == ((1,), (0,))


def test_pinning_holds_for_all_threads_and_is_undone() -> None:
    allowed = os.sched_getaffinity(0)
    only = {min(allowed)}
    end = threading.Event()
    seen: list[set[int]] = []
    older = threading.Thread(target=end.wait)
    older.start()
    assert older.native_id
    try:
        with pin_process(only):
            assert os.sched_getaffinity(0) == only
            assert os.sched_getaffinity(older.native_id) == only
            younger = threading.Thread(target=end.wait)
            younger.start()
            assert younger.native_id
            assert os.sched_getaffinity(younger.native_id) == only
            program = "import os; print(sorted(os.sched_getaffinity(0)))"
            told = subprocess.run(
                [sys.executable, "-c", program], capture_output=True, text=True, check=True
            )
            assert json.loads(told.stdout) == sorted(only)
        seen = [os.sched_getaffinity(t) for t in (0, older.native_id, younger.native_id)]
    finally:
        end.set()
        older.join()
        younger.join()
    assert seen == [allowed] * 3


def test_pinning_is_undone_after_an_error() -> None:
    allowed = os.sched_getaffinity(0)
    with pytest.raises(RuntimeError), pin_process({min(allowed)}):
        raise RuntimeError
    assert os.sched_getaffinity(0) == allowed


def test_a_core_that_does_not_exist_changes_nothing() -> None:
    allowed = os.sched_getaffinity(0)
    with pin_process({1023}):
        assert os.sched_getaffinity(0) == allowed


def test_facts_are_this_machine_s() -> None:
    facts = node_facts()
    assert facts["os"] == "linux"
    assert facts["kernel"] == os.uname().release
    assert facts["memory_bytes"] == os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert facts["cores_allowed"] == sorted(os.sched_getaffinity(0))
    assert facts["python"] == sys.version.split()[0]
    assert facts["cgroup"] in (None, "v1", "v2")
    assert json.loads(json.dumps(facts)) == facts
    assert tuple(facts) == FACTS, "the same names on every system"
    assert facts["wine"] is None and facts["commit_limit_bytes"] is None


def test_the_machine_is_the_kernel_that_runs() -> None:
    boot_id = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    machine = node_facts()["machine"]
    assert machine == node_facts()["machine"]
    assert len(machine) == 8 and machine not in boot_id


@pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("ip") is None, reason="needs root and ip to make a network"
)
def test_a_network_of_its_own_makes_another_node_of_the_same_machine() -> None:
    name = f"hg-facts-{os.getpid()}"
    program = "from workers.facts import *; print(node_id(), node_facts()['machine'])"
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        told = subprocess.run(
            ["ip", "netns", "exec", name, sys.executable, "-c", program],
            capture_output=True,
            text=True,
            check=True,
        )
    finally:
        subprocess.run(["ip", "netns", "delete", name], check=True)
    inside_id, machine = told.stdout.split()
    assert inside_id != node_id()
    assert machine == node_facts()["machine"]


def test_a_pinned_process_tells_the_node_s_cores() -> None:
    split = split_cores(range(4), None, NO_TOPOLOGY)
    facts = node_facts(split)
    assert facts["cores_allowed"] == [0, 1, 2, 3]
    assert node_class(facts).split(" · ")[2] == "4 cores"


def test_facts_and_id_name_nobody() -> None:
    told = json.dumps([node_facts(), node_id()])
    machine_id = Path("/etc/machine-id")
    secrets = [socket.gethostname(), machine_id.read_text().strip() if machine_id.exists() else ""]
    for secret in filter(None, secrets):
        assert f'"{secret}"' not in told and (len(secret) < 8 or secret not in told)


def test_the_id_is_the_same_in_every_process() -> None:
    program = "from workers.facts import node_id; print(node_id())"
    told = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert told.stdout.strip() == node_id()
    assert node_id().startswith("node-") and len(node_id()) == len("node-") + 8


@pytest.mark.parametrize(
    ("model", "cores", "memory_bytes", "want"),
    [
        ("AMD EPYC 7B13", 2, 25276502016, "linux · AMD EPYC 7B13 · 2 cores · 24 GiB"),
        ("AMD EPYC 7B13 64-Core Processor", 1, 2**30, "linux · AMD EPYC 7B13 · 1 core · 1 GiB"),
        ("Intel(R) Xeon(R) CPU E5-2680 v4 @ 2.40GHz", 4, None, "linux · Intel Xeon E5-2680 v4"
         " · 4 cores"),
    ],
)  # fmt: skip
def test_node_classes(model: str, cores: int, memory_bytes: int | None, want: str) -> None:
    facts = {
        "os": "linux",
        "cpu_model": model,
        "cores_allowed": list(range(cores)),
        "memory_bytes": memory_bytes,
    }
    assert node_class(facts) == want


def test_wine_is_no_windows_to_compare_with() -> None:
    facts = {"os": "windows", "cpu_model": "x", "cores_allowed": [0], "memory_bytes": None}
    assert node_class(facts | {"wine": None}) == "windows · x · 1 core"
    assert node_class(facts | {"wine": "8.0"}) == "windows (Wine 8.0) · x · 1 core"


def test_versions() -> None:
    told = versions()
    assert {"heapgate", "ray", "locust", "pyarrow", "grpcio", "duckdb", "python"} == set(told)
    told.clear()
    assert versions()

"""Which runs go, which never do, and that one which goes is never half there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from archives import write_archive

from results.archive.archive import Archive
from results.archive.retention import (
    REMOVED,
    Policy,
    fates,
    finish_removals,
    folder_bytes,
    remove_run,
)
from results.files import RUN_FILES, write_sums

DAY_NS = 24 * 3600 * 10**9
NOW_NS = 2_000_000_000 * 10**9


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    """Runs `cache-1` (oldest, 40 days) … `cache-4` (10 days), and `other-1` (35 days)."""
    ages = {"cache-1": 40, "cache-2": 30, "cache-3": 20, "cache-4": 10, "other-1": 35}
    for run_id, days in ages.items():
        write_archive(tmp_path, run_id=run_id, blocks=1)
        ended_ns = NOW_NS - days * DAY_NS
        times = {"started_ns": ended_ns - 10**9, "finished_ns": ended_ns}
        change(tmp_path, run_id, service=run_id.partition("-")[0], **times)
    return Archive(tmp_path)


def change(root: Path, run_id: str, **fields: object) -> None:
    path = root / run_id / "run.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))
    write_sums(path.parent, RUN_FILES)


def going(archive: Archive, policy: Policy, **bound: list[str]) -> list[str]:
    found = fates(archive, policy, now_ns=NOW_NS, **bound)
    return [fate.run.run_id for fate in found if fate.goes]


def test_old_runs_go_but_the_newest_of_each_service_stays(archive: Archive) -> None:
    policy = Policy(older_than_ns=25 * DAY_NS)
    assert going(archive, policy) == ["cache-1", "cache-2"]
    (kept,) = [f for f in fates(archive, policy, now_ns=NOW_NS) if f.run.run_id == "other-1"]
    assert kept.why == "it is the newest of its service"
    with_last = Policy(older_than_ns=25 * DAY_NS, last_too=True)
    assert going(archive, with_last) == ["cache-1", "other-1", "cache-2"]


def test_a_number_is_kept_whatever_its_age(archive: Archive) -> None:
    assert going(archive, Policy(keep_last=2)) == ["cache-1", "cache-2"]
    assert going(archive, Policy(older_than_ns=5 * DAY_NS, keep_last=3)) == ["cache-1"]


def test_the_oldest_go_until_the_rest_fits(archive: Archive) -> None:
    size = folder_bytes(archive.path / "cache-1")
    assert going(archive, Policy(size_max_bytes=6 * size)) == []
    assert going(archive, Policy(size_max_bytes=round(3.5 * size))) == ["cache-1", "cache-2"]
    assert going(archive, Policy(size_max_bytes=1)) == ["cache-1", "cache-2", "cache-3"]
    held = going(archive, Policy(size_max_bytes=round(3.5 * size)), pinned=["cache-1"])
    assert held == ["cache-2", "cache-3"], "what must stay is made up for by the next"


def test_what_somebody_relies_on_never_goes(archive: Archive) -> None:
    change(archive.path, "cache-1", status="running")
    (archive.path / "cache-2" / "signoff-20260101.json").write_text("{}")
    policy = Policy(older_than_ns=1, last_too=True)
    bound = {"pinned": ["cache-3"], "held": ["other-1"]}
    assert going(archive, policy, **bound) == ["cache-4"]
    why = {f.run.run_id: f.why for f in fates(archive, policy, now_ns=NOW_NS, **bound)}
    assert why["cache-1"] == why["other-1"] == "it is running"
    assert why["cache-2"] == "it is signed"
    assert why["cache-3"] == "it is a baseline"


def test_a_run_that_went_is_gone_and_no_other_is(archive: Archive) -> None:
    remove_run(archive, archive.run("cache-1"))
    left = ["cache-2", "cache-3", "cache-4", "other-1"]
    assert sorted(run.run_id for run in archive.runs()) == left
    assert finish_removals(archive) == 0
    assert sorted(path.name for path in archive.path.iterdir()) == left


def test_a_crash_while_it_goes_leaves_nothing_that_looks_like_a_run(archive: Archive) -> None:
    code = (
        "import os, shutil, sys\n"
        "from pathlib import Path\n"
        "from results import files\n"
        "from results.archive.archive import Archive\n"
        "from results.archive.retention import remove_run\n"
        "def die(folder, **_):\n"
        "    next(Path(folder).rglob('trial.json')).unlink()\n"
        "    os._exit(9)\n"
        "shutil.rmtree = die\n"
        "archive = Archive(Path(sys.argv[1]))\n"
        "remove_run(archive, archive.run('cache-1'))\n"
    )
    done = subprocess.run([sys.executable, "-c", code, archive.path], check=False, env=os.environ)
    assert done.returncode == 9
    assert "cache-1" not in {run.run_id for run in archive.runs()}
    assert list(archive.unreadable()) == []
    assert (archive.path / REMOVED).exists()
    assert finish_removals(archive) > 0
    assert not (archive.path / REMOVED).exists()

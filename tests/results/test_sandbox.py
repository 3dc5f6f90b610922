"""The bounds of a query: time, memory, disk, and what is left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from archives import write_archive
from filelock import FileLock

from results.errors import UserError
from results.sql.database import Database, Limits, open_archives
from results.sql.deadline import Deadline, NeedsMore
from results.sql.sandbox import SPILL_PREFIX, Sandbox


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_archive(tmp_path_factory.mktemp("bounded") / "archive", blocks=1)


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def small(archive: Path) -> Database:
    return open_archives([archive], limits=Limits(timeout_s=60, memory="100MiB"))


LARGER = "select range as n, hash(range) as h from range(8000000) order by h"


def test_what_memory_can_not_hold_is_spilled_to_a_folder_that_goes(
    archive: Path, temporary: Path
) -> None:
    with small(archive) as database:
        assert database.memory_bytes == 100 * 2**20
        (folder,) = [p for p in temporary.glob(f"{SPILL_PREFIX}*") if p.is_dir()]
        with database.stream(LARGER) as reader:
            spilled = 0
            for batch in reader:
                spilled = max(spilled, sum(p.stat().st_size for p in folder.iterdir()))
                assert batch.num_rows
        assert spilled > 0
    assert list(temporary.iterdir()) == []


def test_what_can_not_be_spilled_ends_with_words_that_help(archive: Path) -> None:
    with small(archive) as database:
        with pytest.raises(NeedsMore, match="Out of Memory") as caught:
            database.query("select string_agg(repeat('x', 1000), '') from range(1000000)")
        assert (caught.value.what, caught.value.option) == ("memory", "--memory")
        # Options are told by the command that has them.
        assert "SET" not in str(caught.value)
        assert "--" not in str(caught.value)
        assert database.query("select 1 as n").to_pylist() == [{"n": 1}]


def test_a_memory_that_is_none_is_told(archive: Path, temporary: Path) -> None:
    with pytest.raises(UserError, match="'plenty'"):
        open_archives([archive], limits=Limits(memory="plenty"))
    assert list(temporary.iterdir()) == []


@pytest.mark.parametrize(
    "endless",
    [
        "with recursive t(n) as (select 1 union all select n + 1 from t) select count(*) from t",
        "with recursive t(s) as (select 'x' union all select s from t) select count(*) from t",
        "select sum(a.range * b.range) from range(10000000) a, range(10000000) b",
        "select count(*) from (pivot (from range(10000000) a, range(10000000) b(m)) "
        "on m in (1, 2) using count(*))",
        "select sleep_ms(100000)",
        "select levenshtein(repeat('a', 200000), repeat('b', 200000))",
    ],
)
def test_what_has_no_end_ends_at_the_limit(archive: Path, endless: str) -> None:
    with open_archives([archive], limits=Limits(timeout_s=0.3)) as database:
        with pytest.raises(NeedsMore, match=r"stopped after 0\.3 s$"):
            database.query(endless)
        assert database.query("select 1 as n").to_pylist() == [{"n": 1}]


def test_a_slow_reader_is_not_the_querys_time(archive: Path) -> None:
    with open_archives([archive]) as database:
        deadline = Deadline.after(5)
        with database.stream("from range(300000)", deadline=deadline) as reader:
            rows = reader.read_next_batch().num_rows
            time.sleep(6)
            rows += sum(batch.num_rows for batch in reader)
            time.sleep(0.5)
            assert deadline.over_s < 0
        assert rows == 300_000


def test_a_syntax_error_is_pointed_at(archive: Path) -> None:
    with open_archives([archive]) as database, pytest.raises(UserError) as caught:
        database.query("select trial_id\nfrom trials\nwere block = 1")
    *_, line, caret = str(caught.value).splitlines()
    assert line == "LINE 3: were block = 1"
    assert line[caret.index("^") :].startswith("block")


KILLED = """
import os, signal, sys
from pathlib import Path
from results.sql.sandbox import Sandbox

sandbox = Sandbox("100MiB")
print(sandbox._spill.path, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL")
def test_what_a_killed_process_left_goes_with_the_next_and_not_what_is_in_use(
    temporary: Path,
) -> None:
    mine = Sandbox("100MiB")
    done = subprocess.run(
        [sys.executable, "-c", KILLED],
        check=False,
        capture_output=True,
        text=True,
        env=os.environ | {"TMPDIR": str(temporary)},
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    left = Path(done.stdout.strip())
    (left / "spilled").write_bytes(b"x")
    other = temporary / f"{SPILL_PREFIX}other"
    other.mkdir()
    with FileLock(f"{other}.lock"):
        Sandbox("100MiB").close()
        assert not left.exists()
        assert other.exists(), "somebody else's query"
    assert mine._spill.path.exists()
    mine.close()
    assert not mine._spill.path.exists()


STOPPED = """
from results.sql.deadline import Deadline
from results.sql.sandbox import Sandbox

sandbox = Sandbox("100MiB")
endless = "select count(*) from range(10000000) a, range(10000000) b where hash(a) = hash(b) + 1"
try:
    print("asking", flush=True)
    with sandbox.answer(endless, {}, Deadline.after(100)) as reader:
        reader.read_all()
except KeyboardInterrupt:
    with sandbox.answer("select 42 as n", {}, Deadline.after(100)) as reader:
        print(reader.read_all().to_pylist())
sandbox.close()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGINT for another process")
def test_ctrl_c_stops_a_query_and_the_next_one_is_answered() -> None:
    asking = subprocess.Popen([sys.executable, "-c", STOPPED], stdout=subprocess.PIPE, text=True)
    assert asking.stdout is not None
    assert asking.stdout.readline() == "asking\n"
    asking.send_signal(signal.SIGINT)
    out, _ = asking.communicate(timeout=60)
    assert (asking.returncode, out) == (0, "[{'n': 42}]\n")

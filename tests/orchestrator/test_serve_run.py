"""bench serve beside a real run: the page follows it from its first trial to its end."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from bench_command import Workplace, wait_until
from matrices import CLOSED, write
from served import serving

pytestmark = pytest.mark.slow


def test_a_real_run_is_shown_while_it_goes_on(tmp_path: Path) -> None:
    place = Workplace(tmp_path)
    place.archive.mkdir()
    matrix = write(tmp_path, CLOSED.replace("measure: 1s", "measure: 6s"))
    with serving(place.archive, tmp_path / "served") as served:
        run = place.start("run", str(matrix))
        (run_id,) = wait_until(place.run_ids, timeout_s=120)
        assert "running" in served.ask("/").text
        path = f"/runs/{run_id}/live/part"

        def measuring() -> str:
            assert run.poll() is None, "\n".join(run.communicate())
            part = served.ask(path).text
            at_work = re.search(r'<span class="chip open">measure</span>', part)
            return part if at_work and "GC cycles" in part and "points=" in part else ""

        part = wait_until(measuring, timeout_s=240)
        assert re.search(r"[\d:]+ (s|min) left</span>", part), "how long the phase lasts"
        assert re.search(r"about [\d:]+ (s|min|h) left", part), "and the whole run"
        assert re.search(r'<span class="label">live memory</span><span class="big">\d', part)
        assert re.search(r'<span class="label">rate</span><span class="big">[\d,]+/s', part)
        out, err = run.communicate(timeout=240)
        assert run.returncode in (0, 3), out + err
        done = served.ask(path)
        assert done.headers["heapgate-running"] == "no"
        assert "The run is over" in done.text
        assert served.ask(f"/runs/{run_id}/report").status == 200
    assert place.strays() == []

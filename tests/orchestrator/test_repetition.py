"""A trial that the node spoils is repeated at once, and the run still ends well."""

from __future__ import annotations

import json
from pathlib import Path

import matrices
import psutil
from bench_command import Workplace, wait_until


def generators(workplace: Workplace) -> list[psutil.Process]:
    """The load generators of this workplace's runs whose load has begun."""
    ids = set(workplace.run_ids())
    found = []
    for process in psutil.process_iter():
        try:
            mine = process.environ().get("HEAPGATE_RUN") in ids
            if mine and "workers.load.generator" in process.cmdline():
                found.append(process)
        except psutil.Error:
            continue
    return found


def has_requests(workplace: Workplace) -> bool:
    return any(p.stat().st_size for p in workplace.archive.glob("*/trials/*/requests.journal"))


def test_a_killed_load_generator_costs_one_attempt(tmp_path: Path) -> None:
    workplace = Workplace(tmp_path)
    matrices.write(workplace.root, matrices.CLOSED.replace("trials: 2", "trials: 1"))
    process = workplace.start("run", "matrix.yaml")
    wait_until(lambda: has_requests(workplace) or process.poll() is not None, timeout_s=120)
    for generator in generators(workplace):
        generator.kill()
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, out + err
    assert "the load generator ended in phase" in out
    assert "once more" in out
    records = [json.loads(p.read_text()) for p in workplace.archive.glob("*/trials/*/trial.json")]
    assert sorted(r["valid"] for r in records) == [False, True, True]
    (spoiled,) = (r for r in records if not r["valid"])
    assert spoiled["rows"]["requests"] > 0, "what was measured before is kept"
    assert f"{spoiled['trial_id']}~2" in {r["trial_id"] for r in records}
    assert workplace.strays() == []

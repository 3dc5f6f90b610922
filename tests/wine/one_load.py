"""Run by a Windows Python: one load of a locustfile; prints its account and rows as JSON."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections import Counter
from pathlib import Path

import pyarrow as pa

from results.clock import ClockMap, steady_ns
from workers.affinity import allowed_cores
from workers.load.group import GeneratorGroup
from workers.load.process import generator_document
from workers.spec import ArrivalsSpec, LoadSpec

LEAD_NS = 200_000_000
MEASURE_NS = 1_000_000_000


def main(scenario: str, base_url: str, rate_rps: str, processes: str, folder: str) -> None:
    """A load of a second at this rate, by so many processes."""
    arrivals = ArrivalsSpec(kind="constant", rate_rps=float(rate_rps), in_flight_max=32)
    load = LoadSpec(
        scenario=scenario, users=None, arrivals=arrivals, seed=1, processes=int(processes)
    )
    own = Path(folder)
    document = generator_document(
        load=load, base_url=base_url, spool_root=own / "spool", run_id="r", trial_id="t",
        clock=ClockMap.read(), warmup_ns=0, measure_ns=MEASURE_NS,
    )  # fmt: skip
    group = GeneratorGroup(document, own / "generator.log", tuple(sorted(allowed_cores())))
    try:
        group.wait_ready(timeout_s=60)
        group.prepare(timeout_s=60)
        group.go(steady_ns() + LEAD_NS)
        account, events = group.wait_done(lambda: False)
    finally:
        group.close()
    rows: Counter[tuple[str, str, int, str]] = Counter()
    for path in sorted((own / "spool").glob("t/requests*/*.arrow")):
        with pa.ipc.open_stream(path.read_bytes()) as reader:
            for row in reader.read_all().to_pylist():
                rows[row["method"], row["name"], row["status"], row["error"] or ""] += 1
    print(
        json.dumps(
            {
                "account": account and dataclasses.asdict(account),
                "events": [event["message"][0] for event in events],
                "rows": [[*key, count] for key, count in rows.items()],
                "log": (own / "generator.log").read_text(encoding="utf-8", errors="replace"),
            }
        )
    )


if __name__ == "__main__":
    main(*sys.argv[1:])

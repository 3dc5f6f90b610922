"""Run by a Windows Python: one trial of the document named on the command line, without Ray."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from workers.affinity import allowed_cores, split_cores
from workers.runtime import NodeRuntime
from workers.spec import NodeSettings, TrialSpec, from_plain


def main() -> None:
    """Print the node's identity and the trial's outcome as one line of JSON."""
    document = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    cores = split_cores(allowed_cores(), None)
    settings = document["settings"] | {
        "service_cores": cores.service,
        "other_cores": cores.other,
    }
    runtime = NodeRuntime(from_plain(NodeSettings, settings))
    try:
        outcome = runtime.run_trial(from_plain(TrialSpec, document["spec"]))
        print(json.dumps({"identity": runtime.identity(), "outcome": outcome}), flush=True)
    finally:
        runtime.close()


if __name__ == "__main__":
    main()

"""Run by a Windows Python: start a service in its job, tell about it, and wait for standard input.

`held_service PROGRAM FOLDER PORT CORE [ARGUMENT …]` prints one line of JSON.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import psutil

from workers import win32
from workers.launch.deployment import Deployment
from workers.launch.windows import ServiceProcess
from workers.limits import open_limiter
from workers.sampling.windows import ProcessSampler
from workers.spec import BinarySpec, ServiceSpec


def main() -> None:
    """Start it; the end of standard input ends the service, the death of this process must too."""
    program, folder, port, core, *arguments = sys.argv[1:]
    spec = ServiceSpec(
        name="held",
        binary=BinarySpec(argv0=program, copy=False, sha256="", size_bytes=0),
        arguments=("-addr", "{host}:{port}", *arguments),
        environment=(("GOGC", "50"),),
        port=int(port),
        ready_path=None,
        ready_timeout_ns=0,
        stop_timeout_ns=0,
        go_runtime=True,
    )
    win32.enter_own_job()  # as Ray's daemon does with all its workers
    limiter = open_limiter("held", "held")
    service = ServiceProcess(
        spec,
        Deployment(program, Path(folder), int(port)),
        launcher=Path(),
        limiter=limiter,
        cores=(int(core),),
    )
    process = psutil.Process(service.pid)
    sampler = ProcessSampler(service.pid, limiter)
    told = {
        "pid": service.pid,
        "members": limiter.processes(),
        "cores": process.cpu_affinity(),
        "environment": sorted(process.environ()),
        "threads": (first := sampler.sample()) and first.threads,
    }
    print(json.dumps(told), flush=True)
    sys.stdin.read()
    service.kill()
    service.finish()
    sampler.close()
    limiter.remove()
    end = service.explain_exit(stopping="stopped", unasked="no console", fatal=None, oom_kills=0)
    print(json.dumps({"cause": end.cause, "members": limiter.processes()}), flush=True)


if __name__ == "__main__":
    main()

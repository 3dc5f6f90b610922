"""`bench init`: a commented matrix for the user's own service."""

from __future__ import annotations

import os
import re
from pathlib import Path

from results.errors import EnvironmentLacks, UserError

_MAIN = re.compile(r"^package main\b", re.MULTILINE)
_GO_LINE = re.compile(r"^go (1\.\d+)", re.MULTILINE)
_SKIPPED = {"vendor", "testdata", "node_modules"}
_BASELINE_GO = "1.22"
_CANDIDATE_GO = "1.23"

_TEMPLATE = """\
# A matrix: which configurations of a service are measured under which load.
# Check it with `bench plan {file}`, run it with `bench run {file}`.
# Every key is described in docs/matrix.md; `bench schema` prints its JSON Schema for editors.

service:
  name: {name}
  # Built by Heapgate for every configuration. Instead of `go:` a finished program is possible
  # (`binary: path`) or any command of the machine (`command: [java, -jar, app.jar]`).
  go: {{source: {source}{package}}}
  # {{host}} and {{port}} are filled in for each trial; adapt this to your service's flags.
  arguments: [-addr, "{{host}}:{{port}}"]
  # A trial begins when this path answers with 2xx; `tcp: true` waits for the open port only.
  ready: {{http: /healthz, timeout: 30s}}
  # env: {{DATABASE_URL: "postgres://127.0.0.1/test"}}    # the environment starts empty

configurations:
  # Exactly one baseline: what the others are compared with.
  default: {{baseline: true, go: "{baseline_go}"}}
  optimised:
    go: "{candidate_go}"
    env:
      GOGC: 50               # a lower figure: smaller heap, more CPU for garbage collection
      # GOMEMLIMIT: 90%      # of limits.memory_max, or a size such as 1280MiB
    build: {{ldflags: "-s -w", trimpath: true}}

# Hard limits by cgroup, where this machine allows it; what is really in force is recorded.
# limits: {{memory_max: 2GiB, cpus: 2}}

workloads:
  steady:
    # An ordinary locustfile of yours, or one that is shipped.
    scenario: {scenario}
    # Open loop: requests start when the schedule says, whatever the service does.
    # For a closed loop write `users: 20` instead.
    arrivals: {{poisson: 200/s}}
    idle: 5s
    warmup: 30s
    measure: 2m

# Blocks: each has one trial of every configuration. A paired test needs 6 at least.
trials: 6
seed: 1
"""

_LOCUSTFILE = '''\
"""The traffic: an ordinary locustfile. Each task is one kind of request."""

from locust import task

from workloads.users import HttpUser


class Visitor(HttpUser):
    @task
    def front_page(self) -> None:
        self.client.get("/")
'''


def write_starter_matrix(service: Path, target: Path) -> Path | None:
    """Write a matrix for the Go service in `service`, and a locustfile beside it.

    Returns the locustfile, or None when one was there already. Raises UserError when there is no
    Go service or the matrix exists, EnvironmentLacks when the folder can't be written to.
    """
    folder = service.expanduser()
    if not (folder / "go.mod").is_file():
        raise UserError(f"{folder}: there is no go.mod; give the folder of your Go service")
    scenario = target.with_name("scenario.py")
    text = _TEMPLATE.format(
        file=target.name,
        name=_safe_name(folder.resolve().name),
        source=os.path.relpath(folder, target.parent),
        package=_package(folder),
        scenario=scenario.name,
        **_versions(folder),
    )
    try:
        with target.open("x", encoding="utf-8") as file:
            file.write(text)
        if scenario.exists():
            return None
        scenario.write_text(_LOCUSTFILE, encoding="utf-8")
    except FileExistsError as error:
        raise UserError(f"{target} is there already; choose another with -o FILE") from error
    except OSError as error:
        raise EnvironmentLacks(f"{target} can't be written: {error.strerror}") from error
    return scenario


def _safe_name(name: str) -> str:
    return re.sub(r"[^a-z0-9-]+", "-", name.lower()).strip("-") or "service"


def _versions(folder: Path) -> dict[str, str]:
    """The module's own Go version as the baseline, when it is newer than ours."""
    found = _GO_LINE.search((folder / "go.mod").read_text(encoding="utf-8"))
    wanted = found[1] if found else _BASELINE_GO
    if _minor(wanted) <= _minor(_BASELINE_GO):
        return {"baseline_go": _BASELINE_GO, "candidate_go": _CANDIDATE_GO}
    return {"baseline_go": wanted, "candidate_go": wanted}


def _minor(version: str) -> int:
    return int(version.partition(".")[2])


def _package(folder: Path) -> str:
    """`, package: ./cmd/server` when the program is not in the module's own folder."""
    programs = main_packages(folder)
    if not programs or "." in programs:
        return ""
    return f", package: {programs[0]}"


def main_packages(folder: Path) -> list[str]:
    """Folders with `package main` below a module, the shortest path first, `.` for its root."""
    found = set()
    for path in folder.rglob("*.go"):
        relative = path.relative_to(folder)
        if path.name.endswith("_test.go") or _SKIPPED.intersection(relative.parts):
            continue
        if _MAIN.search(path.read_text(encoding="utf-8", errors="replace")):
            parent = relative.parent.as_posix()
            found.add(parent if parent == "." else f"./{parent}")
    return sorted(found, key=lambda p: (p.count("/"), p))

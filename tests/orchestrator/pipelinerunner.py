"""Runs what a generated pipeline would run, as its runner does: the same shell, step by step."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

BENCH = Path(sys.executable).with_name("bench")
VENV_STUB = f"""#!/bin/sh
# `python3 -m venv FOLDER`, with this Heapgate in it and a pip that only tells what it was asked.
mkdir -p "$3/bin"
printf '#!/bin/sh\\necho "$@" >> "$TOLD/pip"\\n' > "$3/bin/pip"
printf '#!/bin/sh\\nexec "${{BENCH:-{BENCH}}}" "$@"\\n' > "$3/bin/bench"
chmod +x "$3/bin/pip" "$3/bin/bench"
"""
BENCH_STUB = """#!/bin/sh
# Notes what it was asked, and ends with the code that the test gave for this command.
echo "$@" >> "$TOLD/bench"
case "$1" in
  signoff)
    while [ $# -gt 0 ]; do [ "$1" != -o ] || echo made > "$2"; shift; done
    [ -z "${HEAPGATE_SIGNING_KEY:-}" ] || {
      stat -c %a "$HEAPGATE_SIGNING_KEY"; cat "$HEAPGATE_SIGNING_KEY"; } > "$TOLD/key"
    exit "${SIGNOFF:-0}" ;;
  capacity) exit "${CAPACITY:-0}" ;;
  run) exit "${RUN:-0}" ;;
  resume) exit "${RESUME:-0}" ;;
  export)
    while [ $# -gt 0 ]; do [ "$1" != -o ] || echo made > "$2"; shift; done ;;
esac
"""


@dataclass
class Runner:
    """A machine that runs jobs in `folder`, which is the checkout."""

    folder: Path
    environment: dict[str, str] = field(default_factory=dict)
    path: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.temp = self.folder.with_name(f"{self.folder.name}-temp")
        self.told = self.temp / "told"
        programs = self.temp / "programs"
        for folder in (self.temp, self.told, programs):
            folder.mkdir(parents=True, exist_ok=True)
        _program(programs / "python3", VENV_STUB)
        _program(programs / "bench-stub", BENCH_STUB)
        self.path.insert(0, str(programs))
        self.environment |= {"TOLD": str(self.told)}

    @property
    def stubbed(self) -> dict[str, str]:
        """For who does not want to measure: `bench` that only notes what it was asked."""
        return {"BENCH": str(self.temp / "programs" / "bench-stub")}

    def asked(self, program: str = "bench") -> list[str]:
        """The first words of every call, in order."""
        try:
            lines = (self.told / program).read_text().splitlines()
        except FileNotFoundError:
            return []
        return [line.split()[0] for line in lines]

    def shell(self, script: str, *shell: str, **more: str) -> subprocess.CompletedProcess[str]:
        path = os.pathsep.join([*reversed(self.path), os.environ["PATH"]])
        return subprocess.run(
            [*shell, script], cwd=self.folder, capture_output=True, text=True, check=False,
            env=os.environ | {"PATH": path, "COLUMNS": "120"} | self.environment | more,
            stdin=subprocess.DEVNULL, timeout=280,
        )  # fmt: skip

    def github(self, workflow: str, secrets: Mapping[str, str], event: str = "push") -> Finished:
        """Each step with a script, as GitHub's runner does; the others are its own business."""
        job = yaml.safe_load(workflow)["jobs"]["heapgate"]
        files = {
            name: self.temp / name for name in ("GITHUB_ENV", "GITHUB_PATH", "GITHUB_STEP_SUMMARY")
        }
        self.environment |= {name: str(file) for name, file in files.items()}
        self.environment |= {"RUNNER_TEMP": str(self.temp)}
        for step in job["steps"]:
            if "run" not in step:
                continue
            own = {k: _filled(v, secrets, event) for k, v in step.get("env", {}).items()}
            # https://docs.github.com/actions/reference/workflow-syntax (shell: bash)
            done = self.shell(step["run"], "bash", "--noprofile", "--norc", "-eo", "pipefail", "-c",
                              **own)  # fmt: skip
            if done.returncode:
                return Finished(step["name"], done)
            for line in _lines(files["GITHUB_ENV"]):
                name, _, value = line.partition("=")
                self.environment[name] = value
            self.path += _lines(files["GITHUB_PATH"])
        return Finished("", done)

    def gitlab(self, job_text: str, **variables: str) -> Finished:
        """`before_script` and `script` are one script for GitLab's runner, ended by an error."""
        job = yaml.safe_load(job_text)["heapgate"]
        self.environment |= {"CI_PROJECT_DIR": str(self.folder)} | variables
        for name, value in job["variables"].items():
            self.environment[name] = str(value).replace("$CI_PROJECT_DIR", str(self.folder))
        script = "\n".join([*job["before_script"], *job["script"]])
        return Finished("script", self.shell(script, "sh", "-ec"))


@dataclass(frozen=True)
class Finished:
    """The step that failed (empty: none), and the last script as it ended."""

    failed: str
    last: subprocess.CompletedProcess[str]

    @property
    def text(self) -> str:
        return self.last.stdout + self.last.stderr


def scripts(text: str) -> list[str]:
    """Every piece of shell in a workflow or a job."""
    document: dict[str, Any] = yaml.safe_load(text)
    if "jobs" in document:
        return [s["run"] for s in document["jobs"]["heapgate"]["steps"] if "run" in s]
    job = document["heapgate"]
    return ["\n".join([*job["before_script"], *job["script"]])]


def words_after(script: str, *words: str) -> list[str]:
    """The words of the first command that begins so."""
    for line in script.splitlines():
        found = shlex.split(line, comments=False) if words[-1] in line else []
        for at in range(len(found)):
            if tuple(found[at : at + len(words)]) == words:
                return found[at + len(words) :]
    raise AssertionError(f"no {words} in {script}")


def _filled(value: str, secrets: Mapping[str, str], event: str) -> str:
    """The one expression that steps have."""
    want = "${{ github.event_name != 'pull_request' && secrets.HEAPGATE_SIGNING_KEY || '' }}"
    assert value == want
    return secrets.get("HEAPGATE_SIGNING_KEY", "") if event != "pull_request" else ""


def _program(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o755)


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except FileNotFoundError:
        return []

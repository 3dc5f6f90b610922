"""A small Go service in a git repository of its own, with commits that hold more or less memory."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

MAIN = """\
package main

import (
	"net/http"
	"os"
)

var held [][]byte

func main() {
	for i := 0; i < %d; i++ {
		page := make([]byte, 1<<20)
		for j := range page {
			page[j] = byte(j)
		}
		held = append(held, page)
	}
	http.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) { w.Write([]byte(answer)) })
	http.ListenAndServe(os.Args[1], nil)
}

const answer = %s
"""


@dataclass
class GitService:
    """The repository; `commits` are by their subjects."""

    root: Path
    commits: dict[str, str] = field(default_factory=dict)

    def git(self, *arguments: str) -> str:
        environment = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")} | {
            "GIT_CONFIG_GLOBAL": os.devnull,
            "GIT_AUTHOR_NAME": "Ann",
            "GIT_AUTHOR_EMAIL": "ann@example.org",
            "GIT_COMMITTER_NAME": "Ann",
            "GIT_COMMITTER_EMAIL": "ann@example.org",
        }
        done = subprocess.run(
            ["git", *arguments], cwd=self.root, env=environment, check=True, capture_output=True,
            text=True,
        )  # fmt: skip
        return done.stdout.strip()

    def create(self) -> None:
        self.source.mkdir(parents=True)
        self.git("init", "--quiet", "--initial-branch=main", ".")
        (self.source / "go.mod").write_text("module example.org/holder\n\ngo 1.21\n")

    @property
    def source(self) -> Path:
        return self.root / "cmd" / "holder"

    def write(self, held_mib: int, answer: str = '"one"') -> None:
        (self.source / "main.go").write_text(MAIN % (held_mib, answer))

    def commit(self, subject: str) -> str:
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "--message", subject)
        self.commits[subject] = self.git("rev-parse", "HEAD")
        return self.commits[subject]

    def state(self) -> tuple[str, str, str]:
        """What must not change under the user: HEAD, the index and the work tree."""
        return (
            self.git("rev-parse", "HEAD"),
            self.git("diff", "--cached"),
            self.git("status", "--porcelain", "--ignored"),
        )

    def matrix(self, folder: Path, configurations: str, extra: str = "") -> Path:
        path = folder / "matrix.yaml"
        path.write_text(f"""\
service:
  name: holder
  go: {{source: {self.source}}}
  arguments: ["127.0.0.1:{{port}}"]
configurations:
{configurations}
workloads:
  steady:
    scenario: {ROOT / "tests" / "scenarios" / "calm.py"}
    users: 1
    idle: 100ms
    warmup: 100ms
    measure: 400ms
    cooldown: 0s
trials: 2
seed: 7
{extra}""")
        return path


def seven_commits(root: Path) -> GitService:
    """Each a commit after `first`: only `hoards` adds to what is held, 8 MiB to 24."""
    made = GitService(root)
    made.create()
    made.write(8)
    made.commit("first")
    (made.root / "README").write_text("what it is\n")
    made.commit("explains")
    made.write(24, '"three"')
    made.commit("hoards")
    made.write(24, "nothing")
    made.commit("breaks")
    for words in ("four", "five", "six"):
        made.write(24, f'"{words}"')
        made.commit(words)
    return made

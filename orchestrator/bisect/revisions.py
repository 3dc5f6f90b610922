"""The git repository of a service's source: its revisions, and their files in the cache.

The user's work tree and index are never touched: a revision is checked out through an index of our
own, as `git checkout` would (with its filters, without `export-ignore`). It lies where its commit
says, so that the same commit builds to the same binary each time.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from orchestrator import cache
from results.errors import EnvironmentLacks, UserError

SHORT = 10
"""Digits of a commit for a person."""

DIRTY = "-dirty"
"""Stands after a commit when files differ from it, as in `git describe`."""


@dataclass(frozen=True, slots=True)
class Commit:
    """One commit as it is told."""

    sha: str
    date: str
    author: str
    subject: str

    @property
    def short(self) -> str:
        """Its first digits."""
        return self.sha[:SHORT]


@dataclass(frozen=True, slots=True)
class Repository:
    """A git repository and the folder of the source in it, from its root."""

    root: Path
    inside: Path

    def resolve(self, revision: str) -> str:
        """The commit that a branch, tag or other name means. Raises UserError for none."""
        if revision and not revision.startswith("-"):
            found = _git(
                ["rev-parse", "--verify", "--quiet", revision + "^{commit}"], self.root, check=False
            ).strip()
            if found:
                return found
        raise UserError(f"there is no revision {revision!r} in the git repository {self.root}")

    def source(self, commit: str) -> Path:
        """The source as it is in a commit. Raises UserError when the commit has no such folder."""
        folder = self._checked_out(commit) / self.inside
        if not folder.is_dir():
            raise UserError(f"commit {commit[:SHORT]} has no folder {self.inside}")
        return folder

    def _checked_out(self, commit: str) -> Path:
        place = cache.root() / "sources" / commit
        with cache.locked(f"source-{commit[:32]}"):
            if not place.is_dir():
                with cache.scratch() as scratch:
                    made = scratch / "tree"
                    made.mkdir()
                    own = {
                        "GIT_DIR": _git(["rev-parse", "--absolute-git-dir"], self.root).strip(),
                        "GIT_WORK_TREE": str(made),
                        "GIT_INDEX_FILE": str(scratch / "index"),
                    }
                    _git(["read-tree", commit], made, own)
                    _git(["checkout-index", "--all", "--force", "--quiet"], made, own)
                    cache.put(made, place)
        return place

    def first_parents(self, good: str, bad: str) -> list[Commit]:
        """The commits after `good` up to `bad`, the oldest first, merges as one.

        Raises UserError when `good` is not on the line of first parents of `bad`.
        """
        form = "--format=%H%x00%P%x00%cs%x00%an%x00%s"
        out = _git(["log", "--first-parent", "--reverse", form, f"{good}..{bad}"], self.root)
        rows = [line.split("\0") for line in out.splitlines()]
        if not rows or rows[0][1].split(" ")[0] != good:
            raise UserError(
                f"{good[:SHORT]} is not before {bad[:SHORT]} on its line of first parents"
            )
        return [Commit(sha, date, author, subject) for sha, _, date, author, subject in rows]

    def head(self) -> str:
        """The commit of the work tree, `-dirty` after it when the source's files differ."""
        commit = _git(["rev-parse", "--verify", "HEAD"], self.root, check=False).strip()
        changed = _git(["status", "--porcelain", "--", str(self.root / self.inside)], self.root,
                       check=False)  # fmt: skip
        return f"{commit}{DIRTY if changed else ''}" if commit else ""


def repository_of(source: Path) -> Repository | None:
    """The repository in which a folder lies; None for none. Raises EnvironmentLacks without git."""
    root = _git(["rev-parse", "--show-toplevel"], source, check=False).strip()
    if not root:
        return None
    path = Path(root).resolve()
    return Repository(path, source.resolve().relative_to(path))


def source_commit(source: Path) -> str | None:
    """The commit of a source as it lies there, where it can be told."""
    try:
        repository = repository_of(source)
        return (repository.head() or None) if repository else None
    except (EnvironmentLacks, ValueError):
        return None


def required_repository(source: Path) -> Repository:
    """The repository of a source. Raises UserError when it is in none."""
    repository = repository_of(source)
    if repository is None:
        raise UserError(f"{source} is in no git repository")
    return repository


def _git(
    arguments: Sequence[str],
    folder: Path,
    more: dict[str, str] | None = None,
    *,
    check: bool = True,
) -> str:
    """What git answers; nothing when it fails and need not succeed. Its own variables are kept out.

    Raises EnvironmentLacks when there is no git, and UserError with its words when it fails.
    """
    environment = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")}
    try:
        done = subprocess.run(
            ["git", *arguments],
            cwd=folder,
            env=environment | (more or {}),
            capture_output=True,
            text=True,
            errors="replace",
            stdin=subprocess.DEVNULL,
            check=False,
        )
    except FileNotFoundError as error:
        raise EnvironmentLacks("there is no git on this machine's PATH: install it") from error
    if done.returncode != 0:
        if check:
            raise UserError(f"git {arguments[0]} failed in {folder}: {done.stderr.strip()}")
        return ""
    return done.stdout

"""A matrix in a repository → what a pipeline has to know of it."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from orchestrator.capacity.trialmatrix import TRIALS, Asked, Question
from orchestrator.matrix.matrix import Matrix, load_matrix
from orchestrator.pipeline.installed import own_requirement
from orchestrator.plan import estimate_ns
from results.errors import UserError
from results.signoff.objectives import Objective

BUILDING_MINUTES = 20
"""For a first build with an empty cache: toolchains are fetched, modules too."""

HOSTED = "ubuntu-24.04"
"""GitHub's own runner, when none is named. A fixed one: another system is another node class."""

_HOSTED = re.compile(r"ubuntu-(?:latest|\d\d\.\d\d(?:-arm)?)")
_NOT_IN_A_FILE = ("Cc", "Cn", "Cs", "Zl", "Zp")
"""Categories of letters that YAML does not have, or that end a line."""

_LABEL = re.compile(r"[\w.:/-][\w.:/ -]{0,99}", re.ASCII)


@dataclass(frozen=True, slots=True)
class CapacitySearch:
    """A search of the capacity without which a sign-off could not decide, and its `--budget`."""

    workload: str
    minutes: int


@dataclass(frozen=True, slots=True)
class Project:
    """All that the templates are filled with. `matrix` is relative to `root`, with slashes.

    `configuration` is the one to ship, None when there is only one. `install_doubt` says why the
    runner may not find what `install` names.
    """

    root: Path
    matrix: str
    configuration: str | None
    minutes: int
    history: bool
    """A matrix that builds revisions needs all of the repository."""

    limits: bool
    nodes: bool
    labels: tuple[str, ...]
    install: str
    install_doubt: str
    searches: tuple[CapacitySearch, ...] = ()

    @property
    def hosted(self) -> bool:
        """Whether GitHub's own machine runs it, which is new for each job and shared."""
        return not self.labels or bool(_HOSTED.fullmatch(self.labels[0]))


def read_project(
    matrix_path: Path,
    root: Path | None,
    *,
    configuration: str | None,
    labels: Sequence[str],
    install: str | None,
) -> Project:
    """Look at a matrix and where it lies.

    Raises UserError when it has nothing to decide, lies outside the repository, asks for a capacity
    that can't be searched, or a name can't stand in a pipeline's file.
    """
    matrix = load_matrix(matrix_path)
    if not matrix.policy.objectives:
        raise UserError(
            f"{matrix_path} has no objectives: a pipeline would have nothing to decide; write "
            "`objectives:` into it (docs/signoff.md), such as `objectives: [peak_rss <= 1.3GiB]`"
        )
    root = (root or _root_of(matrix_path)).resolve()
    requirement, doubt = (install, "") if install else own_requirement()
    for label in labels:
        if not _LABEL.fullmatch(label):
            raise UserError(f"{label!r} can't be a runner's label: use letters, digits and . _ : -")
    relative, shipped = _plain(_relative(matrix_path, root)), _to_ship(matrix, configuration)
    blocking = _blocking(matrix, shipped or _candidates(matrix)[0])
    if not blocking:
        raise UserError(
            f"{matrix_path}: no objective that blocks is about what is to be shipped: a pipeline "
            "would have nothing to decide"
        )
    searches = tuple(_searches(matrix_path, matrix, blocking))
    return Project(
        root=root,
        matrix=relative,
        configuration=shipped,
        minutes=_minutes(matrix) + sum(search.minutes for search in searches),
        history=any(c.git for c in matrix.configurations.values()),
        limits=any(_limited(matrix, name) for name in matrix.configurations),
        nodes=bool(matrix.document.nodes),
        labels=tuple(labels),
        install=_plain(requirement),
        install_doubt=doubt,
        searches=searches,
    )


def _root_of(matrix: Path) -> Path:
    """The repository that a matrix lies in; without one the folder in which the command runs."""
    folders = matrix.resolve().parents
    return next((folder for folder in folders if (folder / ".git").exists()), Path.cwd())


def _relative(matrix: Path, root: Path) -> str:
    try:
        text = matrix.resolve().relative_to(root).as_posix()
    except ValueError:
        raise UserError(f"{matrix} is not in {root}: a pipeline would not have it") from None
    return f"./{text}" if text.startswith("-") else text


def _plain(text: str) -> str:
    """Text that may stand in YAML and shell. GitHub fills in `${{ }}` wherever it stands."""
    if any(unicodedata.category(c) in _NOT_IN_A_FILE for c in text) or "${{" in text:
        raise UserError(f"{text!r} can't stand in a pipeline's file: give it a plain name")
    return text


def _to_ship(matrix: Matrix, asked: str | None) -> str | None:
    """The configuration that the sign-off is about, when it has to be named."""
    names = _candidates(matrix)
    if asked is not None and asked not in matrix.configurations:
        known = ", ".join(matrix.configurations)
        raise UserError(f"there is no configuration {asked!r}; there are: {known}")
    if asked is None and len(names) > 1:
        raise UserError(f"which one is to be shipped? --configuration {' | '.join(names)}")
    return asked


def _candidates(matrix: Matrix) -> list[str]:
    """The configurations that a sign-off may be about when none is named."""
    others = [name for name in matrix.configurations if name != matrix.baseline]
    return others or [matrix.baseline]


def _blocking(matrix: Matrix, shipped: str) -> list[Objective]:
    """The objectives that stand in the way of a configuration."""
    return [
        objective
        for objective in matrix.policy.objectives
        if objective.severity == "block"
        and (not objective.configurations or shipped in objective.configurations)
    ]


def _searches(
    path: Path, matrix: Matrix, blocking: Sequence[Objective]
) -> Iterator[CapacitySearch]:
    """One for each workload whose capacity decides."""
    asked = [objective for objective in blocking if objective.kind == "capacity"]
    for name in matrix.workloads:
        if any(name in (objective.workloads or matrix.workloads) for objective in asked):
            needed_ns = TRIALS * len(matrix.configurations) * Question(path, Asked(name)).trial_ns
            yield CapacitySearch(name, _rounded_up(needed_ns / 60e9))


def _limited(matrix: Matrix, configuration: str) -> bool:
    limits = matrix.limits_of(configuration)
    return any(v is not None for v in (limits.memory_max, limits.memory_high, limits.cpus))


def _minutes(matrix: Matrix) -> int:
    """A time limit that a healthy run never meets: all trials twice, and building."""
    return _rounded_up(2 * estimate_ns(matrix) / 60e9 + BUILDING_MINUTES)


def _rounded_up(minutes: float) -> int:
    return 5 * math.ceil(minutes / 5)

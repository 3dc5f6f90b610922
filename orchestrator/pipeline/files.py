"""The files of each kind of pipeline, from templates.

A name that comes from outside is quoted for the shell (`shlex`) or for YAML (as JSON, which YAML
contains); `orchestrator.pipeline.project` has refused what neither would make harmless. Templates
use `<< … >>`, because `{{ … }}` is GitHub's own.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Final

from orchestrator.pipeline.project import HOSTED, Project
from results.errors import EnvironmentLacks, UserError
from results.files import write_whole

if TYPE_CHECKING:
    from jinja2 import Environment

GITHUB: Final = PurePosixPath(".github/workflows/heapgate.yml")
GITLAB: Final = PurePosixPath(".gitlab/heapgate.yml")
GITLAB_MAIN: Final = PurePosixPath(".gitlab-ci.yml")
CONTAINER: Final = PurePosixPath("heapgate.Containerfile")

_YAML_WORD: Final = re.compile(r"[A-Za-z][\w-]*\.?[\w-]*", re.ASCII)
_YAML_CONSTANTS: Final = {"true", "false", "yes", "no", "on", "off", "null", "y", "n"}
_HASHABLE: Final = re.compile(r"[\w./-]+", re.ASCII)
_NOT_IN_A_GROUP: Final = re.compile(r"[^\w-]+", re.ASCII)

Files = dict[PurePosixPath, str]


def pipeline_files(target: str, project: Project) -> Files:
    """What a kind of pipeline consists of: paths in the repository, and what is in them."""
    return TARGETS[target](project)


def _github(project: Project) -> Files:
    labels = project.labels or (HOSTED,)
    runner = _yaml(labels[0]) if len(labels) == 1 else _yaml_list(labels)
    own = f"'{project.matrix}', " if _HASHABLE.fullmatch(project.matrix) else ""
    text = _render(
        "github.yml", project, form=" --format github", runner=runner, hashed=f"{own}'**/go.sum'"
    )
    return {GITHUB: text}


def _gitlab(project: Project) -> Files:
    """The job, and a pipeline that includes it where the repository has none."""
    files = {GITLAB: _render("gitlab.yml", project, tags=_yaml_list(project.labels))}
    if not (project.root / GITLAB_MAIN).exists():
        files[GITLAB_MAIN] = _render("gitlab-main.yml", project, included=GITLAB)
    return files


def _container(project: Project) -> Files:
    return {CONTAINER: _render("container", project, file=CONTAINER)}


TARGETS: Final[Mapping[str, Callable[[Project], Files]]] = {
    "github": _github,
    "gitlab": _gitlab,
    "container": _container,
}


@cache
def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    return Environment(  # noqa: S701 — no HTML; every name is quoted for where it stands
        loader=PackageLoader("orchestrator.pipeline"),
        undefined=StrictUndefined,
        variable_start_string="<<",
        variable_end_string=">>",
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


def _render(name: str, project: Project, *, form: str = "", **more: Any) -> str:
    environment = _environment()
    chosen = f" --configuration {project.configuration}" if project.configuration else ""
    words: dict[str, Any] = {
        "matrix": shlex.quote(project.matrix),
        "install": shlex.quote(project.install),
        "configuration": chosen,
        "form": form,
        "searches": project.searches,
    }
    shell = {
        part: environment.get_template(f"{part}.sh.jinja").render(words).rstrip()
        for part in ("measure", "decide")
    }
    facts = {
        "group": _group(project),
        "hosted": project.hosted,
        "history": project.history,
        "minutes": project.minutes,
        "labels": project.labels,
    }
    return environment.get_template(f"{name}.jinja").render(**words, **shell, **facts, **more)


def _group(project: Project) -> str:
    """Runs with the same runner wait for each other."""
    named = _NOT_IN_A_GROUP.sub("-", "-".join(project.labels)).strip("-")
    return f"heapgate-{named}" if named else "heapgate"


def _yaml(text: str) -> str:
    """A word as YAML reads it back."""
    plain = _YAML_WORD.fullmatch(text) and text.lower() not in _YAML_CONSTANTS
    return text if plain else json.dumps(text)


def _yaml_list(words: tuple[str, ...]) -> str:
    return f"[{', '.join(map(_yaml, words))}]"


def write_files(root: Path, files: Files, *, force: bool) -> list[Path]:
    """Write them all, or none when one exists and `force` is not given.

    Raises UserError for what exists, EnvironmentLacks when a file can't be written.
    """
    paths = {root / path: text for path, text in files.items()}
    there = [path for path in paths if path.exists() or path.is_symlink()]
    if there and not force:
        names = ", ".join(map(str, there))
        raise UserError(f"nothing was written: {names} exists already; --force writes over it")
    for path, text in paths.items():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(path, text)
        except OSError as error:
            raise EnvironmentLacks(f"{error.filename or path}: {error.strerror}") from error
    return list(paths)

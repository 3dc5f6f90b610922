"""What no file can do: the steps that are left to a person, a sentence each."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Mapping
from typing import Final

from orchestrator.pipeline.files import GITLAB, GITLAB_MAIN
from orchestrator.pipeline.project import Project


def steps_left(target: str, project: Project, written: list[str]) -> list[str]:
    """In the order in which they are done."""
    steps = [*_install(project), *_TARGETS[target](project, written)]
    if project.nodes and target != "container":
        steps.append("the matrix names nodes: the runner must be their head (docs/cluster.md)")
    if project.limits:
        steps.append(
            "the matrix has limits: `bench doctor` in the job's log says whether they are in force "
            "there; in containers they seldom are"
        )
    return steps


def _install(project: Project) -> Iterator[str]:
    if project.install_doubt:
        yield (
            f"{project.install_doubt}: make sure that pip on the runner finds "
            f"{shlex.quote(project.install)} in an index of yours, or name a wheel or a repository "
            "with --install"
        )


def _github(project: Project, written: list[str]) -> Iterator[str]:
    yield f"commit {' and '.join(written)}"
    yield (
        "so that records are signed: bench keys new release, then give the private key's text to "
        "the repository's secret HEAPGATE_SIGNING_KEY (gh secret set HEAPGATE_SIGNING_KEY < FILE)"
    )
    yield (
        "so that nothing is merged without a GO: require the check `heapgate` in a ruleset of the "
        "branch"
    )
    if project.hosted:
        yield (
            "GitHub's own machines are shared and noisy, so more objectives end as CAN'T TELL; for "
            "a machine of your own: --runner LABEL"
        )
    else:
        yield (
            "pull requests run code on your machine: let runs of outside contributors wait for "
            "approval (Settings, Actions, General)"
        )


def _gitlab(project: Project, written: list[str]) -> Iterator[str]:
    if GITLAB_MAIN.name not in written:
        yield f"add to {GITLAB_MAIN}: include: [{{local: {GITLAB}}}]"
    yield f"commit {' and '.join(written)}"
    yield (
        "so that records are signed: bench keys new release, then make the private key a variable "
        'HEAPGATE_SIGNING_KEY of the type "File", protected (Settings, CI/CD, Variables)'
    )
    yield (
        "so that nothing is merged without a GO: Settings, Merge requests, `Pipelines must succeed`"
    )
    if not project.labels:
        yield (
            "shared runners are noisy, so more objectives end as CAN'T TELL; for a machine of your "
            "own: --runner TAG"
        )


def _container(project: Project, written: list[str]) -> Iterator[str]:
    yield f"build it: podman build -t heapgate -f {written[0]} ."


_TARGETS: Final[Mapping[str, Callable[[Project, list[str]], Iterator[str]]]] = {
    "github": _github,
    "gitlab": _gitlab,
    "container": _container,
}

"""What every launcher works with: where a service lies, what it is told, how it ended."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from workers.spec import ServiceSpec

HOST = "127.0.0.1"
GRACE_S = 0.1
"""How long what the service started may take to end by itself before it counts as leaked."""

Stopping = Literal["stopped", "killed"]
"""How far we went: "stopped" when it was only asked, "killed" when it did not end in time."""


class StartFailed(Exception):
    """The service could not be started; the text says why."""


@dataclass(frozen=True, slots=True)
class Deployment:
    """Where a trial's service lies on this node and where it will listen."""

    program: str
    folder: Path
    port: int
    host: str = HOST

    @property
    def base_url(self) -> str:
        """The service's address for the load generator."""
        return self.url_at(None)

    def url_at(self, port: int | None) -> str:
        """Where the service answers on another port of its own; None means the main one."""
        return f"http://{self.host}:{port or self.port}"


def arguments_of(spec: ServiceSpec, deployment: Deployment) -> list[str]:
    """The argument vector, `{host}` and `{port}` filled in."""
    return [deployment.program, *(_fill(text, deployment) for text in spec.arguments)]


def environment_of(spec: ServiceSpec, deployment: Deployment) -> list[tuple[str, str]]:
    """The environment block, `{host}` and `{port}` filled in."""
    return [(name, _fill(value, deployment)) for name, value in spec.environment]


def _fill(text: str, deployment: Deployment) -> str:
    return text.replace("{port}", str(deployment.port)).replace("{host}", deployment.host)

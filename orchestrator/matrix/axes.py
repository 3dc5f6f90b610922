"""Axes: a setting with several values makes one configuration of each combination."""

from __future__ import annotations

import itertools
import re
from typing import Any

from orchestrator.matrix.source import Path_, Source

RESERVED = ("include", "exclude")
COMBINATIONS_MAX = 100_000
_SETTING = re.compile(r"go|git|(?:env|build|limits)\.[A-Za-z_]\w*")


class AxesError(ValueError):
    """What is wrong with the axes, and where in the file (a path of keys)."""

    def __init__(self, path: Path_, text: str) -> None:
        super().__init__(text)
        self.path = path


def expand(source: Source) -> dict[str, Any]:
    """The document with its axes' configurations added; the document itself when it has none.

    A combination is the baseline's settings with the axes' values on top, named after them:
    `gogc-50.go-1.23`. Raises AxesError.
    """
    document: dict[str, Any] = source.data
    axes = document.get("axes")
    configurations = document.get("configurations")
    if not isinstance(axes, dict) or not axes or not isinstance(configurations, dict):
        return document
    base = _baseline(configurations)
    added = {}
    for combination in combinations(axes):
        name = ".".join(_part(setting, value) for setting, value in combination.items())
        if name in configurations or name in added:
            raise AxesError(("axes",), f"the combination {name!r} is there twice")
        added[name] = with_settings(base, combination)
        source.places[("configurations", name)] = source.place(("axes",))
    return document | {"configurations": configurations | added}


def _baseline(configurations: dict[str, Any]) -> dict[str, Any]:
    for configuration in configurations.values():
        if isinstance(configuration, dict) and _is_true(configuration.get("baseline")):
            return {key: value for key, value in configuration.items() if key != "baseline"}
    raise AxesError(("axes",), "axes vary the baseline: one configuration needs `baseline: true`")


def _is_true(value: Any) -> bool:
    return str(value).lower() in ("true", "yes", "on")


def combinations(axes: dict[str, Any]) -> list[dict[str, Any]]:
    """The values of the axes that belong together, by setting. Raises AxesError."""
    varied = {key: value for key, value in axes.items() if key not in RESERVED}
    count = 1
    for setting, options in varied.items():
        if not _SETTING.fullmatch(setting):
            raise AxesError(
                ("axes", setting), f"{setting!r} is not a setting; write go, env.NAME, build.KEY …"
            )
        if not isinstance(options, list) or not options:
            raise AxesError(("axes", setting), "an axis needs a list of values")
        count *= len(options)
        if count > COMBINATIONS_MAX:
            raise AxesError(("axes", setting), f"more than {COMBINATIONS_MAX:,} combinations")
    found = [
        dict(zip(varied, chosen, strict=True)) for chosen in itertools.product(*varied.values())
    ]
    excluded = _listed(axes, "exclude")
    found = [c for c in found if not any(e.items() <= c.items() for e in excluded)]
    return (found if varied else []) + _listed(axes, "include")


def _listed(axes: dict[str, Any], key: str) -> list[dict[str, Any]]:
    listed = axes.get(key, [])
    if not isinstance(listed, list) or not all(isinstance(item, dict) and item for item in listed):
        raise AxesError(("axes", key), f"{key} is a list of combinations such as {{env.GOGC: 50}}")
    for item in listed:
        for setting in item:
            if not _SETTING.fullmatch(setting):
                raise AxesError(("axes", key), f"{setting!r} is not a setting")
    return listed


def _part(setting: str, value: Any) -> str:
    text = f"{setting.rpartition('.')[2]}-{value}".lower()
    return re.sub(r"[^a-z0-9.]+", "-", text).strip("-.")


def with_settings(base: dict[str, Any], combination: dict[str, Any]) -> dict[str, Any]:
    """A configuration with a combination's values on top."""
    made = {key: dict(value) if isinstance(value, dict) else value for key, value in base.items()}
    for setting, value in combination.items():
        section, _, key = setting.rpartition(".")
        if section:
            own = made.get(section)
            # Anything but a mapping is told when the baseline itself is checked.
            made[section] = (own if isinstance(own, dict) else {}) | {key: value}
        else:
            made[key] = value
    return made

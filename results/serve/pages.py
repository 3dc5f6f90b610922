"""Templates to pages. Everything in double braces is escaped."""

from __future__ import annotations

from functools import cache
from typing import Any

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined, select_autoescape

from results.report.glue import glue


@cache
def _environment() -> Environment:
    """Our own templates, and those of the report for what both draw."""
    environment = Environment(
        loader=ChoiceLoader(
            [PackageLoader("results.serve"), PackageLoader("results.report", ".")],
        ),
        autoescape=select_autoescape(default=True, default_for_string=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["glue"] = glue
    return environment


def render(template: str, **context: Any) -> str:
    """A page, or a part of one."""
    return _environment().get_template(f"{template}.html.jinja").render(**context)

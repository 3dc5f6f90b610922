"""One self-contained HTML file: template, style, script, charts and their data, nothing from afar.

The page forbids itself everything else: its content security policy names the hashes of its own
scripts and no address at all. What comes from outside (names, errors, log lines) is escaped by
the template, and in the data by `_json_in_html`.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
from collections.abc import Callable, Iterable
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Any, Final

import pyarrow as pa

from results.errors import UserError
from results.report.bundle import bundling
from results.report.course import read_course
from results.report.data import ReportData, read_report
from results.report.glue import glue
from results.sql.database import open_database

FORMATS: Final = ("html", "md", "csv", "json")
SCRIPTS: Final = ("page.js", "flames.js")
TABLES_OPEN_MAX: Final = 2
"""With more comparison tables than these, they are folded: the chart of all comes first."""


def render_report(archive: Path, run_name: str, form: str = "html") -> str:
    """The report of one run as text; the same archive gives the same text.

    Raises UserError when there is no such run or no such form.
    """
    if form not in FORMATS:
        raise UserError(f"there is no format {form!r}; there are: {', '.join(FORMATS)}")
    if form != "html":
        return _other_form(archive, run_name, form)
    with bundling() as bundle:
        with open_database(archive, [run_name]) as database:
            data = read_report(database)
        data = replace(data, course=read_course(archive, data.run, data.comparison))
        return _html(data, bundle)


def _other_form(archive: Path, run_name: str, form: str) -> str:
    import io

    from results.comparing import tables
    from results.comparing.compare import comparison_rows
    from results.report.markdown import markdown_report
    from results.sql.query import write_result

    with open_database(archive, [run_name]) as database:
        comparison = database.comparison()
    if form == "md":
        return markdown_report(comparison)
    if form == "json":
        return json.dumps(tables.plain_comparison(comparison), indent=1) + "\n"
    stream = io.StringIO()
    write_result(comparison_rows(comparison).to_reader(), "csv", stream)
    return stream.getvalue()


def _html(data: ReportData, bundle: Callable[[], str]) -> str:
    from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
    from markupsafe import Markup

    from results.report.figures import figures

    environment = Environment(
        loader=PackageLoader("results.report", "."),
        autoescape=select_autoescape(default=True, default_for_string=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["glue"] = glue
    made = figures(data)
    scripts = [_script(text) for text in (bundle(), *map(_resource, SCRIPTS))]
    return environment.get_template("template.html.jinja").render(
        **_context(data),
        figures=made,
        policy=_policy(scripts),
        style=Markup(_resource("style.css")),  # noqa: S704 — our own file
        scripts=[Markup(text) for text in scripts],  # noqa: S704 — hashed in the policy
        charts=Markup(_json_in_html(_chart_data(made))),  # noqa: S704 — escaped for a script
    )


def _context(data: ReportData) -> dict[str, Any]:
    """What the template names."""
    from results.comparing.ratios import ACROSS_SYSTEMS
    from results.comparing.tables import where
    from results.report import facts, forest, verdict

    comparison = data.comparison
    return {
        "data": data,
        "comparison": comparison,
        "lead": verdict.lead(comparison),
        "doubts": verdict.doubts(comparison),
        "headline": forest.headline_rows(comparison),
        "tables": [(forest.forest_table(t), s) for t, s in verdict.all_sentences(comparison)],
        "where": where,
        "ratio_grids": facts.ratio_grids(comparison),
        "across_systems": ACROSS_SYSTEMS,
        "fold_tables": len(comparison.tables) > TABLES_OPEN_MAX,
        "forest_width": forest.WIDTH,
        "forest_height": forest.HEIGHT,
        "confidence": f"{comparison.settings.confidence * 100:g} %",
        "explanations": list(_explanations(data)),
        "configurations": list(enumerate(data.configurations)),
        "began": facts.when(data.run.document["started_ns"]),
        "facts": facts,
        "sql": {name: answer.sql for name, answer in data.answers.items()},
        "matrix": _matrix_text(data),
    }


def _explanations(data: ReportData) -> Iterable[str]:
    from results.comparing.tables import explanations

    return (
        text.replace("● decides", "● marks what decides") for text in explanations(data.comparison)
    )


def _matrix_text(data: ReportData) -> str:
    try:
        return (data.run.path / "matrix.yaml").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _chart_data(made: Iterable[Any]) -> dict[str, Any]:
    """Each chart by name: its specification and its tables, column by column."""
    return {
        chart.name: {
            "spec": chart.spec,
            "tables": {name: _columns(table) for name, table in chart.tables.items()},
            "zoom": chart.zoom,
            "configuration": chart.configuration,
        }
        for figure in made
        for chart in figure.charts
    }


def _columns(table: pa.Table) -> dict[str, Any]:
    """A table in few bytes: words once, then their numbers."""
    columns: dict[str, Any] = {}
    for name in table.column_names:
        column = table[name]
        if name in ("node_class", "workload"):
            continue
        if pa.types.is_string(column.type) and table.num_rows:
            encoded = column.combine_chunks().dictionary_encode()
            columns[name] = {
                "words": encoded.dictionary.to_pylist(),
                "codes": encoded.indices.to_pylist(),
            }
        else:
            columns[name] = [_finite(value) for value in column.to_pylist()]
    return columns


def _finite(value: Any) -> Any:
    """JSON has no infinity."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _json_in_html(value: Any) -> str:
    """JSON that can't end a script element, whatever its strings say."""
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _script(text: str) -> str:
    """A script as it stands in the page."""
    return text.replace("</script", "<\\/script").strip()


def _policy(scripts: Iterable[str]) -> str:
    """Only our own scripts, no address: also a name that got through could load nothing."""
    digests = (hashlib.sha256(text.encode()).digest() for text in scripts)
    hashes = " ".join(f"'sha256-{base64.b64encode(digest).decode()}'" for digest in digests)
    return f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; img-src data:"


def _resource(name: str) -> str:
    return (resources.files("results.report") / name).read_text(encoding="utf-8")

"""The report as one picture, for a slide or a ticket: the verdict, its table, memory over time.

An SVG is put together from a template and the SVGs that vl-convert makes of the same charts as the
page has; a PNG is made of that SVG. Fonts are those that vl-convert brings with it, so the same
archive makes the same picture on every machine. Nothing is fetched.
"""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import pyarrow as pa

from results.comparing.tables import where
from results.errors import UserError
from results.report import facts, forest, verdict
from results.report.charts import Chart, colour_of
from results.report.colours import coloured, light_colours
from results.report.data import ReportData, read_report
from results.report.figure import Figure
from results.report.figures import figures
from results.report.flame_images import ROW as FLAME_ROW
from results.report.flame_images import Box, boxes
from results.report.flames import Flame
from results.report.forest import ForestTable, forest_table
from results.report.glue import glue
from results.sql.database import open_database

WIDTH: Final = 1000
MARGIN: Final = 32
SCALE: Final = 2.0
"""Pixels of a PNG per unit: sharp on a screen with fine pixels, and on paper."""
TITLE_LETTERS: Final = 74
"""Letters in a line of the title."""
NAME_LETTERS: Final = 19
LEGEND_FROM: Final = 300
"""Where names of configurations may begin, right of a title."""
FONT: Final = "Liberation Sans"
TABLES_MAX: Final = 2
"""Of more tables the charts of all configurations tell more than the tables."""
COMPARISON: Final = "comparison"
_PICTURED: Final = ("ablation", "waterfall", "memory")

ROW: Final = 27
HEAD: Final = 54


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of the picture: a table of the comparison, or a chart's SVG with what it shows."""

    y: float
    height: float
    title: str
    note: str
    table: ForestTable | None = None
    svg: str = ""
    legend: bool = False
    """Whether its colours are those of configurations."""
    boxes: tuple[Box, ...] = ()
    """Nested calls, drawn by the template."""


def render_image(archive: Path, run_name: str, form: str, figure: str | None = None) -> bytes:
    """One picture of a run: an SVG or a PNG; the same archive gives the same bytes.

    `figure` is the name of one figure; without, it is the comparison and memory over time. Raises
    UserError when there is no such figure.
    """
    import vl_convert

    with open_database(archive, [run_name]) as database:
        data = read_report(database)
    svg = _svg(data, figure)
    return vl_convert.svg_to_png(svg, scale=SCALE) if form == "png" else svg.encode()


def figure_names(data: ReportData, made: Iterable[Figure]) -> list[str]:
    """What `figure` may be: figures with a picture, by the name that all panels share."""
    names = [_shared_name(figure) for figure in made if figure.charts or figure.flames]
    return list(dict.fromkeys([*([COMPARISON] if data.comparison.tables else ()), *names]))


def _shared_name(figure: Figure) -> str:
    return figure.name.rpartition("-")[0]


def _svg(data: ReportData, chosen: str | None) -> str:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    made = figures(data)
    names = figure_names(data, made)
    if chosen is not None and chosen not in names:
        known = ", ".join(names) or "none: nothing was measured"
        raise UserError(f"there is no figure {chosen!r} of this run; there are: {known}")
    environment = Environment(
        loader=PackageLoader("results.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    title = textwrap.wrap(glue(_plain(verdict.lead(data.comparison))), TITLE_LETTERS)
    parts = list(_placed(_parts(data, made, chosen), top=64 + 30 * len(title)))
    bottom = parts[-1].y + parts[-1].height if parts else 64 + 30 * len(title)
    return environment.get_template("image.svg.jinja").render(
        width=WIDTH,
        margin=MARGIN,
        height=round(bottom + MARGIN),
        title=title,
        about=_about(data),
        parts=parts,
        row=ROW,
        head=HEAD,
        font=FONT,
        colour={name.removeprefix("--"): value for name, value in light_colours().items()},
        forest_width=forest.WIDTH,
        confidence=f"{data.comparison.settings.confidence * 100:g} %",
        legend=list(_legend(data)),
        short=_short,
    )


def _plain(text: str) -> str:
    """In one line, without what is no letter: an XML file may not hold every character."""
    return "".join(letter if letter.isprintable() else " " for letter in text)


def _short(name: str) -> str:
    name = _plain(name)
    return name if len(name) <= NAME_LETTERS else f"{name[: NAME_LETTERS - 1]}…"


def _legend(data: ReportData) -> Iterator[tuple[float, str, str]]:
    """From right to left: where a name stands, its colour, the name."""
    x = float(WIDTH - MARGIN)
    for index, name in reversed(list(enumerate(data.configurations))):
        x -= 7.0 * len(_short(name)) + 34
        if x < LEGEND_FROM:
            return
        yield x, coloured(colour_of(index)), _short(name)


def _about(data: ReportData) -> str:
    began = facts.when(data.run.document["started_ns"])
    doubts = "".join(f" · {doubt}" for doubt in verdict.doubts(data.comparison))
    return _plain(f"{data.comparison.service} · run {data.run.run_id} · {began} UTC{doubts}")


def _parts(data: ReportData, made: Sequence[Figure], chosen: str | None) -> Iterator[Part]:
    tables = data.comparison.tables
    pictured = _PICTURED if len(tables) > TABLES_MAX else ("memory",)
    if chosen == COMPARISON or (chosen is None and len(tables) <= TABLES_MAX):
        yield from (_table_part(data, forest_table(table)) for table in tables)
    for figure in made:
        name = _shared_name(figure)
        wanted = name == chosen if chosen else name.startswith(pictured)
        if wanted:
            yield from (_chart_part(figure, chart) for chart in figure.charts)
            yield from (_flame_part(figure, flame) for flame in figure.flames)


def _table_part(data: ReportData, made: ForestTable) -> Part:
    table = made.table
    rows = len(table.rows) + len(made.groups)
    note = f"{table.workload}: {data.comparison.descriptions.get(table.workload, '')}"
    blocks = f"{table.blocks} of {data.comparison.planned_on(table.node_class)} blocks"
    return Part(
        y=0,
        height=HEAD + 20 + rows * ROW + 34,
        title=_plain(f"{table.candidate} against {table.baseline}"),
        note=_plain(f"{note} · {blocks} · {where(data.comparison, table)}"),
        table=made,
    )


def _chart_part(figure: Figure, chart: Chart) -> Part:
    import vl_convert

    drawn = vl_convert.vegalite_to_svg(still(chart))
    height = re.search(r'height="([\d.]+)"', drawn)
    assert height, "vl-convert tells the size of what it draws"
    of = f": {chart.configuration}" if chart.configuration else ""
    title = _plain(figure.title + of)
    legend = chart.coloured and not chart.configuration
    return Part(0, float(height[1]) + HEAD, title, "", svg=drawn, legend=legend)


def _flame_part(figure: Figure, flame: Flame) -> Part:
    """The first row of a picture names its configuration."""
    title = figure.title if flame is figure.flames[0] else ""
    drawn = tuple(replace(box, label=_plain(box.label)) for box in boxes(flame, WIDTH - 2 * MARGIN))
    below = HEAD - 22 if flame is figure.flames[-1] else -6
    return Part(0, flame.rows * FLAME_ROW + below, title, "", boxes=drawn)


def _placed(parts: Iterable[Part], top: float) -> Iterator[Part]:
    """Parts below each other; what an SVG names by id gets names of its own."""
    y = top
    for number, part in enumerate(parts):
        svg = with_own_ids(part.svg, number).replace(
            "<svg ", f'<svg x="{MARGIN}" y="{round(y + HEAD - 22)}" ', 1
        )
        yield replace(part, y=y, svg=svg)
        y += part.height + 22


def with_own_ids(svg: str, number: int) -> str:
    """Ids that are unique in the picture; vl-convert's own go on from one chart to the next."""
    names = dict.fromkeys(re.findall(r'\bid="([^"]+)"', svg))
    own = {name: f"p{number}-{place}" for place, name in enumerate(names)}
    return re.sub(r'(\bid="|url\(#|href="#)([^")]+)', lambda f: f[1] + own.get(f[2], f[2]), svg)


def still(chart: Chart) -> dict[str, Any]:
    """A chart's specification with its data and colours, as wide as the picture has room."""
    spec = coloured(chart.spec)
    datasets = {name: _rows(table) for name, table in chart.tables.items()}
    config = spec["config"] | {"font": FONT, "background": light_colours()["--card"]}
    whole = spec | {"datasets": datasets, "config": config}
    whole["width"] = WIDTH - 2 * MARGIN
    # Large invisible points are what a pointer meets; a picture has no pointer.
    whole["layer"] = [_without_targets(layer) for layer in whole.get("layer", [])]
    return whole if whole["layer"] else {k: v for k, v in whole.items() if k != "layer"}


def _without_targets(layer: dict[str, Any]) -> dict[str, Any]:
    mark = layer.get("mark")
    if isinstance(mark, dict) and mark.get("opacity") == 0:
        return layer | {"transform": [*layer.get("transform", []), {"filter": "false"}]}
    return layer


def _rows(table: pa.Table) -> list[dict[str, Any]]:
    """Rows as JSON has them: no infinities, no numbers of another kind."""
    rows: list[dict[str, Any]] = json.loads(
        json.dumps(table.to_pylist(), default=str), parse_constant=lambda _: None
    )
    return rows

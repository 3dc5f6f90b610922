"""What `bench forecast` prints: figures that were not measured, and how far to believe them."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from rich.console import Console
from rich.markup import escape

from orchestrator.answers.common import plain_table, print_json
from orchestrator.matrix import values
from results import units
from results.errors import UserError
from results.gomodel import OFF
from results.metrics import counted, format_value

if TYPE_CHECKING:
    from results.comparing.history import Wanted
    from results.forecast.forecast import Forecast
    from results.forecast.observations import Observed
    from results.forecast.overtime import Continued, NotContinued
    from results.forecast.subjects import Asked

PICTURES: Final = ("svg", "png")
NAMED_MAX: Final = 4
_SETTINGS: Final = {"GOGC": values.gogc, "GOMEMLIMIT": values.gomemlimit}


def asked_for(
    *,
    metrics: Sequence[str],
    configurations: Sequence[str],
    workloads: Sequence[str],
    node_class: str,
    rate: str | None,
    live: str | None,
    environment: Sequence[str],
    confidence: str,
) -> Asked:
    """What was typed, read. Raises UserError for what can't be read, and for nothing asked."""
    from results.forecast.forecast import metric_names
    from results.forecast.subjects import Asked

    try:
        settings = _settings(environment)
        asked = Asked(
            metrics=metric_names(metrics or ("peak_rss", "gc_cpu")),
            configurations=tuple(configurations),
            workloads=tuple(workloads),
            node_class=node_class,
            rate_rps=units.rate_rps(rate) if rate else None,
            live_bytes=float(units.size_bytes(live)) if live else None,
            gogc=_percent(settings.get("GOGC")),
            memlimit_bytes=_limit(settings.get("GOMEMLIMIT")),
            confidence=read_confidence(confidence),
        )
    except ValueError as error:
        raise UserError(str(error)) from error
    if asked.rate_rps is None and not asked.heap:
        raise UserError("say what is to be forecast: --rate, --live, --env, or --history SERVICE")
    return asked


def read_confidence(text: str) -> float:
    """`90%` → 0.9; from 50 % to 99 %. Raises UserError."""
    try:
        found = units.share(text)
    except ValueError as error:
        raise UserError(f"--confidence: {error}") from error
    if not 0.5 <= found <= 0.99:
        raise UserError(f"--confidence {text}: it must lie between 50% and 99%")
    return found


def _settings(environment: Sequence[str]) -> dict[str, str]:
    """`NAME=VALUE`, by Go's own rules. Raises ValueError."""
    found = {}
    for text in environment:
        name, equals, value = text.partition("=")
        if not equals or name not in _SETTINGS:
            raise ValueError(f"--env {text}: only GOGC=… and GOMEMLIMIT=… can be forecast")
        found[name] = _SETTINGS[name](value)
    if found.get("GOMEMLIMIT", "").endswith("%"):
        raise ValueError("--env GOMEMLIMIT: a share has no limit to be of here; write it in MiB")
    return found


def _percent(text: str | None) -> float | None:
    if text is None:
        return None
    return OFF if text == "off" else float(text)


def _limit(text: str | None) -> float | None:
    if text is None:
        return None
    found = values.gomemlimit_bytes(text)
    return OFF if found is None else float(found)


def print_forecast(
    archive_path: Path,
    service: str | None,
    asked: Asked,
    console: Console,
    *,
    form: str,
    output: Path | None,
) -> None:
    """Forecast what was asked for. Raises UserError, after the rest, for what is refused."""
    from results.forecast.observations import read_observations

    picture = _picture_form(output)
    observed = read_observations(archive_path, service)
    found, refused = _tried(observed, asked)
    if form == "json":
        _print_json(observed, found, refused)
    elif found:
        _print_found(observed, found, console, form)
    if found and output and picture:
        from results.forecast.pictures import forecast_chart

        _write(output, [forecast_chart(own) for own in found], picture)
    if refused:
        raise UserError("\n".join(dict.fromkeys(refused)))


def _tried(observed: Observed, asked: Asked) -> tuple[list[Forecast], list[str]]:
    """What can be forecast, and why the rest is refused."""
    from results.forecast.forecast import Refused, forecast, metrics_of
    from results.forecast.subjects import subjects

    found: list[Forecast] = []
    refused: list[str] = []
    for subject in subjects(observed.trials, asked):
        for metric in metrics_of(subject, asked):
            try:
                own = forecast(subject, metric, asked)
            except Refused as error:
                refused.append(str(error))
                continue
            # One setting that is asked of several configurations is one question.
            if not any(own.is_same_as(other) for other in found):
                found.append(own)
    return found, refused


def _print_json(observed: Observed, found: Sequence[Forecast], refused: Sequence[str]) -> None:
    from results.forecast import plain

    print_json(
        {
            "service": observed.service,
            "damage": list(observed.damage),
            "forecasts": [plain.plain_forecast(own) for own in found],
            "refused": list(refused),
            "note": plain.NO_MEASUREMENT,
        }
    )


def _print_found(
    observed: Observed, found: Sequence[Forecast], console: Console, form: str
) -> None:
    from results.forecast import plain

    if form == "csv":
        sys.stdout.write(plain.csv_forecasts(found))
    elif form == "md":
        sys.stdout.write(plain.markdown_forecasts(found))
    else:
        _print_forecasts(observed.service, found, console)
        _print_notes(observed.damage, console)


def _picture_form(output: Path | None) -> str | None:
    """What a picture's name ends in. Raises UserError for another ending."""
    if output is None:
        return None
    ending = output.suffix.removeprefix(".").lower()
    if ending not in PICTURES:
        raise UserError(f"{output}: a forecast is drawn as .svg or .png")
    return ending


def _write(output: Path, charts: Sequence[Any], form: str) -> None:
    from results.forecast.pictures import picture

    try:
        output.write_bytes(picture(charts, form))
    except OSError as error:
        raise UserError(f"{output}: {error.strerror or error}") from error


def _print_forecasts(service: str, found: Sequence[Forecast], console: Console) -> None:
    from results.forecast import plain
    from results.forecast.forecast import UNTRUSTED

    base = found[0].subject.base
    console.print(
        f"\n[bold]{escape(service)}[/]  {escape(base.facts['scenario'])}, "
        f"{escape(base.facts['arrivals'])} arrivals, {escape(base.node_class)}",
        highlight=False,
    )
    confidence = f"{found[0].confidence * 100:g} %"
    table = plain_table("forecast", "at", "value", f"({confidence})", "back-test", "verdict")
    for own in found:
        *cells, _ = map(escape, plain.cells_of(own))
        verdict = f"[red]{UNTRUSTED}[/]" if own.why_not else f"[green]{own.verdict}[/]"
        table.add_row(*cells, verdict)
    console.print(table)
    for own in found:
        _print_back_test(own, console)
    _print_notes([note for own in found for note in _why_not(own)], console)
    _print_notes([note for own in found for note in own.notes], console)
    lines = (
        f"Interval: where one more trial there would fall, {confidence}. Back-test: each level "
        "that was measured, predicted from the others.",
        plain.NO_MEASUREMENT,
    )
    for line in lines:
        console.print(f"[dim]{line}[/]", highlight=False, soft_wrap=True)


def _why_not(own: Forecast) -> list[str]:
    what = f"{own.metric.label} of {own.subject.base.configuration}"
    return [f"{what}: {own.verdict}"] if own.why_not else []


def _print_back_test(own: Forecast, console: Console) -> None:
    """Each level that was measured, beside what the others say of it."""
    show = {dimension.name: dimension.show for dimension in own.dimensions}
    title = f"{own.metric.label} of {own.subject.base.configuration}, back-test"
    table = plain_table(title, "predicted", "interval", "measured", "off by", "held")
    for level in own.backtest.levels:
        low, high = (
            format_value(own.metric, v) for v in (level.predicted.low, level.predicted.high)
        )
        table.add_row(
            f"{level.dimension} {show[level.dimension](level.at)}",
            format_value(own.metric, level.predicted.estimate),
            f"{low} … {high}",
            format_value(own.metric, level.measured),
            f"{level.error * 100:.1f} %",
            f"{level.held} of {level.trials}",
        )
    console.print(table)


def _print_notes(notes: Sequence[str], console: Console) -> None:
    for note in dict.fromkeys(notes):
        console.print(f"[yellow]![/] {escape(note)}", highlight=False, soft_wrap=True)


def wanted(
    metrics: Sequence[str] | None,
    configurations: Sequence[str] | None,
    workloads: Sequence[str] | None,
    node_class: str,
) -> Wanted:
    """Which part of a history; all metrics when none is named. Raises UserError."""
    from results.comparing.history import Wanted, known_metrics

    names = ["gc_cpu_share" if name == "gc_cpu" else name for name in metrics or ()]
    return Wanted(
        metrics=known_metrics(names),
        configurations=tuple(configurations or ()),
        workloads=tuple(workloads or ()),
        node_class=node_class,
    )


def print_continued(
    archive_path: Path,
    service: str | None,
    part: Wanted,
    console: Console,
    *,
    by: str | None,
    runs: int | None,
    confidence: str,
    form: str,
    output: Path | None,
) -> None:
    """Carry a history on. Raises UserError when nothing of it can be, or not so far."""
    from orchestrator.absent import show_packages
    from results.comparing.history import read_history
    from results.forecast import overtime, plain

    show_packages()  # the library works on pandas' series
    picture = _picture_form(output)
    if (by is None) == (runs is None):
        raise UserError("say how far: --runs N, or --by DATE")
    history = read_history(archive_path, service, part)
    tried = list(
        overtime.continued(
            history,
            read_confidence(confidence),
            runs=runs,
            by_ns=_date_ns(by) if by else None,
            bounds=overtime.bounds_of(archive_path, history),
        )
    )
    found = [own for own in tried if isinstance(own, overtime.Continued)]
    lost = [own for own in tried if isinstance(own, overtime.NotContinued)]
    if form == "json":
        document = {"service": history.service, "note": plain.NO_MEASUREMENT}
        print_json(document | {"metrics": [plain.plain_continued(own) for own in tried]})
    elif found and form == "csv":
        sys.stdout.write(plain.csv_continued(found))
    elif found and form == "md":
        sys.stdout.write(plain.markdown_continued(found))
    elif found:
        _print_histories(history.service, found, lost, console)
    if found and output and picture:
        from results.forecast.pictures import history_chart

        _write(output, [history_chart(own) for own in found], picture)
    refused = [own for own in lost if own.too_far] if found else lost
    if refused:
        raise UserError("\n".join(_reasons(refused)))


def _date_ns(text: str) -> int:
    """The end of a day such as `2027-03-01`. Raises UserError."""
    try:
        if not re.fullmatch(r"\d{4}-\d{2}-\d{2}", text):
            raise ValueError(text)
        moment = datetime.fromisoformat(f"{text}T23:59:59").replace(tzinfo=UTC)
    except ValueError as error:
        raise UserError(f"--by {text}: a date such as 2027-03-01 is wanted") from error
    return round(moment.timestamp() * 1e9)


def _reasons(lost: Sequence[NotContinued]) -> list[str]:
    """Why metrics are not forecast, each reason once."""
    of: dict[str, list[NotContinued]] = {}
    for own in lost:
        of.setdefault(own.why, []).append(own)
    return [
        f"no forecast of {_few([o.metric.label for o in those], 'metric')} of "
        f"{_few([f'{o.cell.configuration} × {o.cell.workload}' for o in those], 'cell')}: {why}"
        for why, those in of.items()
    ]


def _few(names: Sequence[str], noun: str) -> str:
    """The names, or how many they are."""
    unique = list(dict.fromkeys(names))
    return ", ".join(unique) if len(unique) <= NAMED_MAX else counted(len(unique), noun)


def _print_histories(
    service: str, found: Sequence[Continued], lost: Sequence[NotContinued], console: Console
) -> None:
    from results.forecast import plain

    for cell in dict.fromkeys(own.cell for own in found):
        own_metrics = [own for own in found if own.cell == cell]
        farthest = max((own.steps[-1] for own in own_metrics), key=lambda step: step.when_ns)
        console.print(
            f"\n[bold]{escape(service)}[/]  {escape(cell.configuration)} × {escape(cell.workload)}"
            f"\n[dim]{escape(cell.node_class)} · {counted(farthest.ahead, 'run')} ahead, about "
            f"{plain.day(farthest.when_ns)}[/]",
            highlight=False,
        )
        interval = f"({own_metrics[0].confidence * 100:g} %)"
        table = plain_table("", "latest", "then", interval, "by", "back-test")
        for own in own_metrics:
            table.add_row(*map(escape, plain.history_cells_of(own)))
        console.print(table)
    for own in found:
        for line in plain.met(own):
            console.print(escape(line), highlight=False, soft_wrap=True)
    _print_notes([note for own in found for note in _doubts(own)], console)
    _print_notes(_reasons([own for own in lost if not own.too_far]), console)
    console.print(f"[dim]{plain.NO_MEASUREMENT}[/]", highlight=False, soft_wrap=True)


def _doubts(own: Continued) -> list[str]:
    from results.forecast.overtime import NAIVE

    what = f"{own.metric.label} of {own.cell.configuration} × {own.cell.workload}"
    told = [f"{what}: {own.verdict}"] if own.method == NAIVE else []
    if own.rolled.ahead < own.steps[-1].ahead:
        told.append(f"{what}: tried out {counted(own.rolled.ahead, 'run')} ahead only")
    return told

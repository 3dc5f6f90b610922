"""`bench metrics`: the files that Prometheus and Grafana need, and the list of the metrics."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.watching.dashboard import dashboard
from orchestrator.watching.endpoint import parsed
from orchestrator.watching.metrics import METRICS
from results.errors import EnvironmentLacks, UserError

if TYPE_CHECKING:
    from rich.console import Console


def write_setup(folder: Path, address: str) -> list[Path]:
    """Write them; files of the same content stay. The paths.

    Raises UserError when another file of that name is there, EnvironmentLacks when the folder can't
    be written to.
    """
    parsed(address)
    shipped = files("orchestrator.watching") / "shipped"
    scrape = (shipped / "prometheus.yml").read_text(encoding="utf-8")
    texts = {
        "prometheus.yml": scrape.replace("ADDRESS", address),
        "heapgate-alerts.yml": (shipped / "heapgate-alerts.yml").read_text(encoding="utf-8"),
        "heapgate-dashboard.json": json.dumps(dashboard(), indent=2) + "\n",
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in texts.items():
            path = folder / name
            if path.exists() and path.read_text(encoding="utf-8") != text:
                raise UserError(f"{path} is there already, and other; choose another folder: -o")
        for name, text in texts.items():
            (folder / name).write_text(text, encoding="utf-8")
    except OSError as error:
        raise EnvironmentLacks(f"{error.filename or folder}: {error.strerror}") from error
    return [folder / name for name in texts]


def print_metrics(console: Console, *, as_json: bool) -> None:
    """Each metric with its kind, unit, labels and meaning."""
    from orchestrator.answers.common import plain_table, print_json

    rows = [
        {
            "name": metric.name,
            "kind": metric.kind,
            "unit": metric.unit,
            "labels": list(metric.all_labels),
            "meaning": metric.meaning,
        }
        for metric in METRICS
    ]
    if as_json:
        print_json(rows)
        return
    table = plain_table("metric", "kind", "labels", "meaning")
    table.columns[0].no_wrap = True
    for metric in METRICS:
        table.add_row(metric.name, metric.kind, " ".join(metric.all_labels), metric.meaning)
    console.print(table)

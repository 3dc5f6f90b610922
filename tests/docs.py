"""Regenerate the reference pages, and the table in watching.md, from what they describe:
`make docs`.
"""

from __future__ import annotations

import html
import subprocess
import sys
from pathlib import Path

DOCS = Path(__file__).resolve().parents[1] / "docs"


def cli_reference() -> str:
    """Every command with its options, by Typer itself."""
    done = subprocess.run(
        [sys.executable, "-m", "typer", "orchestrator.cli", "utils", "docs", "--name", "bench"],
        capture_output=True,
        text=True,
        check=True,
        cwd=DOCS.parent,
    )
    return html.unescape(done.stdout).rstrip() + "\n"


def pages() -> dict[str, str]:
    """The generated pages by file name."""
    from orchestrator.matrix.reference import matrix_reference
    from orchestrator.watching.metrics import reference as metrics_reference
    from results.sql.reference import sql_reference

    return {
        "matrix.md": matrix_reference(),
        "sql.md": sql_reference(),
        "cli.md": cli_reference(),
        "watching.md": _with_table("watching.md", "metrics", metrics_reference()),
    }


def _with_table(page: str, name: str, table: str) -> str:
    """A page that is written by hand, with its table between two marks."""
    before, begin, rest = (DOCS / page).read_text(encoding="utf-8").partition(f"<!-- {name}:")
    mark, end, after = rest.partition(f"<!-- /{name} -->")
    assert begin and end, f"{page} has no marks for its table"
    return f"{before}{begin}{mark.splitlines()[0]}\n{table}{end}{after}"


if __name__ == "__main__":
    for name, text in pages().items():
        (DOCS / name).write_text(text, encoding="utf-8")

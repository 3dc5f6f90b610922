"""Regenerate the reference pages from what they describe: `make docs`."""

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
    from orchestrator.reference import matrix_reference
    from results.reference import sql_reference

    return {"matrix.md": matrix_reference(), "sql.md": sql_reference(), "cli.md": cli_reference()}


if __name__ == "__main__":
    for name, text in pages().items():
        (DOCS / name).write_text(text, encoding="utf-8")

"""A picture of a command's real terminal output: python -m tests.screenshot OUT.svg bench demo."""

from __future__ import annotations

import io
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

COLUMNS = 110


def recorded(command: list[str]) -> str:
    """Everything that a command writes to a terminal of its own."""
    reader, terminal = pty.openpty()
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=terminal,
        stderr=terminal,
        env=os.environ | {"COLUMNS": str(COLUMNS), "LINES": "40", "TERM": "xterm-256color"},
    )
    os.close(terminal)
    chunks = []
    while True:
        try:
            chunk = os.read(reader, 65_536)
        except OSError:  # Linux says EIO when the last writer is gone
            break
        if not chunk:
            break
        chunks.append(chunk)
    process.wait()
    return b"".join(chunks).decode(errors="replace")


def final_screen(output: str) -> str:
    """What stays when it is over, colours included: a terminal emulator replays it."""
    import pyte

    screen = pyte.HistoryScreen(COLUMNS, 40, history=10_000)
    pyte.Stream(screen).feed(output)
    lines = [*screen.history.top, *(screen.buffer[row] for row in range(screen.lines))]
    return "\n".join(_ansi(line) for line in lines).rstrip()


def _ansi(line: object) -> str:
    from rich.color import Color
    from rich.style import Style

    text = ""
    for column in range(COLUMNS):
        cell = line[column]  # type: ignore[index]
        names = [cell.fg] if cell.fg != "default" else []
        colour = Color.parse(_rich_name(names[0])) if names else None
        style = Style(color=colour, bold=cell.bold, italic=cell.italics)
        text += style.render(cell.data) if style else cell.data
    return text.rstrip()


def _rich_name(name: str) -> str:
    if len(name) == 6 and all(c in "0123456789abcdef" for c in name):
        return f"#{name}"
    return {"brown": "yellow"}.get(name, name.replace("bright", "bright_"))


def main(target: Path, command: list[str]) -> None:
    """Run the command and write its picture."""
    from rich.console import Console
    from rich.text import Text

    console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True)
    console.print(Text(f"$ {' '.join(command)}", style="bold"))
    console.print(Text.from_ansi(final_screen(recorded(command))))
    drawn = console.export_svg(title=" ".join(command))
    # Fonts of another host: a picture in a repository must not fetch anything.
    target.write_text(re.sub(r"@font-face {.*?}\s*", "", drawn, flags=re.DOTALL), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])

"""What `bench serve` prints: one address, and what to know when others can reach it."""

from __future__ import annotations

import ipaddress
import sys
import webbrowser
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from results.serve.server import LOOPBACK, serve


def print_serving(
    archives: Sequence[str | Path],
    console: Console,
    *,
    port: int,
    listen: str | None,
    open_it: bool,
) -> None:
    """Serve archives until a signal ends it. Raises as `results.serve.server.serve` does."""
    address = listen or LOOPBACK

    def announce(url: str) -> None:
        if not ipaddress.ip_address(address).is_loopback:
            sys.stderr.write(
                f"warning: listening on {address}: whoever reaches it and has the address below "
                "can read the archive, and nothing is encrypted on the way\n"
            )
            sys.stderr.flush()
        console.print(url, markup=False, highlight=False, soft_wrap=True)
        console.file.flush()
        if open_it and not webbrowser.open(url):
            sys.stderr.write("no browser could be opened here; open the address above yourself\n")

    serve(archives, address, port, announce)

"""Vega, Vega-Lite and vega-embed as one script, from vl-convert: no network, no browser.

Making it takes as long as all the rest of a page and is the same for every page of one vl-convert:
it is kept in the cache folder. The first time a process of its own makes it, meanwhile.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import version
from pathlib import Path
from typing import Final

from platformdirs import user_cache_dir

from results.errors import EnvironmentLacks
from results.files import write_whole

_MAKE: Final = "import sys, vl_convert; sys.stdout.write(vl_convert.javascript_bundle(sys.argv[1]))"
_SNIPPET: Final = "window.vegaEmbed = vegaEmbed;"
_END: Final = "\n// end of the bundle\n"
"""What a whole file ends with."""


@contextmanager
def bundling() -> Iterator[Callable[[], str]]:
    """Start to make the script; what is yielded waits for it and returns it."""
    kept = _cache_file()
    known = _read(kept)
    if known:
        yield lambda: known
        return
    command = [sys.executable, "-c", _MAKE, _SNIPPET]
    environment = os.environ | {"PYTHONIOENCODING": "utf-8"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as process:
        try:
            yield lambda: _made(process, kept)
        finally:
            process.kill()


def _made(process: subprocess.Popen[bytes], kept: Path) -> str:
    output, _ = process.communicate()
    if process.returncode:
        raise EnvironmentLacks("vl-convert can't make the charts' script; its error is above")
    script = output.decode() + _END
    with suppress(OSError):
        # A folder that can't be written to costs time, nothing else.
        kept.parent.mkdir(parents=True, exist_ok=True)
        write_whole(kept, script)
    return script


def _read(kept: Path) -> str:
    try:
        script = kept.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return ""
    return script if script.endswith(_END) else ""


def _cache_file() -> Path:
    root = os.environ.get("HEAPGATE_CACHE")
    folder = Path(root).expanduser().absolute() if root else Path(user_cache_dir("heapgate"))
    return folder / "charts" / f"vl-convert-{version('vl-convert-python')}.js"

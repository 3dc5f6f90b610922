"""What pip is to install on a runner so that it has this very Heapgate."""

from __future__ import annotations

import json
from importlib.metadata import PackageNotFoundError, distribution


def own_requirement() -> tuple[str, str]:
    """A requirement for pip, and why it may not be had on another machine (empty: it may).

    How a package was installed is told by its `direct_url.json` (PEP 610): without one it came from
    an index; from a repository it has a commit; a folder of this machine is nowhere else.
    """
    try:
        own = distribution("heapgate")
    except PackageNotFoundError:
        return "heapgate", "this Heapgate is not installed, so its version is not known"
    pinned = f"heapgate=={own.version}"
    text = own.read_text("direct_url.json")
    if text is None:
        return pinned, ""
    origin = json.loads(text)
    if "vcs_info" in origin:
        vcs = origin["vcs_info"]
        return f"heapgate @ {vcs['vcs']}+{origin['url']}@{vcs['commit_id']}", ""
    return pinned, "this Heapgate was installed from a folder or file of this machine"

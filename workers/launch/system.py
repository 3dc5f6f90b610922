"""The launcher of the system that this runs on: the same names on each."""

from __future__ import annotations

import sys

if sys.platform == "win32":
    from workers.launch.windows import ServiceProcess, claim_port, give_home
else:
    from workers.launch.linux import ServiceProcess, claim_port, give_home

__all__ = ["ServiceProcess", "claim_port", "give_home"]

"""Ray's own `ray start`, but on the address that was asked for; it is run as a program.

Three things of it are changed. It takes 127.0.0.1 for a mistake and chooses an outer address
instead, whatever `--node-ip-address` says: here loopback stays loopback. It refuses to join where
`RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER` is 0, which is what keeps the processes that it starts on
loopback. And it opens Ray's client server on a fixed port, which nothing here uses.
"""

from __future__ import annotations

from typing import Any

import ray.scripts.scripts
from ray._private import ray_constants, services

from orchestrator.membership.keeper import die_with_parent


def main() -> None:
    """Do what `ray` does with the same arguments."""
    die_with_parent()
    services.resolve_ip_for_localhost = lambda host: host
    ray_constants.ENABLE_RAY_CLUSTER = True
    scripts: Any = ray.scripts.scripts
    scripts.get_ray_client_dependency_error = lambda: "not used"
    scripts.main()


if __name__ == "__main__":
    main()

"""The fast HTTP user of a scenario: Locust's `HttpUser`, at about five times the rate of a core.

    from locust import task
    from workloads.users import HttpUser

    class Reader(HttpUser):
        @task
        def read(self):
            self.client.get("/items/1", name="item")

It works in plain Locust too. Differences from Locust's own users: docs/scenarios.md.
"""

from __future__ import annotations

import ssl
from typing import Any, ClassVar

from locust import User

from workloads.http1.client import HttpClient, Settings
from workloads.http1.recording import log_of

HEADERS = {"User-Agent": "heapgate", "Accept": "*/*", "Accept-Encoding": "gzip, deflate"}


class HttpUser(User):
    """A user with a `client` for HTTP/1.1 with keep-alive. Times are in seconds."""

    abstract = True

    connect_timeout: ClassVar[float] = 10.0
    timeout: ClassVar[float] = 60.0
    """For a whole request, from its start to the last byte of its answer."""

    follow_redirects: ClassVar[bool] = False
    tls: ClassVar[bool] = False
    """Speak TLS with the service, although its address says http://."""

    verify: ClassVar[bool | str] = True
    """Check the service's certificate; or the path of the authority's own; or not at all."""

    default_headers: ClassVar[dict[str, str]] = {}

    def __init__(self, environment: Any) -> None:
        """Raises ValueError when there is no address."""
        super().__init__(environment)
        if not self.host:
            raise ValueError("this user needs a host")
        base_url = self.host
        if self.tls and base_url.startswith("http://"):
            base_url = "https://" + base_url.removeprefix("http://")
        settings = Settings(
            connect_timeout_s=self.connect_timeout,
            timeout_s=self.timeout,
            tls=_context(self.verify),
            headers=HEADERS | self.default_headers,
        )
        self.client = HttpClient(
            base_url,
            log_of(environment),
            settings,
            follow_redirects=self.follow_redirects,
            user=self,
        )


_contexts: dict[bool | str, ssl.SSLContext] = {}


def _context(verify: bool | str) -> ssl.SSLContext:
    """One for all users: reading certificates takes long."""
    if verify not in _contexts:
        context = ssl.create_default_context(cafile=verify if isinstance(verify, str) else None)
        if verify is False:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        _contexts[verify] = context
    return _contexts[verify]

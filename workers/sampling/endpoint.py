"""Values from the service's own metrics endpoint: Prometheus' text format, or expvar's JSON.

Reading it makes the service work, so its interval is the user's choice; `interval_ns` says how
often. Formats: Prometheus "Text-based format" (parsed by prometheus-client), Go's package expvar.
"""

from __future__ import annotations

import http.client
import json
import math
import threading
from collections.abc import Callable, Iterator
from typing import Any, Final
from urllib.parse import urlsplit

from results.clock import ClockMap, steady_ns
from workers.spec import EndpointSpec

Sink = Callable[[dict[str, list[Any]]], object]
"""Takes rows as columns."""

TIMEOUT_S: Final = 2.0
BODY_BYTES_MAX: Final = 8 * 2**20

_APPLIED: Final = {
    "go_gc_gogc_percent": "GOGC",
    "go_gc_gomemlimit_bytes": "GOMEMLIMIT",
    "go_sched_gomaxprocs_threads": "GOMAXPROCS",
}
"""What Go's Prometheus client shows of the settings that the runtime has really applied."""

_OFF: Final = 2.0**63 - 1
"""From here on a value means "off": no memory limit is the largest int64, GOGC=off is -1 read as
an unsigned number.
"""


class EndpointFailed(Exception):
    """The endpoint did not answer, or not in the form it should."""


class EndpointClient:
    """One connection to the endpoint, kept open between readings."""

    def __init__(self, base_url: str, metrics: EndpointSpec) -> None:
        """Connects when first read. Raises ValueError for an address that is none."""
        address = urlsplit(base_url)
        if not address.hostname:
            raise ValueError(f"{base_url!r} is not an address")
        self._metrics = metrics
        self._connection = http.client.HTTPConnection(
            address.hostname, address.port, timeout=TIMEOUT_S
        )

    def read(self) -> dict[str, float]:
        """Every value now. Raises EndpointFailed."""
        text = self._fetch()
        try:
            if self._metrics.kind == "prometheus":
                return dict(parse_prometheus(text))
            return dict(parse_expvar(text))
        except Exception as error:  # what a parser makes of rubbish is its own affair
            raise EndpointFailed(
                f"{self._metrics.path} is not in {self._metrics.kind} form: {error}"
            ) from error

    def _fetch(self) -> str:
        try:
            self._connection.request("GET", self._metrics.path)
            answer = self._connection.getresponse()
            body = answer.read(BODY_BYTES_MAX + 1)
        except (OSError, http.client.HTTPException) as error:
            self.close()
            raise EndpointFailed(
                f"{self._metrics.path}: {error or type(error).__name__}"
            ) from error
        if answer.status != 200 or len(body) > BODY_BYTES_MAX:
            self.close()
            why = f"HTTP status {answer.status}" if answer.status != 200 else "answer is too long"
            raise EndpointFailed(f"{self._metrics.path}: {why}")
        return body.decode("utf-8", "replace")

    def close(self) -> None:
        """Close the connection; a later reading opens it again."""
        self._connection.close()


def parse_prometheus(text: str) -> Iterator[tuple[str, float]]:
    """Name with labels and value of each sample. Raises ValueError on another form."""
    from prometheus_client.parser import text_string_to_metric_families

    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            yield _labelled(sample.name, sample.labels), float(sample.value)


def _labelled(name: str, labels: dict[str, str]) -> str:
    if not labels:
        return name
    inner = ",".join(f"{key}={json.dumps(value)}" for key, value in labels.items())
    return f"{name}{{{inner}}}"


def parse_expvar(text: str) -> Iterator[tuple[str, float]]:
    """Dotted name and value of each number, lists left out. Raises ValueError on another form."""
    document = json.loads(text)
    if not isinstance(document, dict):
        raise ValueError("not a JSON object")
    return _numbers("", document)


def _numbers(prefix: str, values: dict[str, Any]) -> Iterator[tuple[str, float]]:
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _numbers(f"{prefix}{name}.", value)
        elif isinstance(value, (int, float)):
            yield f"{prefix}{name}", float(value)


class EndpointReader:
    """Reads the endpoint at a fixed interval in a thread of its own."""

    def __init__(
        self,
        base_url: str,
        metrics: EndpointSpec,
        *,
        sink: Sink,
        phase: Callable[[], str],
        clock: ClockMap,
    ) -> None:
        """Prepare. Raises ValueError for an address that is none."""
        self._client = EndpointClient(base_url, metrics)
        self._interval_ns = metrics.interval_ns
        self._sink = sink
        self._phase = phase
        self._clock = clock
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="endpoint", daemon=True)
        self._fault: Exception | None = None
        self.readings = 0
        self.failures = 0
        self.last_failure: str | None = None

    def start(self) -> None:
        """Start reading; the first reading is made at once."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread. Raises what the sink raised, if it did."""
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join()
        self._client.close()
        if self._fault:
            raise self._fault

    def _run(self) -> None:
        due_ns = steady_ns()
        try:
            while True:
                self._read()
                late_ns = max(0, steady_ns() - due_ns)
                due_ns += (late_ns // self._interval_ns + 1) * self._interval_ns
                if self._stop.wait(max(0, due_ns - steady_ns()) / 1e9):
                    return
        except Exception as error:
            self._fault = error

    def _read(self) -> None:
        try:
            values = self._client.read()
        except EndpointFailed as error:
            self.failures += 1
            self.last_failure = str(error)
            return
        self.readings += 1
        if values:
            self._sink(
                {
                    "time_ns": [self._clock.now_ns()] * len(values),
                    "phase": [self._phase()] * len(values),
                    "metric": list(values),
                    "value": list(values.values()),
                }
            )


def verify_applied(base_url: str, metrics: EndpointSpec) -> dict[str, Any]:
    """What the Go runtime has applied, as far as the endpoint tells.

    Keys, each only when known: GOGC (percent), GOMEMLIMIT (bytes), GOMAXPROCS; a value is an int
    or "off". An endpoint that can't be read gives {"unread": why}. Expvar has none of them.
    """
    if metrics.kind != "prometheus":
        return {}
    client = EndpointClient(base_url, metrics)
    try:
        values = client.read()
    except EndpointFailed as error:
        return {"unread": str(error)}
    finally:
        client.close()
    return {key: _setting(values[name]) for name, key in _APPLIED.items() if name in values}


def _setting(value: float) -> int | str | None:
    if math.isnan(value):
        return None
    return "off" if value >= _OFF or value < 0 else int(value)

"""Profiles that a Go service gives of itself through net/http/pprof, when the matrix asks for them.

The service is asked without `gc=1`, so that no collection is forced: a heap profile is as of the
last collection that had ended. It writes them while it serves, and an execution trace slows it, so
what is taken in measure disturbs it, and the trial says so. At the end they are asked for after
measure, while the last answers come in. https://pkg.go.dev/net/http/pprof

A service that does not answer costs the trial nothing but the wait at its end: every request has a
deadline, after which its connection is cut.
"""

from __future__ import annotations

import contextlib
import http.client
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any, Final
from urllib.parse import urlsplit

from results.clock import ClockMap, steady_ns
from workers.spec import ProfilesSpec

Sink = Callable[[dict[str, list[Any]]], object]
"""Takes rows as columns."""

PATIENCE_S: Final = 5.0
"""A profile is written within it, a trace within it beyond its own length."""

PROFILE_BYTES_MAX: Final = 8 * 2**20
TRACE_BYTES_MAX: Final = 32 * 2**20
"""A longer answer is not kept: half a profile tells nothing. Both fit into one message."""

POLL_S: Final = 0.02
_PIECE_BYTES: Final = 65_536


class ProfileFailed(Exception):
    """The service gave no profile; the text says why."""


class NotInTime(ProfileFailed):
    """Nothing whole came before the deadline: to ask for more would only take longer."""


class ProfileTaker:
    """Waits for the moment, in a thread of its own, and takes what is wanted once."""

    def __init__(
        self,
        base_url: str,
        spec: ProfilesSpec,
        *,
        sink: Sink,
        phase: Callable[[], str],
        clock: ClockMap,
        resident_bytes: Callable[[], int | None],
    ) -> None:
        """Prepare. `resident_bytes` is what the last sample of memory showed."""
        self._base_url = base_url
        self._spec = spec
        self._sink = sink
        self._phase = phase
        self._clock = clock
        self._resident_bytes = resident_bytes
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="profiles", daemon=True)
        self._ends_ns = 0
        self._fault: Exception | None = None
        self._silent = False
        self.taken: dict[str, str] = {}
        """Phase in which each kind was asked for, of those that were taken."""
        self.failed: dict[str, str] = {}
        """Why, of those that were not."""

    def start(self, ends_ns: int) -> None:
        """Call in measure, which is to end at this monotonic instant."""
        self._ends_ns = ends_ns
        self._thread.start()

    def finish(self, *, now: bool) -> None:
        """Wait for what is still being taken, but not when it must end `now`.

        Raises what the sink raised, if it did.
        """
        if now:
            self._stop.set()
        if self._thread.ident is not None:
            self._thread.join()
        if self._fault:
            raise self._fault

    def _run(self) -> None:
        try:
            if self._spec.at == "peak":
                self._at_peak()
            else:
                self._at_end()
        except Exception as error:
            self._fault = error

    def _at_peak(self) -> None:
        limit_bytes = self._spec.memory_over_bytes or 0
        while self._in_measure():
            if (self._resident_bytes() or 0) > limit_bytes:
                self._take_all("memory_over")
                return
            self._stop.wait(POLL_S)
        if not self._stop.is_set():
            why = f"memory was never seen above {limit_bytes:,} bytes"
            self.failed = dict.fromkeys(self._wanted(), why)

    def _at_end(self) -> None:
        if self._spec.trace_ns:
            self._wait_until(self._ends_ns - self._spec.trace_ns)
            self._take("trace", "end")
        while self._in_measure():
            self._stop.wait(POLL_S)
        for kind in self._spec.kinds:
            self._take(kind, "end")

    def _take_all(self, reason: str) -> None:
        for kind in self._wanted():
            self._take(kind, reason)

    def _wanted(self) -> tuple[str, ...]:
        return (*self._spec.kinds, *(("trace",) if self._spec.trace_ns else ()))

    def _in_measure(self) -> bool:
        return self._phase() == "measure" and not self._stop.is_set()

    def _wait_until(self, instant_ns: int) -> None:
        while self._in_measure() and steady_ns() < instant_ns:
            self._stop.wait(min(POLL_S, max(0, instant_ns - steady_ns()) / 1e9))

    def _take(self, kind: str, reason: str) -> None:
        if self._stop.is_set():
            return
        if self._silent:
            self.failed[kind] = "not asked for after that"
            return
        phase, began_ns, resident = self._phase(), steady_ns(), self._resident_bytes()
        try:
            content = self._ask(kind)
        except ProfileFailed as error:
            self.failed[kind] = str(error)
            self._silent = isinstance(error, NotInTime)
            return
        self.taken[kind] = phase
        self._sink(
            {
                "time_ns": [self._clock.utc_ns(began_ns)],
                "phase": [phase],
                "kind": [kind],
                "reason": [reason],
                "took_ns": [steady_ns() - began_ns],
                "resident_bytes": [resident],
                "content": [content],
            }
        )

    def _ask(self, kind: str) -> bytes:
        if kind != "trace":
            path = f"{self._spec.path}/{kind}"
            return fetch(self._base_url, path, PATIENCE_S, PROFILE_BYTES_MAX, self._stop)
        seconds = (self._spec.trace_ns or 0) / 1e9
        path = f"{self._spec.path}/trace?seconds={seconds:g}"
        return fetch(self._base_url, path, seconds + PATIENCE_S, TRACE_BYTES_MAX, self._stop)


def fetch(
    base_url: str, path: str, patience_s: float, bytes_max: int, stop: threading.Event
) -> bytes:
    """A whole answer to GET. Raises ProfileFailed, at the latest when the patience is over."""
    address = urlsplit(base_url)
    connection = http.client.HTTPConnection(
        address.hostname or "", address.port, timeout=patience_s
    )
    try:
        connection.connect()
        connection.sock.settimeout(patience_s + 1)  # the deadline comes first, for the whole
        with _cut_in_time(connection.sock, patience_s, stop) as cut:
            try:
                content = _answer(connection, path, bytes_max)
            except (OSError, http.client.HTTPException) as error:
                if not cut:
                    raise ProfileFailed(f"{path}: {error or type(error).__name__}") from error
        if cut:  # looked at here too: an answer without a length ends like a whole one
            raise NotInTime(f"{path}: {cut[0]}")
        return content
    except OSError as error:
        raise ProfileFailed(f"{path}: {error or type(error).__name__}") from error
    finally:
        connection.close()


def _answer(connection: http.client.HTTPConnection, path: str, bytes_max: int) -> bytes:
    connection.request("GET", path)
    answer = connection.getresponse()
    body = bytearray()
    while piece := answer.read(min(_PIECE_BYTES, bytes_max + 1 - len(body))):
        body += piece
        if len(body) > bytes_max:
            raise ProfileFailed(f"{path}: the answer has more than {bytes_max:,} bytes")
    if answer.status != 200:
        raise ProfileFailed(f"{path}: HTTP status {answer.status}")
    if answer.length:
        raise http.client.IncompleteRead(bytes(body), answer.length)
    return bytes(body)


@contextlib.contextmanager
def _cut_in_time(
    connected: socket.socket, patience_s: float, stop: threading.Event
) -> Iterator[list[str]]:
    """Cut a connection when the patience is over or all is to stop; gives why, once it was."""
    done = threading.Event()
    why: list[str] = []

    def watch() -> None:
        deadline_ns = steady_ns() + round(patience_s * 1e9)
        while not done.wait(POLL_S):
            late = steady_ns() > deadline_ns
            if late or stop.is_set():
                why.append(f"no whole answer within {patience_s:g} s" if late else "stopped")
                with contextlib.suppress(OSError):
                    connected.shutdown(socket.SHUT_RDWR)
                return

    watcher = threading.Thread(target=watch, name="profile-deadline", daemon=True)
    watcher.start()
    try:
        yield why
    finally:
        done.set()
        watcher.join()

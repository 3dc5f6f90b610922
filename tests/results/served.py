"""A real `bench serve` in a process of its own, and a client that sends what it is told to send."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

from results.files import RUN_FILES, write_sums

BENCH = Path(sys.executable).with_name("bench")


@dataclass(frozen=True)
class Answer:
    """What came back."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()


@dataclass
class Served:
    """A running server and what its terminal said."""

    process: subprocess.Popen[str]
    url: str
    temp: Path
    cookie: str = ""

    @property
    def base(self) -> str:
        return self.url.partition("/?")[0]

    @property
    def host(self) -> str:
        return urlsplit(self.url).netloc

    def ask(
        self,
        path: str,
        *,
        method: str = "GET",
        body: bytes | None = None,
        headers: Mapping[str, str | None] | None = None,
    ) -> Answer:
        """One request; headers are ours where not given, and left out where None."""
        sent: dict[str, str | None] = {"Host": self.host, "Cookie": self.cookie}
        sent |= headers or {}
        connection = http.client.HTTPConnection(self.host, timeout=120)
        try:
            connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
            for name, value in sent.items():
                if value is not None:
                    connection.putheader(name, value)
            if body is not None and "Transfer-Encoding" not in sent:
                connection.putheader("Content-Length", str(len(body)))
            connection.endheaders(body)
            answer = connection.getresponse()
            named = {name.lower(): value for name, value in answer.headers.items()}
            return Answer(answer.status, named, answer.read())
        finally:
            connection.close()

    def post(
        self, path: str, headers: Mapping[str, str | None] | None = None, **fields: str
    ) -> Answer:
        """A form, as our own page would send it."""
        own = {
            "Origin": self.base,
            "Content-Type": "application/x-www-form-urlencoded",
        }
        body = urlencode(fields).encode()
        return self.ask(path, method="POST", body=body, headers=own | dict(headers or {}))

    def log_in(self) -> None:
        """Give the token, keep the cookie."""
        answer = self.ask(self.url.removeprefix(self.base), headers={"Cookie": None})
        assert answer.status == 303
        self.cookie = answer.headers["set-cookie"].partition(";")[0]


@contextmanager
def serving(archive: Path | str, temp: Path, *arguments: str) -> Iterator[Served]:
    """Start a server, log in; it is ended as a user would end it, and must leave nothing."""
    temp.mkdir(parents=True, exist_ok=True)
    process = start(archive, temp, *arguments)
    assert process.stdout is not None
    try:
        line = process.stdout.readline().strip()
        assert re.fullmatch(r"http://\S+/\?token=[\w-]{43}", line), line + rest(process)
        served = Served(process, line, temp)
        served.log_in()
        yield served
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err) == (0, "", "")
    assert not list(temp.glob("heapgate-*"))


def start(archive: Path | str, temp: Path, *arguments: str) -> subprocess.Popen[str]:
    """The command alone."""
    environment = os.environ | {"TMPDIR": str(temp), "HEAPGATE_STATE": str(temp / "state")}
    return subprocess.Popen(
        [str(BENCH), "serve", "--archive", str(archive), *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        start_new_session=True,
    )


def rest(process: subprocess.Popen[str]) -> str:
    """What a command that ended by itself said."""
    _, err = process.communicate(timeout=60)
    return err


def change_run(archive: Path, run_id: str, **fields: Any) -> None:
    """Have a run's document say something else."""
    path = archive / run_id / "run.json"
    document = json.loads(path.read_text())
    path.write_text(json.dumps(document | fields))
    write_sums(path.parent, RUN_FILES)

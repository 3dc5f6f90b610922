"""Sends one message to several targets: a process of its own, which can be ended when it hangs.

Told by JSON on standard input, so that no address is in the list of processes:
python -m orchestrator.watching.courier. One line of JSON comes back for each target.
"""

from __future__ import annotations

import json
import logging
import os
import re
import sys
import threading
from typing import Any

_STATUS = re.compile(r"error=(\d{3})\b")


class _Words(logging.Handler):
    """What Apprise says goes nowhere: it names addresses. A status of HTTP is kept."""

    def __init__(self) -> None:
        super().__init__()
        self.status: dict[int, str] = {}

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the status of an answer, for the thread that got it."""
        if found := _STATUS.search(record.getMessage()):
            self.status[threading.get_ident()] = found[1]


_WORDS = _Words()


def _silence() -> None:
    for name in ("apprise", "urllib3", "requests"):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [_WORDS], False


def open_service(url: str) -> Any:
    """Apprise's object for an address; None for one that it can't use."""
    _silence()
    from apprise import Apprise

    try:
        service = Apprise.instantiate(url)
    except Exception:  # its plugins raise whatever comes; the text may hold the address
        return None
    return service if service is not None and service.enabled else None


def _send(index: int, url: str, order: dict[str, Any]) -> None:
    problem = ""
    try:
        message = {"body": order["text"], "title": order["title"], "notify_type": order["kind"]}
        service = open_service(url)
        if service is None or not service.notify(**message, body_format="text"):
            status = _WORDS.status.get(threading.get_ident())
            problem = f"it answered {status}" if status else "it was not reached, or refused it"
    except Exception as error:  # whatever its plugin raises
        problem = f"it failed with {type(error).__name__}"
    line = json.dumps({"index": index, "problem": problem})
    os.write(1, f"{line}\n".encode())


def main() -> None:
    """Send to all at the same time."""
    order = json.loads(sys.stdin.read())
    open_service("json://localhost")  # its plugins are loaded once, not by each thread
    threads = [
        threading.Thread(target=_send, args=(index, url, order), daemon=True)
        for index, url in enumerate(order["urls"])
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    os._exit(0)  # the library's own threads are not waited for


if __name__ == "__main__":
    main()

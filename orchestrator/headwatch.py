"""While a run uses a cluster: is its head still the one that the run began with?

Ray ends a driver whose head is gone, after a minute and without a word. So a run looks for itself,
and ends in order: the nodes and the collector still answer, only nothing new can be begun.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from orchestrator.membership import nodes
from results.errors import HeapgateError, RunIncomplete

LOOK_EVERY_S = 1.0


class HeadWatch:
    """Looks until it is stopped, and reports once."""

    def __init__(
        self, cluster: nodes.Cluster, run_id: str, report: Callable[[HeapgateError], None]
    ) -> None:
        self._cluster = cluster
        self._run_id = run_id
        self._report = report
        self._session = nodes.head_session(cluster)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look, name="head-watch", daemon=True)
        self._thread.start()

    def _look(self) -> None:
        while not self._stop.wait(LOOK_EVERY_S):
            what = self._changed()
            if what:
                self._report(
                    RunIncomplete(
                        f"{what}; what was measured is kept; start it again with `bench node "
                        f"head`, then go on with: bench resume {self._run_id}"
                    )
                )
                return

    def _changed(self) -> str:
        if nodes.current_cluster() is None:
            return "the head of the cluster ended"
        session = nodes.head_session(self._cluster)
        if session is None or self._session is None or session == self._session:
            return ""
        return "the head of the cluster was started anew, and its nodes joined it anew"

    def stop(self) -> None:
        """Look no more."""
        self._stop.set()
        self._thread.join()

"""What a query finds: tables and views, each there as soon as a query names it.

Most queries name one or two, and to put all the others together takes far longer than to ask. So a
word of a query that is the name of a table or view brings it, with all that its own SQL names. A
query that names nothing known, or that lists what there is, brings everything.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from results.sql.sandbox import Sandbox

_WORD: Final = re.compile(r"\w+")
_COMMENT: Final = re.compile(r"--[^\n]*")
_CREATE: Final = "create or replace view"
_LISTING: Final = re.compile(r"\b(show|information_schema|(duckdb|pg|sqlite)_\w+)\b", re.IGNORECASE)


class Catalog:
    """The tables and views of one database; `views` are their SQL, each after those it uses."""

    def __init__(
        self, sandbox: Sandbox, tables: Mapping[str, Any], views: Mapping[str, str]
    ) -> None:
        self._sandbox = sandbox
        self._tables = tables
        self._views = dict(views)
        self._put: set[str] = set()
        self._there: set[str] = set()

    def put(self, tables: Mapping[str, Any]) -> None:
        """Have these tables there now, in the place of others of their names."""
        self._sandbox.register(tables)
        self._put |= tables.keys()
        self._there |= tables.keys()

    def define(self, views: Mapping[str, str]) -> None:
        """Have these views made when they are named, in the place of others of their names."""
        self._views |= views
        self._there -= views.keys()

    def provide(self, sql: str) -> None:
        """Have everything there that a query names."""
        named = self._named(sql)
        if named and not _LISTING.search(sql):
            self._bring(named)
        else:
            self.provide_all()

    def provide_all(self) -> None:
        """Have everything there."""
        self._bring({*self._tables, *self._views})

    def _bring(self, names: set[str]) -> None:
        needed = set(names)
        # A view uses none that comes after it.
        for view in reversed(self._views):
            if view in needed:
                needed |= self._used_by(view)
        needed -= self._there
        for name in needed - self._views.keys():
            self._sandbox.register({name: self._tables[name]})
        for view in filter(needed.__contains__, self._views):
            self._sandbox.execute(self._views[view].replace("create view", _CREATE, 1))
        self._there |= needed

    def _used_by(self, view: str) -> set[str]:
        before = list(self._views)
        later = before[before.index(view) :]
        return self._named(_COMMENT.sub("", self._views[view])) - set(later)

    def _named(self, sql: str) -> set[str]:
        words = {word.casefold() for word in _WORD.findall(sql)}
        return words & {*self._tables, *self._views, *self._put}

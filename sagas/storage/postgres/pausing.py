"""Pauses and resumes saga names, in batches between which scans take their turns."""

from __future__ import annotations

from typing import Any, Final

import psycopg

from sagas.storable import require_storable
from sagas.storage.postgres.queries import query
from sagas.storage.postgres.statements import Statements
from sagas.storage.records import Pause

#: Sagas paused or resumed in one statement, so that no scan waits long for its turn.
_PAUSED_AT_ONCE: Final = 5000


class Pausing(Statements):
    """Pauses and resumes saga names."""

    def pause(self, name: str, *, actor: str, reason: str) -> int:
        require_storable(name=name, actor=actor, reason=reason)
        with self._scanning() as cursor:
            cursor.execute(query("pause"), {"name": name, "actor": actor, "reason": reason})
        return sum(self._in_batches(statement, name=name) for statement in ("pause_new", "pause_due"))

    def resume(self, name: str) -> int:
        with self._scanning() as cursor:
            cursor.execute(query("resume"), {"name": name})
        return self._in_batches("free_resumed")

    def _in_batches(self, statement: str, **parameters: Any) -> int:
        changed = 0
        while True:
            with self._scanning() as cursor:
                batch = change_some(cursor, statement, **parameters)
            changed += batch
            if not batch:
                return changed

    def pauses(self) -> list[Pause]:
        return [Pause(**row) for row in self._query("pauses", {})]


def change_some(cursor: psycopg.Cursor[Any], statement: str, **parameters: Any) -> int:
    """Pause or resume one batch of sagas by this statement; return how many that were."""
    return cursor.execute(query(statement), {**parameters, "limit": _PAUSED_AT_ONCE}).rowcount

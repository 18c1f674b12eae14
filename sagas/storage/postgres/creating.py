"""Stores new sagas in PostgreSQL, each key at most once: on a connection of its own, or in a caller's transaction."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final
from uuid import UUID

import sqlalchemy as sa
from psycopg import errors as pg
from sqlalchemy.exc import DBAPIError

from sagas.errors import AlreadyStarted, HiddenRow, TransactionRefused
from sagas.storage.errors import exists
from sagas.storage.postgres.mapping import new_rows
from sagas.storage.postgres.queries import query
from sagas.storage.records import NewSaga, OnConflict
from sagas.storage.transactions import CallersTransaction
from sagas.urls import address

Created = list[tuple[UUID, bool]]
Query = Callable[[str, Mapping[str, Any]], Sequence[Mapping[str, Any]]]

#: How often a saga is stored or looked up before its row counts as hidden. The first round usually succeeds. Another is
#: needed if the saga that had the key was pruned in between.
_ROUNDS: Final = 5
_UUID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def create(
    sagas: Sequence[NewSaga],
    insert: Callable[[Sequence[NewSaga]], set[UUID]],
    find: Callable[[Sequence[NewSaga]], Sequence[Mapping[str, Any]]],
    *,
    on_conflict: OnConflict,
) -> Created:
    """Store sagas, or find those that have their keys; return for each its id and whether it is new.

    Args:
        insert: stores the sagas whose keys are free, and returns their ids.
        find: returns the rows that have the keys of these sagas.
        on_conflict: as for `ISagaStorage.create_sagas`; the caller rolls back or deletes what was stored.

    Raises:
        AlreadyStarted: as `on_conflict` asks.
        SagaExists: an id exists already.
        HiddenRow: something hides the saga that has a key.
    """
    created: set[UUID] = set()
    by_key: dict[tuple[str, str | None], UUID] = {}
    left = list(sagas)
    for _ in range(_ROUNDS):
        if not left:
            break
        try:
            created |= insert(left)
        except Exception as error:
            if not _id_exists(error):
                raise
            named = _UUID.search(str(error))
            raise exists(named[0] if named else left[0].id) from error
        left = [saga for saga in left if saga.id not in created]
        if left:
            by_key |= {(row["name"], row["idempotency_key"]): _id(row) for row in find(left)}
            # A saga whose key is not found was pruned in between, so the key is free again.
            left = [saga for saga in left if (saga.name, saga.idempotency_key) not in by_key]
    if left:
        raise HiddenRow(
            f"saga {left[0].name} was not started: its idempotency key {left[0].idempotency_key!r} is taken, and the "
            "saga that has it cannot be seen. Look for a row-level security policy on saga_executions that hides it "
            "from this user, or for a client encoding that cannot write the key."
        )
    answers = []
    for saga in sagas:
        is_new = saga.id in created
        created.discard(saga.id)  # if the same saga is given twice, only the first one is new
        answers.append((saga.id if is_new else by_key.get((saga.name, saga.idempotency_key), saga.id), is_new))
    if on_conflict == "raise":
        refuse_conflicts(sagas, answers)
    return answers


def refuse_conflicts(sagas: Sequence[NewSaga], answers: Created) -> None:
    """Raise for the first saga that was started before.

    Raises:
        AlreadyStarted: there is one.
    """
    for saga, (saga_id, is_new) in zip(sagas, answers, strict=True):
        if not is_new:
            raise AlreadyStarted(saga_id, saga.name, saga.idempotency_key)


class Within:
    """Stores sagas in a transaction of the caller, and checks that it is of the sagas' own database.

    Args:
        transaction: the caller's transaction.
        here: returns an identifier of the sagas' tables; with True it asks the database again.
        database: the URL of the sagas' database, for messages.
        translate: returns what to raise when the server does not answer.
    """

    def __init__(
        self,
        transaction: CallersTransaction,
        *,
        here: Callable[[bool], str],
        database: sa.URL,
        translate: Callable[[Exception], Exception],
    ) -> None:
        self._translate = translate
        self._transaction = transaction
        self._ask_here = here
        self._here = here(False)
        self._database = database

    def create(self, sagas: Sequence[NewSaga], start: Mapping[str, Any], on_conflict: OnConflict) -> Created:
        """Do as `create` does, and delete what was stored if `create` raises `AlreadyStarted`.

        Raises:
            TransactionRefused: the transaction is of another database.
        """
        stored: list[str] = []

        def insert(left: Sequence[NewSaga]) -> set[UUID]:
            new = new_rows(left) | {"ids": [str(saga.id) for saga in left]}  # as every driver can write them
            rows = self._execute(query("create_within"), {**start, **new, "here": self._here})
            stored.extend(str(row["id"]) for row in rows)
            return {_id(row) for row in rows}

        def find(left: Sequence[NewSaga]) -> Sequence[Mapping[str, Any]]:
            keys = {"names": [saga.name for saga in left], "keys": [saga.idempotency_key for saga in left]}
            rows = self._execute(query("find_by_key_within"), keys)
            self._check_here(rows[0]["here"])
            return [row for row in rows if row["id"] is not None]

        try:
            return create(sagas, insert, find, on_conflict=on_conflict)
        except AlreadyStarted:
            if stored:
                self._execute(query("take_back_within"), {"ids": stored})
            raise

    def add_signal(self, values: Mapping[str, Any]) -> bool:
        """Store a signal, unless it is known. Return whether it is new.

        Raises:
            TransactionRefused: the transaction is of another database.
        """
        self._check_here(self._execute(query("here"), {})[0]["here"])
        return bool(self._execute(query("add_signal"), values))

    def _check_here(self, seen: str) -> None:
        if seen != self._here:
            # Ask again: the sagas' server may have been restarted or replaced since it was asked.
            self._here = self._ask_here(True)
            if seen != self._here:
                raise self._refusal()

    def _execute(self, statement: str, parameters: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
        try:
            return self._transaction.execute(statement, parameters)
        except Exception as error:
            state = _sqlstate(error)
            if state in _NO_TABLES:
                raise self._refusal() from error
            if isinstance(error, (pg.Error, DBAPIError)) and (state is None or state.startswith(_GONE)):
                raise self._translate(error) from error
            raise  # such as a serialization failure, for which the caller may have retries

    def _refusal(self) -> TransactionRefused:
        theirs, ours = self._transaction.address, address(self._database)
        same = " under the same name, or in another schema (search_path)" if theirs == ours else ""
        return TransactionRefused(
            f"the connection leads to {theirs}, and sagas are stored in another database{same}: {ours}. Give a "
            "connection to that one, or start the saga without connection=."
        )


#: UndefinedTable, UndefinedColumn, InvalidSchemaName.
_NO_TABLES: Final = ("42P01", "42703", "3F000")
#: The connection is lost, or the server goes down.
_GONE: Final = ("08", "57P")


def _id_exists(error: Exception) -> bool:
    # ON CONFLICT names the index of the keys, so a violation can only be of the id.
    return _sqlstate(error) == pg.UniqueViolation.sqlstate


def _sqlstate(error: Exception) -> str | None:
    # SQLAlchemy keeps the driver's error in `orig`, Django as the cause of its own.
    for cause in (error, getattr(error, "orig", None), error.__cause__):
        if state := getattr(cause, "sqlstate", None) or getattr(cause, "pgcode", None):
            return str(state)
    return None


def _id(row: Mapping[str, Any]) -> UUID:
    found = row["id"]
    return found if isinstance(found, UUID) else UUID(str(found))  # some drivers return text

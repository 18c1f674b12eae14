"""Sagas in PostgreSQL, through SQLAlchemy's pool and psycopg 3: an operation is one round trip, a claim a few.

Statements run in autocommit and without SQLAlchemy's compiler, which would cost a checkpoint a good part of its speed.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final
from uuid import UUID

import sqlalchemy as sa
from psycopg import errors as pg
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from sagas.errors import ConfigurationError, SchemaBehind, StorageUnavailable
from sagas.progress import EntryStatus, SagaStatus
from sagas.storage import statements as sql
from sagas.storage.base import (
    DEFAULT_MAX_RECOVERY_ATTEMPTS,
    QUEUE,
    Claim,
    ClaimResult,
    Hold,
    ISagaStorage,
    LogEntry,
    NewSaga,
    Refusal,
    Refused,
    Release,
    SagaFilter,
    SagaRecord,
    Taken,
    describe,
    lease_lost,
    not_found,
    require_attempts,
    require_positive,
    require_recovery_arguments,
)
from sagas.storage.connecting import address, make_engine, reason
from sagas.storage.rows import details_of, fence, giving_back, new_rows, record_of
from sagas.storage.schema import check_version

#: Seconds a saga whose message is missing stays free before it is dispatched again: longer than a message spends
#: between a worker's socket and the worker taking the saga.
_IN_HAND_SECONDS: Final = 2.0
#: Of the advisory lock under which scans claim; any number no one else uses.
_SCAN_LOCK: Final = 0x5A6A5


class SqlAlchemySagaStorage(ISagaStorage):
    """Stores sagas in PostgreSQL.

    Connections are opened on first use and never shared across a fork.

    Args:
        database: a URL such as `postgresql+psycopg://user:password@host/database`, or an Engine of the caller's own.

    Raises:
        ConfigurationError: the URL cannot be read, or is not PostgreSQL through psycopg 3.
    """

    def __init__(self, database: str | sa.URL | sa.Engine) -> None:
        self._engine = database if isinstance(database, sa.Engine) else make_engine(database)
        if (self._engine.dialect.name, self._engine.dialect.driver) != ("postgresql", "psycopg"):
            raise ConfigurationError(
                f"the database engine uses {self._engine.dialect.name}+{self._engine.dialect.driver}, and sagas need "
                "PostgreSQL through psycopg 3: make it with a URL that begins postgresql+psycopg://."
            )
        self._autocommit = self._engine.execution_options(isolation_level="AUTOCOMMIT")
        self._transaction = self._engine.execution_options(isolation_level="READ COMMITTED")
        self._pid = os.getpid()
        self._schema_checked = False

    # -- the public contract of recovery ----------------------------------------------------------------------

    def get_sagas_for_recovery(
        self,
        limit: int,
        max_recovery_attempts: int = DEFAULT_MAX_RECOVERY_ATTEMPTS,
        stale_after_seconds: float | None = None,
        saga_name: str | None = None,
    ) -> list[UUID]:
        require_recovery_arguments(limit, max_recovery_attempts, stale_after_seconds)
        parameters = {
            "limit": limit,
            "max_attempts": max_recovery_attempts,
            "stale": stale_after_seconds,
            "name": saga_name,
        }
        return [row["id"] for row in self._query(sql.FOR_RECOVERY, parameters)]

    def increment_recovery_attempts(self, saga_id: UUID, new_status: SagaStatus | None = None) -> None:
        status = None if new_status is None else SagaStatus(new_status).value
        if not self._execute(sql.INCREMENT_ATTEMPTS, {"id": saga_id, "status": status}):
            raise not_found(saga_id)

    def set_recovery_attempts(self, saga_id: UUID, attempts: int) -> None:
        require_attempts(attempts)
        if not self._execute(sql.SET_ATTEMPTS, {"id": saga_id, "attempts": attempts}):
            raise not_found(saga_id)

    # -- starting and reading ---------------------------------------------------------------------------------

    def create_sagas(
        self,
        sagas: Sequence[NewSaga],
        *,
        owner: str | None,
        for_seconds: float = 0.0,
        connection: Any = None,
    ) -> list[tuple[UUID, bool]]:
        held = owner not in (None, QUEUE)
        start = {
            "status": (SagaStatus.RUNNING if held else SagaStatus.PENDING).value,
            "version": 1 if held else 0,
            "owner": owner,
            "seconds": for_seconds,
        }
        created: set[UUID] = set()
        by_key: dict[tuple[str, str | None], UUID] = {}
        left = list(sagas)
        while left:
            created |= {row["id"] for row in self._query(sql.CREATE, start | new_rows(left), connection)}
            left = [saga for saga in left if saga.id not in created]
            if left:
                keys = {"names": [saga.name for saga in left], "keys": [saga.idempotency_key for saga in left]}
                found = self._query(sql.FIND_BY_KEY, keys, connection)
                by_key |= {(row["name"], row["idempotency_key"]): row["id"] for row in found}
                # Whose key is gone already was pruned in between, so its key is free again.
                left = [saga for saga in left if (saga.name, saga.idempotency_key) not in by_key]
        return [
            (saga.id, True) if saga.id in created else (by_key[saga.name, saga.idempotency_key], False)
            for saga in sagas
        ]

    def load(self, saga_id: UUID) -> SagaRecord:
        rows = self._query(sql.LOAD, {"id": saga_id})
        if not rows:
            raise not_found(saga_id)
        return record_of(rows[0])

    def find(self, wanted: SagaFilter) -> list[SagaRecord]:
        parameters = {
            "statuses": [str(status) for status in wanted.statuses] or None,
            "name": wanted.name,
            "dead": wanted.dead,
            "limit": wanted.limit,
        }
        return [record_of(row) for row in self._query(sql.FIND, parameters)]

    # -- holding ----------------------------------------------------------------------------------------------

    def take(
        self,
        saga_id: UUID,
        *,
        owner: str,
        lease_seconds: float,
        max_recovery_attempts: int,
        version: int | None = None,
        by_hand: bool = False,
    ) -> Taken | Refused:
        parameters = {
            "id": saga_id,
            "owner": owner,
            "lease": lease_seconds,
            "max_attempts": max_recovery_attempts,
            "version": version,
            "by_hand": by_hand,
        }
        while (rows := self._query(sql.TAKE, parameters)) and rows[0]["verdict"] == "moved":
            pass
        if not rows:
            return Refused(Refusal.NOT_FOUND)
        (row,) = rows
        if row["verdict"] != "taken":
            return Refused(Refusal(row["verdict"]), self.load(saga_id))
        record = record_of(row)
        return Taken(Hold(saga_id, record.version, owner), record, SagaStatus(row["status_before"]))

    def checkpoint(
        self,
        hold: Hold,
        entry: LogEntry | None,
        *,
        status: SagaStatus,
        context: str | None = None,
        release: Release | None = None,
    ) -> None:
        parameters = {**fence(hold), "status": status.value, "context": context, "last_error": None}
        if entry is None:
            self._fenced(sql.END, parameters, hold)
            return
        parameters |= {
            "step": entry.step,
            "action": entry.action.value,
            "entry_status": entry.status.value,
            "attempt": entry.attempt,
            "details": details_of(entry),
            "last_error": describe(entry),
        }
        if release is not None:
            parameters |= giving_back(release) | {"last_error": release.last_error or describe(entry)}
            statement = sql.CHECKPOINT_RELEASE
        elif status.finished:
            statement = sql.CHECKPOINT_END
        elif entry.status is EntryStatus.COMPLETED:
            statement = sql.CHECKPOINT_COMPLETED
        else:
            statement = sql.CHECKPOINT_FAILED
        self._fenced(statement, parameters, hold)

    def renew(self, hold: Hold, lease_seconds: float) -> None:
        self._fenced(sql.RENEW, {**fence(hold), "lease": lease_seconds}, hold)

    def release(self, hold: Hold, release: Release) -> None:
        self._fenced(sql.RELEASE, {**fence(hold), **giving_back(release)}, hold)

    # -- dispatching ------------------------------------------------------------------------------------------

    def claim_sagas(
        self,
        *,
        pending: bool,
        limit: int,
        max_recovery_attempts: int,
        mark_seconds: float,
        messages_waiting: int = 0,
    ) -> ClaimResult:
        require_positive(limit=limit, max_recovery_attempts=max_recovery_attempts)
        parameters = {
            "limit": limit,
            "max_attempts": max_recovery_attempts,
            "seconds": mark_seconds,
            "next_owner": QUEUE,
            "waiting": messages_waiting,
            "grace": _IN_HAND_SECONDS,
        }
        with self._connect(self._transaction) as connection, connection.begin():
            connection.exec_driver_sql(sql.ONE_SCAN_AT_A_TIME, {"key": _SCAN_LOCK})
            missing = connection.exec_driver_sql(sql.FREE_MISSING[pending], parameters).rowcount
            rows = connection.exec_driver_sql(sql.CLAIM[pending], parameters).mappings().all()
        return ClaimResult(
            claims=tuple(Claim(row["id"], row["version"], pending) for row in rows if not row["died"]),
            died=tuple(row["id"] for row in rows if row["died"]),
            missing=missing,
        )

    def seize_orphans(self, owner: str, *, max_recovery_attempts: int) -> int:
        parameters = {
            "owner": owner,
            "max_attempts": max_recovery_attempts,
            "next_owner": None,
            "seconds": 0.0,
        }
        return self._execute(sql.SEIZE_ORPHANS, parameters)

    def unclaim(self, claims: Sequence[Claim]) -> None:
        parameters = {
            "ids": [claim.saga_id for claim in claims],
            "versions": [claim.version for claim in claims],
        }
        self._execute(sql.UNCLAIM, parameters)

    # -- housekeeping -----------------------------------------------------------------------------------------

    def prune(self, *, older_than_seconds: float, limit: int) -> int:
        require_positive(limit=limit)
        return self._execute(sql.PRUNE, {"age": older_than_seconds, "limit": limit})

    def check_schema(self) -> None:
        with self._connect(self._autocommit) as connection:
            check_version(connection)

    def close(self) -> None:
        """Close this process's idle connections; the storage can be used again."""
        self._engine.dispose()

    # -- connections ------------------------------------------------------------------------------------------

    def _query(self, statement: str, parameters: Mapping[str, Any], on: Any = None) -> Sequence[sa.RowMapping]:
        if on is not None:
            with self._translated():
                # The caller's connection may be of another driver (asyncpg, say): let SQLAlchemy translate.
                return on.execute(sa.text(_named(statement)), parameters).mappings().all()  # type: ignore[no-any-return]
        with self._connect(self._autocommit) as connection:
            return connection.exec_driver_sql(statement, parameters).mappings().all()

    def _execute(self, statement: str, parameters: Mapping[str, Any]) -> int:
        with self._connect(self._autocommit) as connection:
            return connection.exec_driver_sql(statement, parameters).rowcount

    def _fenced(self, statement: str, parameters: Mapping[str, Any], hold: Hold) -> None:
        if not self._execute(statement, parameters):
            raise lease_lost(hold)

    @contextmanager
    def _connect(self, engine: sa.Engine) -> Iterator[sa.Connection]:
        if os.getpid() != self._pid:
            # Forked: the parent's connections are still the parent's; forget them without saying goodbye on them.
            self._engine.dispose(close=False)
            self._pid = os.getpid()
        with self._translated(), engine.connect() as connection:
            if not self._schema_checked:
                check_version(connection)
                connection.rollback()  # what follows may begin a transaction of its own
                self._schema_checked = True
            yield connection

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (OperationalError, InterfaceError, PoolTimeout) as error:
            raise self._unavailable(error) from error
        except DBAPIError as error:
            if isinstance(error.orig, pg.ReadOnlySqlTransaction):
                # A failover made a replica of this server: new connections find the new primary.
                self._engine.dispose()
                raise self._unavailable(error) from error
            if isinstance(error.orig, (pg.UndefinedTable, pg.UndefinedColumn)):
                raise SchemaBehind(
                    f"the database at {address(self._engine.url)} lacks what this version needs "
                    f"({reason(error)}): run `sagas migrate`."
                ) from error
            raise

    def _unavailable(self, error: SQLAlchemyError) -> StorageUnavailable:
        return StorageUnavailable(
            f"the database at {address(self._engine.url)} did not answer ({reason(error)}): check that it runs, "
            "accepts connections and knows this user and password (SAGAS_DATABASE_URL)."
        )


def _named(statement: str) -> str:
    return re.sub(r"%\((\w+)\)s", r":\1", statement)

"""What operators ask of the database beyond the storage contract: a method for each question, PostgreSQL only.

Every question reads one snapshot, can write nothing, and is cut off by the server after some seconds, so that asking
during an incident never makes it worse. Times and ages are the database's own.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import psycopg
from psycopg import errors as pg

from sagas.errors import QuestionTooLong
from sagas.progress import SagaStatus
from sagas.storage import operator_statements as sql
from sagas.storage.contract import not_found
from sagas.storage.operator_answers import (
    Count,
    DryRun,
    Ended,
    Holder,
    Holdings,
    Judged,
    LastScan,
    Listing,
    Named,
    Oldest,
    Page,
    Parked,
    Queued,
    ScanVerdict,
    Statistics,
    Surroundings,
    Verdicts,
)
from sagas.storage.postgres.mapping import record_of
from sagas.storage.postgres.storage import PostgresSagaStorage
from sagas.storage.records import Pause, SagaRecord
from sagas.storage.statements import LOAD, PAUSES

#: After how long the server cuts a question off; one that reads the whole of an index may take longer.
ANSWER_SECONDS: Final = 10.0
WHOLE_INDEX_SECONDS: Final = 300.0
#: More sagas do not begin within a millisecond, unless their ids are made otherwise: short ones may then be ambiguous.
_MOST_IN_A_MILLISECOND: Final = 10_000


class Operations:
    """Asks what operators want to know.

    Args:
        storage: whose database is asked.
        answer_seconds: after how long the server cuts a question off.

    Raises, from every method:
        QuestionTooLong: the server did not answer in time.
        StorageUnavailable, SchemaBehind: as from the storage.
    """

    def __init__(self, storage: PostgresSagaStorage, *, answer_seconds: float = ANSWER_SECONDS) -> None:
        self._storage = storage
        self._answer_seconds = answer_seconds

    def list_sagas(self, wanted: Listing) -> Page:
        """Return a page of sagas."""
        unfinished = wanted.leased_by is not None or (
            bool(wanted.statuses) and not any(status.finished for status in wanted.statuses)
        )
        asked = {
            "statuses": [status.value for status in wanted.statuses] or None,
            "name": wanted.name,
            "leased_by": wanted.leased_by,
            "older_than_seconds": wanted.older_than_seconds,
            "newer_than_seconds": wanted.newer_than_seconds,
            "after": wanted.after,
            "dead": wanted.dead or None,
            "unfinished": (unfinished and not wanted.dead) or None,
        }
        filters = [name for name, value in asked.items() if value is not None]
        with self._asking("narrow it by --name, --status or --newer-than") as question:
            rows = question.all(sql.listing(filters), asked | {"limit": wanted.limit + 1})
        records = tuple(record_of(row) for row in rows[: wanted.limit])
        return Page(now=question.now, records=records, more=len(rows) > wanted.limit)

    def look_up(self, saga_id: UUID) -> tuple[SagaRecord, Surroundings]:
        """Return a saga with its log, and what else bears on it.

        Raises:
            SagaNotFound: no saga has this id.
        """
        with self._asking() as question:
            rows = question.all(LOAD, {"id": saga_id})
            if not rows:
                raise not_found(saga_id)
            record = record_of(rows[0])
            pauses = question.all(sql.PAUSE_OF, {"name": record.name})
            asks = question.all(sql.ASKED_BACK_BY, {"id": saga_id})
        surroundings = Surroundings(
            now=question.now,
            pause=Pause(**pauses[0]) if pauses else None,
            asked_back_by=asks[0]["by"] if asks else None,
        )
        return record, surroundings

    def named(
        self, *, key: str | None, first: UUID | None = None, last: UUID | None = None, ends: str = "", limit: int
    ) -> list[Named]:
        """Return the sagas with this idempotency key, and those whose id is in this range.

        Args:
            key: of any saga name; None: no key is meant.
            first, last: the range of ids; None: no id is meant.
            ends: hexadecimal digits with which an id in the range has to end.
            limit: how many at most.
        """
        parameters = {"key": key, "first": first, "last": last, "ends": ends, "limit": limit}
        with self._asking("give the whole id") as question:
            return [_with_status(Named, row) for row in question.all(sql.NAMED, parameters)]

    def ids_of_the_same_millisecond(self, ids: Iterable[UUID]) -> dict[int, list[UUID]]:
        """Return all ids that begin with the same 48 bits as one of these, by those bits."""
        wanted = {saga_id.int >> 80 for saga_id in ids}
        together: dict[int, list[UUID]] = {beginning: [] for beginning in wanted}
        parameters = {
            "firsts": [UUID(int=beginning << 80) for beginning in wanted],
            "lasts": [UUID(int=(beginning + 1 << 80) - 1) for beginning in wanted],
            "limit": _MOST_IN_A_MILLISECOND,
        }
        with self._asking("pipe the output, which then has whole ids") as question:
            for row in question.all(sql.SAME_MILLISECOND, parameters):
                together[row["id"].int >> 80].append(row["id"])
        return together

    def names(self) -> list[str]:
        """Return the names of unfinished sagas, of those with an idempotency key, and those that are paused."""
        with self._asking() as question:
            return [row["name"] for row in question.all(sql.NAMES)]

    def statistics(self, *, whole: bool = False) -> Statistics:
        """Return how all sagas stand.

        Args:
            whole: count all finished sagas too, which reads an index of the whole history.
        """
        seconds = max(self._answer_seconds, WHOLE_INDEX_SECONDS) if whole else None
        with self._asking("leave out --all" if whole else None, seconds) as question:
            unfinished = [_with_status(Count, row) for row in question.all(sql.UNFINISHED)]
            ended = [_with_status(Ended, row) for row in question.all(sql.ENDED_LATELY)]
            oldest = question.all(sql.OLDEST_RECOVERABLE)
            pauses = question.all(PAUSES)
            last_scan = question.all(sql.LAST_SCAN)
            total = question.all(sql.FINISHED_IN_TOTAL) if whole else []
        return Statistics(
            now=question.now,
            unfinished=tuple(unfinished),
            ended_lately=tuple(ended),
            oldest_recoverable=Oldest(**oldest[0]) if oldest else None,
            queued_since=min((count.queued_since for count in unfinished if count.queued_since), default=None),
            pauses=tuple(Pause(**row) for row in pauses),
            last_scan=LastScan(**last_scan[0]) if last_scan else None,
            finished_in_total={SagaStatus(row["status"]): row["sagas"] for row in total} if whole else None,
        )

    def holdings(self) -> Holdings:
        """Return who holds what, and what waits in the queue or is parked."""
        with self._asking() as question:
            holders = question.all(sql.HOLDERS)
            queue = question.all(sql.IN_QUEUE)
            parked = question.all(sql.PARKED)
        return Holdings(
            now=question.now,
            holders=tuple(Holder(**row) for row in holders),
            queue=tuple(Queued(**row) for row in queue),
            parked=tuple(Parked(**row) for row in parked),
        )

    def dry_run(self, *, limit: int, max_recovery_attempts: int, shown: int) -> DryRun:
        """Return what a scan would do now with each unfinished saga, as if no message had been lost.

        Rows that are being written at this moment are the one thing that it cannot foresee: a scan skips them.

        Args:
            limit: how many the scan lets wait in the queue at most.
            max_recovery_attempts: after how many failed attempts a saga is dead.
            shown: how many sagas to return of each verdict.
        """
        parameters = {"limit": limit, "max_attempts": max_recovery_attempts, "shown": shown}
        with self._asking() as question:
            rows = question.all(sql.DRY_RUN, parameters)
        verdicts = []
        for verdict in ScanVerdict:
            if own := [row for row in rows if row["verdict"] == verdict]:
                first = tuple(_judged(row) for row in own)
                verdicts.append(Verdicts(verdict=verdict, sagas=own[0]["sagas"], first=first))
        return DryRun(now=question.now, verdicts=tuple(verdicts))

    def prunable(self, older_than_seconds: float) -> int:
        """Return how many finished sagas ended longer ago than this, counted by their index."""
        seconds = max(self._answer_seconds, WHOLE_INDEX_SECONDS)
        with self._asking("give a greater age", seconds) as question:
            (row,) = question.all(sql.PRUNABLE, {"age": older_than_seconds})
        return int(row["sagas"])

    @contextmanager
    def _asking(self, cure: str | None = None, seconds: float | None = None) -> Iterator[_Question]:
        limit = seconds or self._answer_seconds
        with self._storage.connections.cursor() as cursor:
            try:
                with cursor.connection.transaction():
                    yield _Question(cursor, limit)
            except pg.QueryCanceled as error:
                raise QuestionTooLong(
                    f"the database did not answer within {limit:g} seconds, so the question was withdrawn rather than "
                    f"left to burden it: {f'{cure}, or ' if cure else ''}ask again when it has less to do."
                ) from error


class _Question:
    """One question's transaction."""

    def __init__(self, cursor: psycopg.Cursor[Any], seconds: float) -> None:
        self._cursor = cursor
        cursor.execute(sql.BEGIN)
        (row,) = self.all(sql.BOUND, {"milliseconds": str(round(seconds * 1000))})
        self.now: datetime = row["now"]

    def all(self, statement: str, parameters: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
        # Without parameters a % would not be unescaped, and with them each is planned for its own values.
        return self._cursor.execute(statement, parameters or {}, prepare=False).fetchall()


def _with_status(kind: type[Any], row: Mapping[str, Any]) -> Any:
    return kind(**{**row, "status": SagaStatus(row["status"])})


def _judged(row: Mapping[str, Any]) -> Judged:
    own = {name: value for name, value in row.items() if name not in ("verdict", "sagas")}
    judged: Judged = _with_status(Judged, own)
    return judged

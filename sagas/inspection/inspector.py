"""The inspector answers questions about the sagas of a PostgreSQL database, with one method for each question.

Each question reads one snapshot in a read-only transaction. The server cancels it after some seconds, so that a
question during an incident does not make the incident worse. Times and ages are the database's own.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

import psycopg
from psycopg import errors as pg

from sagas.errors import QueryTimeout
from sagas.inspection.models import (
    Count,
    DryRun,
    Ended,
    EndedLately,
    Holder,
    Judged,
    LastScan,
    Match,
    Oldest,
    Overview,
    Page,
    PageFilter,
    PausedName,
    Pauses,
    Portrait,
    Queue,
    SagaDetails,
    ScanVerdict,
    Schedules,
    Sent,
    Standing,
    Statistics,
    Tally,
    Verdicts,
    Workers,
)
from sagas.inspection.queries import query
from sagas.progress import SagaStatus
from sagas.storage import PostgresSagaStorage
from sagas.storage.errors import not_found
from sagas.storage.lost_messages import OVERTAKING_SECONDS, PROBES
from sagas.storage.postgres.filtering import filter_row
from sagas.storage.postgres.mapping import record_of
from sagas.storage.postgres.queries import query as storage_query
from sagas.storage.records import Pause, SagaState
from sagas.storage.transitions import PROBE_SECONDS

#: Seconds after which the server cancels a question. A question that reads a whole index may take longer.
ANSWER_SECONDS: Final = 10.0
WHOLE_INDEX_SECONDS: Final = 300.0
HOUR: Final = 3600.0
#: An overview counts no more sagas than this in each index, and estimates the rest.
MOST_COUNTED: Final = 2_000
#: A page looks at no more sagas than this if no index has what it wants.
MOST_SEARCHED: Final = 10_000
#: At most this many signals are read with their saga.
_MOST_SENT: Final = 100
#: No saga is older, and times stay within what dates can hold.
_GREATEST_AGE: Final = timedelta(days=50 * 365)
#: At most this many ids of one millisecond are read. With more, from other sources of ids, short ids may be ambiguous.
_MOST_IN_A_MILLISECOND: Final = 10_000


class Inspector:
    """Answers questions about the sagas of a database.

    Args:
        storage: the storage whose database is read.
        answer_seconds: seconds after which the server cancels a question.

    Raises, from every method:
        QueryTimeout: the server did not answer in time.
        StorageUnavailable, SchemaBehind: as from the storage.
    """

    def __init__(self, storage: PostgresSagaStorage, *, answer_seconds: float = ANSWER_SECONDS) -> None:
        self._storage = storage
        self._answer_seconds = answer_seconds

    def page(self, wanted: PageFilter, *, within: int | None = None, secrets: bool = False) -> Page:
        """Return a page of sagas.

        Args:
            wanted: which ones.
            within: look at no more sagas than this if no index has what is wanted. `searched_to` then tells how far
                the search came.
            secrets: whether to read which fields are secret.
        """
        with self._asking("narrow the list by a name, a status or an age") as question:
            asked = replace(
                wanted,
                created_after=_latest(wanted.created_after, _ago(question.now, wanted.newer_than_seconds)),
                created_before=_earliest(wanted.created_before, _ago(question.now, wanted.older_than_seconds)),
                limit=wanted.limit + 1,
            )
            parameters = filter_row(asked, leased_by=wanted.leased_by, error=wanted.error)
            searched_to = None if within is None else question.narrow(parameters, within)
            rows = question.run(storage_query("find"), parameters)
            fields = question.secret_fields({row["name"] for row in rows}) if secrets and rows else {}
        records = tuple(record_of(row) for row in rows[: wanted.limit])
        more = len(rows) > wanted.limit
        return Page(
            now=question.now,
            records=records,
            more=more,
            searched_to=None if more else searched_to,
            secret_fields=fields,
        )

    def details(self, saga_id: UUID) -> SagaDetails:
        """Return a saga with its log, the pause of its name, and the operator who requested a yield.

        Raises:
            SagaNotFound: no saga has this id.
        """
        with self._asking() as question:
            return question.details(saga_id)

    def portrait(self, saga_id: UUID) -> Portrait:
        """Return all that the database knows of a saga.

        Raises:
            SagaNotFound: no saga has this id.
        """
        with self._asking() as question:
            details = question.details(saga_id)
            record = details.record
            graphs = question.ask("drawn", definition=record.definition, name=record.name)
            sent = question.ask("sent", id=saga_id, limit=_MOST_SENT)
            last_scan = question.ask("last_scan")
        return Portrait(
            details=details,
            graph=next((row["graph"] for row in graphs if row["hash"] == record.definition), None),
            versions=tuple(row["graph"] for row in graphs),
            sent=tuple(Sent(**row) for row in sent),
            last_scan=LastScan(**last_scan[0]) if last_scan else None,
        )

    def matching(
        self, *, key: str | None, first: UUID | None = None, last: UUID | None = None, ends: str = "", limit: int
    ) -> list[Match]:
        """Return the sagas with this idempotency key, and those whose id is in this range.

        Args:
            key: an idempotency key, for any saga name; None to look for no key.
            first, last: the range of ids; None to look for no id.
            ends: hexadecimal digits with which an id in the range has to end.
            limit: how many at most.
        """
        with self._asking("give the whole id") as question:
            rows = question.ask("matching", key=key, first=first, last=last, ends=ends, limit=limit)
        return [_made(Match, row) for row in rows]

    def ids_of_the_same_millisecond(self, ids: Iterable[UUID]) -> dict[int, list[UUID]]:
        """Return all ids that begin with the same 48 bits as one of these, by those bits."""
        wanted = {saga_id.int >> 80 for saga_id in ids}
        together: dict[int, list[UUID]] = {beginning: [] for beginning in wanted}
        with self._asking("ask with whole ids") as question:
            rows = question.ask(
                "same_millisecond",
                firsts=[UUID(int=beginning << 80) for beginning in wanted],
                lasts=[UUID(int=(beginning + 1 << 80) - 1) for beginning in wanted],
                limit=_MOST_IN_A_MILLISECOND,
            )
        for row in rows:
            together[row["id"].int >> 80].append(row["id"])
        return together

    def names(self) -> list[str]:
        """Return the names of unfinished sagas, of those with an idempotency key, and those that are paused."""
        with self._asking() as question:
            return [row["name"] for row in question.ask("names")]

    def statistics(
        self, *, ended_within_seconds: float = HOUR, late_seconds: float = 0.0, whole: bool = False
    ) -> Statistics:
        """Return how many sagas are in which state.

        Args:
            ended_within_seconds: how far back finished sagas are counted.
            late_seconds: count as due only what has been due for longer than this.
            whole: count all finished sagas too, which reads an index of the whole history.
        """
        seconds = max(self._answer_seconds, WHOLE_INDEX_SECONDS) if whole else None
        with self._asking("leave out the finished sagas" if whole else None, seconds) as question:
            unfinished = question.unfinished(late_seconds)
            ended = question.ask("ended", seconds=ended_within_seconds) if ended_within_seconds else []
            oldest = {row.pop("pending"): Oldest(**row) for row in question.ask("oldest_due")}
            pauses = question.run(storage_query("pauses"), {})
            last_scan = question.ask("last_scan")
            finished = question.ask("finished") if whole else []
        return Statistics(
            now=question.now,
            unfinished=unfinished,
            ended=tuple(_made(Ended, row) for row in ended),
            oldest_pending=oldest.get(True),
            oldest_recoverable=oldest.get(False),
            pauses=tuple(Pause(**row) for row in pauses),
            last_scan=LastScan(**last_scan[0]) if last_scan else None,
            finished_in_total={SagaStatus(row["status"]): row["sagas"] for row in finished} if whole else None,
        )

    def overview(self, *, most: int = MOST_COUNTED) -> Overview:
        """Return how all sagas stand, in a time that does not grow with their number.

        Args:
            most: count no more sagas than this in each index, and estimate the rest.
        """
        with self._asking() as question:
            counts = question.ask("counts", most=most)
            ended = question.ask("lately", seconds=HOUR, most=most)
            oldest = {row.pop("pending"): Oldest(**row) for row in question.ask("oldest_due")}
            pauses = question.run(storage_query("pauses"), {})
            (health,) = question.ask("health")
        return Overview(
            now=question.now,
            unfinished=tuple(_standing(row, most) for row in counts),
            ended=tuple(_ended_lately(row, most, question.now) for row in ended),
            oldest_pending=oldest.get(True),
            oldest_recoverable=oldest.get(False),
            pauses=tuple(Pause(**row) for row in pauses),
            last_scan=None if health["host"] is None else LastScan(host=health["host"], at=health["scanned_at"]),
            delivered_at=health["delivered_at"],
            in_total=None if health["sagas"] < 0 else health["sagas"],
        )

    def workers(self) -> Workers:
        """Return the holders of leases, the queued sagas, and the paused names."""
        with self._asking() as question:
            return Workers(
                now=question.now,
                workers=tuple(Holder(**row) for row in question.ask("holders")),
                queue=tuple(Queue(**row) for row in question.ask("queues", probe=PROBE_SECONDS)),
                paused=question.paused(),
            )

    def pauses(self) -> Pauses:
        """Return the paused names."""
        with self._asking() as question:
            return Pauses(now=question.now, paused=question.paused())

    def dry_run(self, *, limit: int, max_recovery_attempts: int, shown: int) -> DryRun:
        """Return what a scan would do now with each unfinished saga.

        It does not show two things: a scan skips rows that are being written at that moment, and it makes sagas ready
        that are still paused although their name was resumed.

        Args:
            limit: how many sagas the scan allows in the queue.
            max_recovery_attempts: after how many failed attempts a saga is dead.
            shown: how many sagas to return of each verdict.
        """
        with self._asking() as question:
            rows = question.ask(
                "dry_run",
                limit=limit,
                max_attempts=max_recovery_attempts,
                shown=shown,
                probe=PROBE_SECONDS,
                overtaking=OVERTAKING_SECONDS,
                probes=PROBES,
            )
        counts: dict[ScanVerdict, int] = {}
        first: dict[ScanVerdict, list[Judged]] = defaultdict(list)
        for row in rows:
            verdict = ScanVerdict(row.pop("verdict"))
            counts[verdict] = row.pop("sagas")
            first[verdict].append(_made(Judged, row))
        return DryRun(
            now=question.now,
            verdicts=tuple(
                Verdicts(verdict=verdict, sagas=counts[verdict], first=tuple(first[verdict]))
                for verdict in ScanVerdict
                if verdict in counts
            ),
        )

    def schedules(self) -> Schedules:
        """Return the last tick of each schedule."""
        with self._asking() as question:
            rows = question.ask("schedules")
        return Schedules(now=question.now, last={row["name"]: row["last_tick"] for row in rows})

    def prunable(self, older_than_seconds: float) -> int:
        """Return how many finished sagas ended longer ago than this, counted by their index."""
        seconds = max(self._answer_seconds, WHOLE_INDEX_SECONDS)
        with self._asking("give a greater age", seconds) as question:
            (row,) = question.ask("prunable", age=older_than_seconds)
        return int(row["sagas"])

    @contextmanager
    def _asking(self, cure: str | None = None, seconds: float | None = None) -> Iterator[_Question]:
        limit = seconds or self._answer_seconds
        with self._storage.connections.cursor() as cursor:
            try:
                with cursor.connection.transaction():
                    yield _Question(cursor, limit)
            except pg.QueryCanceled as error:
                raise QueryTimeout(
                    f"the database did not answer within {limit:g} seconds, so the query was cancelled: "
                    f"{f'{cure}, or ' if cure else ''}ask again when the database has less to do."
                ) from error


class _Question:
    """The transaction of one question; `now` is the database's time."""

    def __init__(self, cursor: psycopg.Cursor[Any], seconds: float) -> None:
        self._cursor = cursor
        cursor.execute(query("begin"))
        (row,) = self.ask("bound", milliseconds=str(round(seconds * 1000)))
        self.now: datetime = row["now"]

    def ask(self, name: str, /, **parameters: Any) -> list[dict[str, Any]]:
        return self.run(query(name), parameters)

    def run(self, statement: str, parameters: Mapping[str, Any]) -> list[dict[str, Any]]:
        # Do not prepare the statement, so that it is planned for its own values.
        return self._cursor.execute(statement, parameters, prepare=False).fetchall()

    def details(self, saga_id: UUID) -> SagaDetails:
        rows = self.run(storage_query("load"), {"id": saga_id})
        if not rows:
            raise not_found(saga_id)
        record = record_of(rows[0])
        (bearing,) = self.ask("bearing", id=saga_id, name=record.name)
        yield_requested_by = bearing.pop("yield_requested_by")
        pause = None if bearing["name"] is None else Pause(**bearing)
        return SagaDetails(now=self.now, record=record, pause=pause, yield_requested_by=yield_requested_by)

    def secret_fields(self, names: Iterable[str]) -> dict[str, frozenset[str]]:
        fields: dict[str, frozenset[str]] = {}
        for row in self.ask("secret_fields", names=sorted(names)):
            marked = json.loads(row["graph"])["secret_fields"]
            fields[row["name"]] = fields.get(row["name"], frozenset()).union(marked)
        return fields

    def narrow(self, parameters: dict[str, Any], within: int) -> UUID | None:
        """Have a page look at no more sagas than this, and return the last of them; None if it need not be narrowed."""
        if not _searches(parameters):
            return None
        rows = self.ask("floor", after=parameters["after"], last_id=parameters["last_id"], within=within)
        first_id: UUID | None = parameters["first_id"]
        if not rows or (first_id is not None and rows[0]["id"] <= first_id):
            return None
        parameters["first_id"] = floor = UUID(str(rows[0]["id"]))
        return floor

    def paused(self) -> tuple[PausedName, ...]:
        found = (PausedName(**row) for row in self.ask("paused"))
        return tuple(sorted(found, key=lambda paused: paused.name))

    def unfinished(self, late_seconds: float = 0.0) -> tuple[Count, ...]:
        rows = self.ask("unfinished", late=late_seconds, lately=HOUR, probe=PROBE_SECONDS)
        return tuple(_made(Count, row) for row in rows)


def _searches(parameters: Mapping[str, Any]) -> bool:
    """Whether a page has to look through sagas for those that it wants, because no index has them."""
    if parameters["indexes"] is not None or parameters["key"] is not None or parameters["tags"] is not None:
        return False
    names = ("statuses", "states", "name", "updated_after", "updated_before")
    return any(parameters[name] is not None for name in names)


def _standing(row: Mapping[str, Any], most: int) -> Standing:
    counted, expected = int(row["counted"]), int(row["expected"])
    cut_off = counted >= most
    factor = max(1.0, expected / counted) if cut_off else 1.0
    return Standing(
        name=row["name"],
        status=SagaStatus(row["status"]),
        state=SagaState(row["state"]),
        tally=Tally(sagas=round(row["sagas"] * factor), estimated=cut_off),
        due=Tally(sagas=round(row["due"] * factor), estimated=cut_off),
        first_due=row["first_due"],
    )


def _ended_lately(row: Mapping[str, Any], most: int, now: datetime) -> EndedLately:
    cut_off = int(row["counted"]) >= most
    seconds = max(0.001, (now - row["since"]).total_seconds())
    factor = max(1.0, HOUR / seconds) if cut_off else 1.0
    return EndedLately(
        name=row["name"],
        status=SagaStatus(row["status"]),
        tally=Tally(sagas=round(row["sagas"] * factor), estimated=cut_off),
        recovered=Tally(sagas=round(row["recovered"] * factor), estimated=cut_off),
    )


def _made(kind: type[Any], row: Mapping[str, Any]) -> Any:
    """Return a row as this class, with its status and state as enum members."""
    values = {**row, "status": SagaStatus(row["status"])}
    if "state" in row:
        values["state"] = SagaState(row["state"])
    return kind(**values)


def _ago(now: datetime, seconds: float | None) -> datetime | None:
    if seconds is None:
        return None
    return now - timedelta(seconds=min(seconds, _GREATEST_AGE.total_seconds()))


def _latest(*moments: datetime | None) -> datetime | None:
    return max((moment for moment in moments if moment is not None), default=None)


def _earliest(*moments: datetime | None) -> datetime | None:
    return min((moment for moment in moments if moment is not None), default=None)

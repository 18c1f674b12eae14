"""Acquires a saga, writes for its holder, and acts for an operator."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final
from uuid import UUID

import psycopg
from psycopg.rows import DictRow

from sagas.errors import CharacterNotStorable, HiddenRow, InboxMoved, LeaseLost, SagaUnreadable
from sagas.progress import SagaStatus
from sagas.storage.answers import Acquired, Applied, NotAcquired, Refusal
from sagas.storage.errors import lease_lost
from sagas.storage.leases import Lease, LeaseRequest
from sagas.storage.postgres import mapping
from sagas.storage.postgres.dsn import reason
from sagas.storage.postgres.queries import query
from sagas.storage.postgres.statements import Statements
from sagas.storage.postgres.step_transaction import PostgresStepTransaction, apply_and_begin
from sagas.storage.records import SagaRecord
from sagas.storage.step_transaction import StepSession, StepTransaction
from sagas.storage.transitions import GaveBack, Transition, change_of, outbox_of

#: How often an acquire is tried again because another writer changed the saga's row meanwhile.
_ROUNDS: Final = 20
#: Seconds after which a saga that could not be read is due again. Another process may be able to read it.
_UNREADABLE_SECONDS: Final = 30.0


class Holding(Statements):
    """Writes under leases. Every write is fenced."""

    def acquire(
        self,
        saga_id: UUID,
        request: LeaseRequest,
        *,
        max_recovery_attempts: int,
        version: int | None = None,
        by_hand: bool = False,
    ) -> Acquired | NotAcquired:
        parameters = mapping.acquire_row(saga_id, request, max_recovery_attempts, version, by_hand=by_hand)
        with self._connections.cursor() as cursor:
            try:
                return _acquire(cursor, parameters)
            except Exception as error:
                if (acquired := _acquired_unread(cursor, parameters)) is None:
                    raise
                unreadable = error
        lease, status_before = acquired
        why = f"its row cannot be read ({type(unreadable).__name__}: {reason(unreadable)})"
        self.apply(
            lease,
            GaveBack(status=status_before, after_seconds=_UNREADABLE_SECONDS, last_error=f"declined: {why}"),
        )
        raise SagaUnreadable(
            f"saga {saga_id} was given back, no attempt spent: {why}. Check the row, the settings of the database and "
            "of its user; another attempt follows automatically."
        ) from unreadable

    def apply(self, lease: Lease, transition: Transition) -> Applied:
        name, parameters = mapping.written(lease, transition)
        try:
            written = self._connections.write(query(name), parameters)
        except CharacterNotStorable:
            # Most likely the text of a step's error has the character. The saga must be written nevertheless.
            written = self._connections.write(query(name), mapping.in_ascii(parameters))
        if written is None:
            raise self._refused(lease, transition)
        return mapping.what_was_done(name, written, lease, transition)

    def _refused(self, lease: Lease, transition: Transition) -> LeaseLost | InboxMoved:
        """Return why a transition was not written. Should the lease be lost only now, that is as good a reason."""
        rows = [] if change_of(transition).seen is None else self._query("inbox", mapping.fence(lease))
        return InboxMoved(rows[0]["inbox"]) if rows else lease_lost(lease)

    def apply_many(self, asked: Sequence[tuple[Lease, Transition]]) -> list[Applied | LeaseLost | InboxMoved]:
        results: dict[int, Applied | LeaseLost | InboxMoved] = {}
        # Those with tasks for the outbox go alone: the statement for many has no place for tasks.
        together = [place for place, (_, transition) in enumerate(asked) if not outbox_of(transition)]
        if len(together) > 1:
            try:
                rows = self._query("apply_many", mapping.apply_rows([asked[place] for place in together]))
            except (psycopg.DataError, CharacterNotStorable):
                rows = []  # one value fails the statement: nothing was applied
            for row in rows:
                place = together[row["place"] - 1]
                results[place] = mapping.applied_of(json.loads(row["applied"]), *asked[place])
        for place, (lease, transition) in enumerate(asked):
            if place not in results:
                try:
                    results[place] = self.apply(lease, transition)
                except (LeaseLost, InboxMoved) as error:
                    results[place] = error
        return [results[place] for place in range(len(asked))]

    def begin_step(self, lease: Lease, step: str, session: type[StepSession]) -> StepTransaction:
        return PostgresStepTransaction(self._of_steps, lease, step, session)

    def apply_and_begin(
        self, lease: Lease, transition: Transition, step: str, session: type[StepSession]
    ) -> tuple[Applied, StepTransaction | None]:
        if session.is_lent:
            with suppress(CharacterNotStorable):
                return apply_and_begin(self._of_steps, lease, transition, step, session)
        return super().apply_and_begin(lease, transition, step, session)

    def renew(self, lease: Lease, seconds: float) -> bool:
        with self._connections.cursor(at_once=True) as cursor:
            rows = cursor.execute(query("renew"), {**mapping.fence(lease), "lease": seconds}).fetchall()
        if not rows:
            raise lease_lost(lease)
        return bool(rows[0]["yield_requested"])

    def request_yield(self, saga_id: UUID, *, actor: str, for_seconds: float) -> None:
        self._execute("request_yield", {"id": saga_id, "actor": actor, "seconds": for_seconds})

    def set_definition(self, lease: Lease, definition_hash: str) -> None:
        if not self._execute("set_definition", {**mapping.fence(lease), "definition": definition_hash}):
            raise lease_lost(lease)

    def operate(
        self,
        saga_id: UUID,
        decide: Callable[[SagaRecord], Transition],
        *,
        owner: str,
        max_recovery_attempts: int,
    ) -> Applied | NotAcquired:
        request = LeaseRequest(owner=owner, seconds=0.0)  # no one sees this lease: the same transaction ends it
        parameters = mapping.acquire_row(saga_id, request, max_recovery_attempts, None, by_hand=True)
        with self._connections.cursor() as cursor, cursor.connection.transaction():
            cursor.execute(query("short_transaction"), {})
            found = _acquire(cursor, parameters)
            if isinstance(found, NotAcquired) and found.why is Refusal.DIED:
                found = _acquire(cursor, parameters)  # it is dead now, and an operator may acquire the dead
            if isinstance(found, NotAcquired):
                return found
            transition = decide(found.record)
            name, values = mapping.written(found.lease, transition)
            row = cursor.execute(query(name), values).fetchone()
            if row is None:
                raise lease_lost(found.lease)
            return mapping.what_was_done(name, row["applied"], found.lease, transition)


def _acquire(cursor: psycopg.Cursor[DictRow], parameters: Mapping[str, Any]) -> Acquired | NotAcquired:
    for _ in range(_ROUNDS):
        row = cursor.execute(query("acquire"), parameters).fetchone()
        if row is None:
            return NotAcquired(Refusal.NOT_FOUND)
        if row["verdict"] != "moved":
            break
    else:
        raise HiddenRow(
            f"saga {parameters['id']} was not acquired: its row changed during each of {_ROUNDS} tries, or seems to "
            "have changed. Check what else writes to saga_executions."
        )
    record = mapping.record_of(row)
    if row["verdict"] != "acquired":
        return NotAcquired(Refusal(row["verdict"]), record)
    lease = Lease(record.id, record.version, parameters["owner"], parameters["token"])
    return Acquired(lease, record, SagaStatus(row["status_before"]))


def _acquired_unread(cursor: psycopg.Cursor[DictRow], parameters: Mapping[str, Any]) -> tuple[Lease, SagaStatus] | None:
    """Return the lease that the last acquire of this cursor got, and the status before, from the undecoded result."""
    result = cursor.pgresult
    if result is None or not result.ntuples:
        return None
    sent = {(result.fname(column) or b"").decode(): result.get_value(0, column) for column in range(result.nfields)}
    if sent["verdict"] != b"acquired":
        return None
    version = int.from_bytes(sent["version"] or b"")  # in binary, as the whole result
    lease = Lease(parameters["id"], version, parameters["owner"], parameters["token"])
    return lease, SagaStatus((sent["status_before"] or b"").decode())

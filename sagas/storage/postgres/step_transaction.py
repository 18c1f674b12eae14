"""The transaction of a transactional step in PostgreSQL.

The fence, the checkpoint and the COMMIT go to the server together, in one round trip. The fence fails if the lease was
lost, and the server then skips the COMMIT. If a transactional step follows, COMMIT AND CHAIN begins its transaction in
the same round trip, on the same connection: none is ever held while another is waited for.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final, TypeAlias

import psycopg
from psycopg import errors as pg
from psycopg import generators
from psycopg.pq import ExecStatus, TransactionStatus
from psycopg.pq.abc import PGresult
from psycopg.rows import tuple_row

from sagas.errors import SagaError, StepRolledBack, TransactionRefused
from sagas.failures import is_conflict
from sagas.storage.answers import Applied
from sagas.storage.errors import lease_lost
from sagas.storage.leases import Lease
from sagas.storage.postgres import mapping
from sagas.storage.postgres.dsn import reason
from sagas.storage.postgres.pool import Checkout, Connections
from sagas.storage.postgres.queries import query
from sagas.storage.step_sessions import refusal
from sagas.storage.step_transaction import Lent, NextStep, StepSession, StepTransaction
from sagas.storage.transitions import Ended, Suspended, Transition

#: Whatever the connection's defaults are: under a stricter level, each renewal of the lease would fail the fence.
_BEGIN: Final = "BEGIN ISOLATION LEVEL READ COMMITTED, READ WRITE"
#: A connection for one transaction, and what lends it.
Borrowed: TypeAlias = tuple[Checkout, psycopg.Connection[Any]]


class PostgresStepTransaction(StepTransaction):
    """One attempt's transaction, begun when it is made.

    Args:
        connections: lend the connection, unless the session has its own.
        lease: the lease under which the step is performed.
        step: the step's name.
        kind: the kind of session.
        begun: the connection on which it has begun already.

    Raises:
        StorageUnavailable: the database does not answer.
    """

    def __init__(
        self,
        connections: Connections,
        lease: Lease,
        step: str,
        kind: type[StepSession],
        *,
        begun: Borrowed | None = None,
    ) -> None:
        self._connections = connections
        self._lease = lease
        self._step = step
        self._borrowed = begun
        self._next: NextStep | None = None
        self._transition: Transition | None = None
        self._then: Suspended | Ended | None = None
        self._applied: Applied | None = None
        self._refused: Exception | None = None
        self._broken = False
        self._ended = False
        try:
            self._session = kind(self._lend)
            self._connection = self._session.connection
        except BaseException as error:
            self._give_back()
            raise self._translated(error) from error
        try:
            if begun is None:
                _send(self._connection, (_BEGIN, {}), *_naming(lease))
            self._guard()
            self.arguments = self._session.arguments()
        except BaseException as error:
            self.roll_back()
            raise self._translated(error) from error

    def _translated(self, error: BaseException) -> BaseException:
        """Return what to raise instead of an error of the driver's, which Django may have wrapped."""
        cause = error.__cause__ if isinstance(error.__cause__, psycopg.Error) else error
        translated = self._connections.translate(cause) if isinstance(cause, Exception) else error
        return error if translated is cause else translated

    @property
    def broken(self) -> bool:
        return self._broken

    def apply(
        self, transition: Transition, then: Suspended | Ended | None = None, following: NextStep | None = None
    ) -> Applied:
        self._transition, self._then = transition, then
        self._next = following if following is not None and following[1].is_lent and self._borrowed else None
        try:
            self._session.commit()
        except BaseException as error:
            if self._applied is None:
                self.roll_back()
                if self._refused is not None:
                    raise self._refused from self._refused.__cause__ or error
                if isinstance(error, Exception):
                    raise self._not_sent(error) from error
                raise
            self.failed_after_commit = error  # in a listener of the session's commit
        if self._applied is None:
            self.roll_back()
            raise TransactionRefused(
                f"the transactional step {self._step!r} ran inside another transaction of this thread, which did not "
                "commit: perform sagas outside of transactions."
            )
        if self._next is None:
            self._end()
        else:
            self._hand_over(*self._next)
        return self._applied

    def roll_back(self) -> None:
        if self._ended:
            return
        self._transition = None
        self._ended = True
        with suppress(Exception):
            self._session.roll_back()
        with suppress(Exception):
            self._really_roll_back()
        self._end()

    # -- the connection ---------------------------------------------------------------------------------------

    def _lend(self) -> Lent:
        self._borrowed = checkout, connection = self._borrowed or _borrow(self._connections)
        connection.row_factory = tuple_row  # a step may have changed it
        return Lent(checkout.engine, checkout.pooled, connection)

    def _execute(self, statement: str, parameters: dict[str, Any]) -> psycopg.Cursor[Any]:
        # A cursor of our own class: the connection's factories may return other cursors and rows.
        return psycopg.Cursor(self._connection, row_factory=tuple_row).execute(statement, parameters)

    def _guard(self) -> None:
        """Have the connection's own methods checkpoint the step, or refuse.

        The libraries call them too, so nothing commits past the checkpoint.
        """
        changed: Any = self._connection
        changed.commit, changed.rollback, changed.close = self._on_commit, self._on_rollback, self._on_close

    def _on_commit(self) -> None:
        if self._transition is None:
            raise TransactionRefused(refusal("commit()", self._session.cure))
        try:
            self._applied = self._commit(self._transition)
        except BaseException as error:
            self._broken = self._connection.closed
            with suppress(Exception):
                self._really_roll_back()
            if not isinstance(error, Exception):
                raise
            self._refused = self._judge(error)
            raise self._refused from error

    def _commit(self, transition: Transition) -> Applied:
        status = self._connection.info.transaction_status
        if status == TransactionStatus.INERROR:
            raise StepRolledBack(
                f"step {self._step} caught an error of the database, which had ended its transaction: let it raise, "
                f"or contain what may fail ({self._session.cure})."
            )
        name, parameters = mapping.written(self._lease, transition)
        fence = {**mapping.fence(self._lease), "step": self._step, "name": _name_of(self._lease)}
        if status != TransactionStatus.INTRANS:
            raise _ended_by_the_step(self._step, self._session.cure)
        with self._connection.pipeline():
            self._execute(query("fence_step"), fence)
            written = self._execute(query(name), parameters)
            if self._then is not None:
                last = self._execute(query("apply"), mapping.apply_row(self._lease, self._then))
            self._execute("COMMIT" if self._next is None else "COMMIT AND CHAIN", {})
            for statement in () if self._next is None else _naming(self._lease):
                self._execute(*statement)
        row = written.fetchone()
        if row is None:
            raise lease_lost(self._lease)  # the fence has locked the row, so this cannot be
        applied = mapping.what_was_done(name, row[0], self._lease, transition)
        if self._then is None or (row := last.fetchone()) is None:
            return applied
        return applied.followed_by(mapping.what_was_done("apply", row[0], self._lease, self._then))

    def _judge(self, error: Exception) -> Exception:
        """Return what to raise for an error of the commit."""
        if isinstance(error, SagaError):
            return error
        if isinstance(error, pg.InvalidTextRepresentation) and "lease lost" in str(error):
            return lease_lost(self._lease)
        if isinstance(error, pg.InvalidTextRepresentation) and "transaction ended" in str(error):
            return _ended_by_the_step(self._step, self._session.cure)
        if isinstance(error, psycopg.Error) and is_conflict(error) and not self._broken:
            return StepRolledBack(f"the database rolled step {self._step} back ({reason(error)}).", error)
        translated = self._connections.translate(error)
        if translated is not error or not isinstance(error, psycopg.Error):
            return translated
        return StepRolledBack(f"the database did not commit step {self._step} ({reason(error)}).", error)

    def _not_sent(self, error: Exception) -> Exception:
        """Return what to raise for an error before the commit, when the session sent what was pending."""
        if self._broken or isinstance(error, SagaError):
            return self._connections.translate(error)
        return StepRolledBack(f"step {self._step} could not be written ({reason(error)}).", error)

    def _on_rollback(self) -> None:
        if not (self._ended or self._session.rolls_back_by_itself or self._transition):
            raise TransactionRefused(refusal("rollback()", self._session.cure))
        self._really_roll_back()

    def _on_close(self) -> None:
        if not self._ended:
            raise TransactionRefused(refusal("close()", self._session.cure))
        psycopg.Connection.close(self._connection)

    def _really_roll_back(self) -> None:
        _roll_back(self._connection)

    def _hand_over(self, step: str, kind: type[StepSession]) -> None:
        """Give the connection to the step that follows, whose transaction has begun."""
        self._unguard()
        begun, self._borrowed = self._borrowed, None
        with suppress(Exception):  # the step meets it again when it begins by itself
            self.following = PostgresStepTransaction(self._connections, self._lease, step, kind, begun=begun)

    def _end(self) -> None:
        self._unguard()
        self._broken = self._broken or self._connection.closed
        self._give_back()

    def _unguard(self) -> None:
        self._ended = True
        for name in ("commit", "rollback", "close"):
            self._connection.__dict__.pop(name, None)

    def _give_back(self) -> None:
        borrowed, self._borrowed = self._borrowed, None
        if borrowed is not None:
            _give_back(*borrowed)


def apply_and_begin(
    connections: Connections, lease: Lease, transition: Transition, step: str, kind: type[StepSession]
) -> tuple[Applied, StepTransaction | None]:
    """Write a transition that keeps the lease, and begin the transaction of a step, in one round trip.

    Args:
        connections: lend the connection.
        lease: the lease.
        transition: of another step.
        step: the name of the step that follows.
        kind: the kind of its session, whose connection is lent.

    Raises:
        LeaseLost, StorageUnavailable, CharacterNotStorable: as from the storage.
    """
    name, parameters = mapping.written(lease, transition)
    with connections.translated():
        borrowed = checkout, connection = _borrow(connections)
        try:
            results = _send(
                connection, (_BEGIN, {}), (query(name), parameters), ("COMMIT AND CHAIN", {}), *_naming(lease)
            )
            written = results[1].get_value(0, 0) if results[1].ntuples else None
            if written is None:
                raise lease_lost(lease)
        except BaseException:
            with suppress(psycopg.Error):
                _roll_back(connection)
            _give_back(checkout, connection)
            raise
    begun = None
    with suppress(Exception):  # the step meets it again when it begins by itself
        begun = PostgresStepTransaction(connections, lease, step, kind, begun=borrowed)
    return mapping.what_was_done(name, written.decode(), lease, transition), begun


def _borrow(connections: Connections) -> Borrowed:
    # Do not wait for others: steps may be long, and may use the storage themselves.
    checkout = connections.cursor(at_once=True)
    connection: psycopg.Connection[Any] = checkout.__enter__().connection
    connection.autocommit = False
    return checkout, connection


def _give_back(checkout: Checkout, connection: psycopg.Connection[Any]) -> None:
    with suppress(psycopg.Error):
        if not connection.closed:
            connection.autocommit = True
    checkout.__exit__(None, None, None)


def _roll_back(connection: psycopg.Connection[Any]) -> None:
    if connection.closed:
        return
    if connection.info.transaction_status == TransactionStatus.ACTIVE:
        # An exception from outside, such as a time limit, has ended the wait for a statement.
        psycopg.Connection.close(connection)
    else:
        psycopg.Connection.rollback(connection)


def _send(connection: psycopg.Connection[Any], *statements: tuple[str, Mapping[str, Any]]) -> list[PGresult]:
    """Execute statements as one message: psycopg would send a BEGIN by itself, and wait for its answer."""
    cursor = psycopg.ClientCursor(connection)
    text = "; ".join(cursor.mogrify(statement, parameters) for statement, parameters in statements)
    connection.pgconn.send_query(text.encode())
    results: list[PGresult] = connection.wait(generators.execute(connection.pgconn))
    for result in results:
        if result.status not in (ExecStatus.COMMAND_OK, ExecStatus.TUPLES_OK):
            raise pg.error_from_result(result, encoding="utf-8")
    return results


def _name_of(lease: Lease) -> str:
    return f"saga {lease.saga_id} {lease.version}"


def _naming(lease: Lease) -> list[tuple[str, dict[str, Any]]]:
    """Return the statements that each transaction of a step begins with, and their parameters."""
    name = {"name": _name_of(lease)}
    older = (query("end_older_steps"), {**name, "earlier": f"saga {lease.saga_id} %"})
    return [(query("begin_step"), name), *([older] if lease.version > 1 else [])]


def _ended_by_the_step(step: str, cure: str) -> TransactionRefused:
    return TransactionRefused(
        f"step {step} ended the transaction that it shares with its checkpoint, by a statement of its own: what it "
        f"wrote before may have been committed without the checkpoint. Remove that COMMIT or ROLLBACK; {cure}."
    )

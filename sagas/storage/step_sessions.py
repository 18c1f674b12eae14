"""The sessions of SQLAlchemy and psycopg that transactional steps write with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, NoReturn

import sqlalchemy as sa
from sqlalchemy.orm import Session

from sagas.errors import TransactionRefused
from sagas.storage.step_transaction import Lent, StepSession


class PsycopgSession(StepSession):
    """A connection of psycopg 3."""

    is_lent: ClassVar[bool] = True
    cure: ClassVar[str] = "`with connection.transaction():` makes a savepoint"

    def __init__(self, lend: Callable[[], Lent]) -> None:
        self.connection = lend().connection

    def arguments(self) -> tuple[Any, ...]:
        return (self.connection,)

    def commit(self) -> None:
        self.connection.commit()

    def roll_back(self) -> None:
        self.connection.rollback()


class SqlAlchemySession(StepSession):
    """A session of SQLAlchemy."""

    # A flush that fails outside of a savepoint rolls the whole transaction back.
    rolls_back_by_itself: ClassVar[bool] = True
    is_lent: ClassVar[bool] = True
    cure: ClassVar[str] = "`with session.begin_nested():` makes a savepoint"

    def __init__(self, lend: Callable[[], Lent]) -> None:
        self._lent = lend()
        self.connection = self._lent.connection

    def arguments(self) -> tuple[Any, ...]:
        # Without a transaction of SQLAlchemy's on it, so that the session begins one and commits by itself.
        self._session = _Session(bind=sa.Connection(self._lent.engine, self._lent.pooled), expire_on_commit=False)
        self._session.connection()
        return (self._session,)

    def commit(self) -> None:
        Session.commit(self._session)

    def roll_back(self) -> None:
        Session.rollback(self._session)
        Session.close(self._session)


class _Session(Session):
    """A session whose end is the checkpoint of its step."""

    def commit(self) -> NoReturn:
        """Refuse."""
        _refuse("session.commit()")

    def rollback(self) -> NoReturn:
        """Refuse."""
        _refuse("session.rollback()")

    def close(self) -> NoReturn:
        """Refuse."""
        _refuse("session.close()")

    def invalidate(self) -> NoReturn:
        """Refuse."""
        _refuse("session.invalidate()")

    def reset(self) -> NoReturn:
        """Refuse."""
        _refuse("session.reset()")


def _refuse(call: str) -> NoReturn:
    raise TransactionRefused(refusal(call, SqlAlchemySession.cure))


def refusal(call: str, cure: str) -> str:
    """Return the message for a step that tries to end the transaction that it shares with its checkpoint."""
    return (
        f"a transactional step called {call}, and its transaction ends with its checkpoint: return to commit, raise "
        f"to roll back; {cure}."
    )

"""The interface of a transactional step's transaction, and of the sessions that steps write with."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, ClassVar, TypeAlias

import psycopg
import sqlalchemy as sa

from sagas.errors import ConfigurationError
from sagas.storage.answers import Applied
from sagas.storage.transitions import Ended, Suspended, Transition

#: Opens a session for one attempt at a step in a test, as `sessionmaker(engine).begin` does.
TestSessions = Callable[[], AbstractContextManager[Any]]


#: A transactional step: its name, and the kind of its session.
NextStep: TypeAlias = "tuple[str, type[StepSession]]"


class StepTransaction(ABC):
    """The transaction that one attempt at a transactional step shares with its checkpoint. One thread uses it.

    Attributes:
        arguments: what `act` and `compensate` get after the context and the call: the session, or nothing.
        failed_after_commit: an error of the session after it had committed, for the log.
        following: the transaction of the step that follows, if it has begun with the commit.
    """

    arguments: tuple[Any, ...]
    failed_after_commit: BaseException | None = None
    following: StepTransaction | None = None

    @abstractmethod
    def apply(
        self, transition: Transition, then: Suspended | Ended | None = None, following: NextStep | None = None
    ) -> Applied:
        """Write the transition under the lease, and commit it with everything that the step wrote.

        The transaction has ended afterwards, also after an error.

        Args:
            transition: keeps the lease.
            then: ends the lease in the same commit. It is left out if more was delivered to the saga than it says was
                seen; the saga is then still running.
            following: the transactional step that follows, whose transaction may begin in the same round trip.

        Raises:
            LeaseLost: the lease is no longer valid, or this step is checkpointed already; nothing was kept.
            StepRolledBack: the database refused to commit; nothing was kept.
            TransactionRefused: the step had ended the transaction by itself.
            StorageUnavailable: the database did not answer; whether it has committed is unknown.
        """

    @abstractmethod
    def roll_back(self) -> None:
        """Undo everything that the step wrote. It does nothing after the end, and raises nothing."""

    @property
    def broken(self) -> bool:
        """Whether the connection was lost, so that nothing was kept."""
        return False


@dataclass(frozen=True, slots=True)
class Lent:
    """A connection of the storage's, for one transaction.

    Attributes:
        engine: of the storage.
        pooled: the connection as SQLAlchemy's pool gave it out.
        connection: the driver's connection.
    """

    engine: sa.Engine
    pooled: Any
    connection: psycopg.Connection[Any]


class StepSession(ABC):
    """One session of a library, in the transaction of one attempt at a step.

    Args:
        lend: lends a connection of the storage's. Do not call it if the library has connections of its own.

    Attributes:
        connection: the driver's connection that the transaction is on. Its `commit` writes the checkpoint too, and
            only while `commit` of this class runs.
        rolls_back_by_itself: whether the library may roll back while the step runs, after an error.
        is_lent: whether its connection is one that the storage lends.
        cure: what a step writes instead of ending the transaction.
    """

    connection: psycopg.Connection[Any]
    rolls_back_by_itself: ClassVar[bool] = False
    is_lent: ClassVar[bool] = False
    cure: ClassVar[str]

    @abstractmethod
    def __init__(self, lend: Callable[[], Lent]) -> None: ...

    @abstractmethod
    def arguments(self) -> tuple[Any, ...]:
        """Return what the step gets; called once, when the transaction has begun."""

    @abstractmethod
    def commit(self) -> None:
        """Send what is pending, and end with `commit` of the driver's connection."""

    @abstractmethod
    def roll_back(self) -> None:
        """Forget what is pending, and end with `rollback` of the driver's connection."""

    @classmethod
    def in_a_test(cls, step: str, sessions: TestSessions | None) -> AbstractContextManager[Any]:
        """Return the context manager that a step runs in while sagas are kept in memory. It yields the session.

        Raises:
            ConfigurationError: there are no sessions.
        """
        if sessions is None:
            raise ConfigurationError(
                f"the transactional step {step!r} needs a database, and sagas are kept in memory here: keep them in "
                "PostgreSQL, or give MemorySagaStorage the sessions of a test database, as "
                "MemorySagaStorage(sessions=sessionmaker(engine).begin)."
            )
        return sessions()

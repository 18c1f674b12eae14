"""Steps that write to the sagas' own database, exactly once: what they write commits with their checkpoint."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, ClassVar, TypeVar

import psycopg
from sqlalchemy.orm import Session

from sagas.context import ContextT
from sagas.definition import Call, Step
from sagas.errors import DefinitionError
from sagas.storage.step_sessions import PsycopgSession, SqlAlchemySession
from sagas.storage.step_transaction import StepSession

MethodT = TypeVar("MethodT", bound=Callable[..., Any])


class StepInTransaction(Step[ContextT]):
    """The base class of transactional steps. Use one of its subclasses.

    Attributes:
        session_kind: the kind of session that the step writes with.
    """

    kind: ClassVar[str] = "transaction"
    session_kind: ClassVar[type[StepSession]]
    #: How many arguments `act` and `compensate` get: the context, the call and the session.
    _arguments: ClassVar[int] = 3

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for name in ("act", "compensate"):
            method = getattr(cls, name)
            if inspect.iscoroutinefunction(method) or inspect.isasyncgenfunction(method):
                raise DefinitionError(
                    f"{cls.__name__}: {name} is async, and a transactional step holds a transaction of a sync session: "
                    f"write `def {name}`, or make it a plain Step."
                )
            takes = ", ".join(("context", "call", "session")[: cls._arguments])
            try:
                inspect.signature(method).bind(*range(cls._arguments + 1))
            except TypeError:
                raise DefinitionError(f"{cls.__name__}: {name} must take (self, {takes}).") from None
            except ValueError:
                pass  # a callable without a signature

    @classmethod
    def defines_act(cls) -> bool:
        return not hasattr(cls.act, "is_default")

    @classmethod
    def can_compensate(cls) -> bool:
        return not hasattr(cls.compensate, "is_default")


def default(method: MethodT) -> MethodT:
    """Mark the method of a base class, so that a class that does not override it is known."""
    method.is_default = True  # type: ignore[attr-defined]
    return method


class TransactionalStep(StepInTransaction[ContextT]):
    """A step that writes to the sagas' own database with a Session of SQLAlchemy, exactly once.

    What it writes through `session`, its checkpoint and the changed context are one READ COMMITTED transaction. The
    session is bound to the database that stores the sagas, and to no other. An effect anywhere else belongs in a plain
    `Step`. Return to commit, raise to roll back; `session.begin_nested()` makes a savepoint. An attempt may be repeated
    after it was rolled back, so what `act` does besides writing through `session` may happen more than once.

    The step is never in doubt: after a timeout, a crash or a lost connection it is either done or not.
    """

    session_kind: ClassVar[type[StepSession]] = SqlAlchemySession

    @default
    def act(self, context: ContextT, call: Call, session: Session) -> ContextT | None:  # type: ignore[override]
        """Write through the session."""
        raise NotImplementedError

    @default
    def compensate(self, context: ContextT, call: Call, session: Session) -> ContextT | None:  # type: ignore[override]
        """Undo it through the session, exactly once too. Default: there is nothing to undo."""
        return None


class PsycopgStep(StepInTransaction[ContextT]):
    """A step that writes to the sagas' own database with a Connection of psycopg 3, exactly once.

    It is as `TransactionalStep` in all else; `connection.transaction()` makes a savepoint.
    """

    session_kind: ClassVar[type[StepSession]] = PsycopgSession

    @default
    def act(  # type: ignore[override]
        self, context: ContextT, call: Call, connection: psycopg.Connection[Any]
    ) -> ContextT | None:
        """Write through the connection."""
        raise NotImplementedError

    @default
    def compensate(  # type: ignore[override]
        self, context: ContextT, call: Call, connection: psycopg.Connection[Any]
    ) -> ContextT | None:
        """Undo it through the connection, exactly once too. Default: there is nothing to undo."""
        return None

"""Transactional steps in Django: what a step writes with the ORM commits with its checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

from django.db import connections, transaction

from sagas.context import ContextT
from sagas.definition import Call
from sagas.django.configuration import database_alias
from sagas.storage.step_transaction import Lent, StepSession, TestSessions
from sagas.transactional import StepInTransaction, default


class DjangoSession(StepSession):
    """Django's connection to the database of the sagas, in `transaction.atomic`."""

    rolls_back_by_itself: ClassVar[bool] = True
    cure: ClassVar[str] = "`with transaction.atomic():` makes a savepoint"

    def __init__(self, lend: Callable[[], Lent]) -> None:
        alias = database_alias()
        self._django = connections[alias]
        if self._django.connection is not None and self._django.connection.closed:
            self._django.close()  # it broke in an earlier step
        self._atomic = transaction.atomic(using=alias, durable=True)
        self._atomic.__enter__()
        self.connection = self._django.connection

    def arguments(self) -> tuple[Any, ...]:
        return ()

    def commit(self) -> None:
        self._atomic.__exit__(None, None, None)

    def roll_back(self) -> None:
        if self._django.in_atomic_block:
            self._django.set_rollback(True)
            self._atomic.__exit__(None, None, None)

    @classmethod
    def in_a_test(cls, step: str, sessions: TestSessions | None) -> Any:  # noqa: ARG003
        return _atomic()


@contextmanager
def _atomic() -> Iterator[None]:
    with transaction.atomic(using=database_alias()):
        yield


class TransactionalStep(StepInTransaction[ContextT]):
    """A step that writes to the sagas' own database with Django's ORM, exactly once.

    What it writes, its checkpoint and the changed context are one transaction on the database that
    `SAGAS["DATABASE"]` names, and on no other. The step runs in `transaction.atomic`: return to commit, raise to roll
    back; `transaction.atomic()` inside makes a savepoint. `transaction.on_commit` works. An effect anywhere else
    belongs in a plain `Step`.

    The step is never in doubt: after a timeout, a crash or a lost connection it is either done or not.
    """

    session_kind: ClassVar[type[StepSession]] = DjangoSession
    _arguments: ClassVar[int] = 2

    @default
    def act(self, context: ContextT, call: Call) -> ContextT | None:
        """Write with the ORM."""
        raise NotImplementedError

    @default
    def compensate(self, context: ContextT, call: Call) -> ContextT | None:
        """Undo it, exactly once too. Default: there is nothing to undo."""
        return None

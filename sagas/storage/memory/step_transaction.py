"""Transactional steps next to sagas in memory."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from typing import Any

from sagas.errors import InboxMoved, LeaseLost, StepRolledBack
from sagas.storage.answers import Applied
from sagas.storage.contract import ISagaStorage
from sagas.storage.leases import Lease
from sagas.storage.step_transaction import NextStep, StepTransaction
from sagas.storage.transitions import Ended, Suspended, Transition


class StepInMemory(StepTransaction):
    """The transaction of a step on a test database, next to sagas in memory.

    Args:
        storage: of the sagas.
        lease: of the step's saga.
        step: the step's name.
        session: the open session of the test database.
        require_held: raises LeaseLost if the lease no longer holds the saga.
    """

    def __init__(
        self,
        storage: ISagaStorage,
        lease: Lease,
        step: str,
        session: AbstractContextManager[Any],
        *,
        require_held: Callable[[Lease, str], None],
    ) -> None:
        self._storage = storage
        self._require_held = require_held
        self._lease = lease
        self._step = step
        self._session: AbstractContextManager[Any] | None = session
        opened = session.__enter__()
        self.arguments = () if opened is None else (opened,)

    def apply(
        self, transition: Transition, then: Suspended | Ended | None = None, following: NextStep | None = None
    ) -> Applied:
        try:
            self._require_held(self._lease, self._step)
        except LeaseLost:
            self.roll_back()
            raise
        session, self._session = self._session, None
        assert session is not None
        try:
            session.__exit__(None, None, None)
        except Exception as error:
            raise StepRolledBack(f"the database did not commit step {self._step} ({error}).", error) from error
        applied = self._storage.apply(self._lease, transition)
        with suppress(InboxMoved):
            applied = applied if then is None else applied.followed_by(self._storage.apply(self._lease, then))
        return applied

    def roll_back(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            error = _RolledBack()
            with suppress(Exception):
                session.__exit__(_RolledBack, error, None)


class _RolledBack(Exception):
    """Has a session roll back."""

"""Performs one attempt at a transactional step, and keeps its transaction open until its checkpoint commits it."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from typing import Any

from sagas.errors import DefinitionError, StorageUnavailable
from sagas.loops import SerialThread
from sagas.storage.answers import Applied
from sagas.storage.step_transaction import NextStep, StepTransaction
from sagas.storage.transitions import Ended, Suspended, Transition
from sagas.telemetry.logs import saga_logger

logger = saga_logger(__name__)


class OpenStep:
    """One attempt at a transactional step.

    Everything happens in one thread, because connections may belong to threads: in the caller's, or in one of its own.
    There, what is asked waits for the action: an attempt that timed out is rolled back once its action ends.

    Args:
        begin: begins the transaction.
        action: called with what the transaction gives the step.
        thread: the thread of its own; None for the caller's.
    """

    def __init__(
        self,
        begin: Callable[[], StepTransaction],
        action: Callable[..., Any],
        thread: SerialThread | None = None,
    ) -> None:
        self._begin = begin
        self._action = action
        self._thread = thread
        self._transaction: StepTransaction | None = None

    def perform(self) -> Future[Any]:
        """Begin the transaction and call the action; the answer is what the action returned.

        If anything is raised, the transaction is rolled back before. StorageUnavailable: its connection was lost.
        """
        return self._do(self._perform, last=False)

    def apply(
        self, transition: Transition, then: Suspended | Ended | None = None, following: NextStep | None = None
    ) -> Future[Applied]:
        """Do as `StepTransaction.apply` does."""
        return self._do(partial(self._apply, transition, then, following), last=True)

    @property
    def following(self) -> StepTransaction | None:
        """The transaction of the step that follows, if it has begun with the commit."""
        return None if self._transaction is None else self._transaction.following

    def drop_following(self) -> None:
        """Roll back the transaction of the step that follows, if it has begun."""
        if self.following is not None:
            self.following.roll_back()

    def roll_back(self) -> Future[None]:
        """Roll back, once the action has ended."""
        return self._do(self._roll_back, last=True)

    def _do(self, function: Callable[[], Any], *, last: bool) -> Future[Any]:
        if self._thread is not None:
            return self._thread.call(function, last=last)
        outcome: Future[Any] = Future()
        try:
            outcome.set_result(function())
        except BaseException as error:
            outcome.set_exception(error)
        return outcome

    def _perform(self) -> Any:
        self._transaction = transaction = self._begin()
        try:
            returned = self._action(*transaction.arguments)
            if inspect.isawaitable(returned):
                if inspect.iscoroutine(returned):
                    returned.close()  # an unawaited coroutine would warn
                raise DefinitionError(
                    "a transactional step returned an awaitable, and its transaction is that of a sync session: "
                    "write it with `def`, or make it a plain Step."
                )
        except BaseException as error:
            transaction.roll_back()
            if transaction.broken and isinstance(error, Exception):
                raise StorageUnavailable(f"the connection was lost while a transactional step ran: {error}") from error
            raise
        return returned

    def _apply(self, transition: Transition, then: Suspended | Ended | None, following: NextStep | None) -> Applied:
        assert self._transaction is not None
        applied = self._transaction.apply(transition, then, following)
        if (error := self._transaction.failed_after_commit) is not None:
            logger.error("a transactional step was committed, and then its session failed", exc_info=error)
        return applied

    def _roll_back(self) -> None:
        if self._transaction is not None:
            self._transaction.roll_back()

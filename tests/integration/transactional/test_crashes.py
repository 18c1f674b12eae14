"""A process that is killed at each point of a transactional step: the effect is there once."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from typing import Any

import pytest

from sagas import PostgresSagaStorage
from sagas.definition import ONCE
from sagas.storage.answers import Applied
from sagas.storage.saga_filter import SagaFilter
from sagas.storage.step_transaction import StepTransaction
from sagas.transactional import StepInTransaction
from tests.integration.transactional.accounts import KINDS, Accounts, Transfer, pay, paying
from tests.samples import QuickEngine, saga_of

POINTS = ("before begin", "after begin", "before the write", "after the write", "before commit", "after commit")


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class Deadly(PostgresSagaStorage):
    """A storage whose process dies at a point of the nth transaction of a step.

    A transaction that begins with the commit of the one before it is between both: before that commit, and after it.
    """

    point = ""
    nth = 1
    begun = 0

    def begin_step(self, *arguments: Any) -> StepTransaction:
        self._arrive("before begin", self.begun + 1)
        return self._deadly(super().begin_step(*arguments))

    def apply_and_begin(self, *arguments: Any) -> tuple[Applied, StepTransaction | None]:
        self._arrive("before begin", self.begun + 1)
        applied, begun = super().apply_and_begin(*arguments)
        return applied, begun and self._deadly(begun)

    def _deadly(self, transaction: StepTransaction) -> StepTransaction:
        self.begun += 1
        number, really = self.begun, transaction.apply
        self._arrive("after begin", number)

        def apply(*arguments: Any) -> Any:
            self._arrive("before commit", number)
            if len(arguments) > 2 and arguments[2] is not None:
                self._arrive("before begin", number + 1)
            applied = really(*arguments)
            self._arrive("after commit", number)
            if transaction.following is not None:
                self._deadly(transaction.following)
            return applied

        transaction.apply = apply  # type: ignore[method-assign]
        return transaction

    def _arrive(self, point: str, number: int) -> None:
        if (point, number) == (self.point, self.nth):
            die()


@pytest.fixture
def url(accounts: Accounts) -> Iterator[str]:
    yield accounts.url
    accounts.engine.dispose()


@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize("nth", [1, 2, 3], ids=["first step", "second step", "compensation"])
@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS.keys())
def test_process_that_is_killed_leaves_the_effect_once(
    accounts: Accounts, url: str, kind: type[StepInTransaction[Any]], point: str, nth: int
) -> None:
    calls = {"count": 0}
    armed = True

    def count(when: str) -> Any:
        def do(*_: Any) -> None:
            if when == "before the write":
                calls["count"] += 1
            if armed and point == when and calls["count"] == nth:
                die()

        return do

    def refuse(*_: Any) -> None:
        raise ValueError("no")

    before, after = count("before the write"), count("after the write")

    def undo_first(self: Any, context: Transfer, call: Any, session: Any) -> None:
        before()
        pay(session, -context.amount)
        after()

    steps = [
        paying(kind, after, before=before, compensate=undo_first),
        paying(kind, after, before=before, name="again", compensate=undo_first),
    ]
    if nth == 3:
        steps.append(paying(kind, refuse, before=lambda *_: None, name="refused", retry=ONCE))
    saga = saga_of(steps, context=Transfer)
    if nth == 3 and point not in ("before the write", "after the write"):
        nth = 4  # the transaction of the step that is refused is the third
    accounts.engine.dispose()

    child = os.fork()
    if child == 0:
        storage = Deadly(url)
        storage.point, storage.nth = point, nth if point not in ("before the write", "after the write") else 10**9
        try:
            QuickEngine(storage).run(saga, Transfer())
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.WTERMSIG(status) == signal.SIGKILL
    armed = False

    storage = PostgresSagaStorage(url)
    (record,) = storage.find(SagaFilter())
    with accounts.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE saga_executions SET available_at = now() - interval '1 second'")
    QuickEngine(storage, sagas=[saga]).recover(record.id)  # it may have ended with the commit before the kill

    status_now = storage.load(record.id).status
    if len(steps) == 3:
        assert (status_now, accounts.balance()) == ("COMPENSATED", 0)
        assert sorted(accounts.entries) == [-10, -10, 10, 10]
    else:
        assert (status_now, accounts.balance(), accounts.entries) == ("COMPLETED", 20, [10, 10])
    log = [(e.step, e.action) for e in storage.load(record.id).log if e.status == "completed"]
    assert len(log) == len(set(log))
    storage.close()

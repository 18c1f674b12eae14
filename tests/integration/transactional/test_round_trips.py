"""What a transactional step costs: as many round trips as a plain one, and those of its own statements."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from sagas import Call, PostgresSagaStorage, Step
from sagas.definition import ONCE
from sagas.transactional import StepInTransaction
from tests.integration.transactional.accounts import KINDS, Accounts, Transfer
from tests.integration.transactional.round_trips import RoundTrips
from tests.samples import QuickEngine, saga_of


class Plain(Step[Transfer]):
    def act(self, context: Transfer, call: Call) -> None:
        context.amount += 1


def _paying(kind: type[StepInTransaction[Any]]) -> type[Step[Any]]:
    def act(self: Any, context: Transfer, call: Call, session: Session | psycopg.Connection[Any]) -> None:
        statement: Any = "UPDATE accounts SET balance = balance + 1"
        session.execute(sa.text(statement) if isinstance(session, Session) else statement)
        context.amount += 1

    return type("Pay", (kind,), {"act": act, "retry": ONCE})


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS.keys())
def test_transactional_step_needs_as_many_round_trips_as_a_plain_one_and_its_own(
    accounts: Accounts, kind: type[StepInTransaction[Any]], record_property: Any
) -> None:
    steps = 20
    counts = {}
    with RoundTrips().counting_to(accounts.url) as trips:
        storage = PostgresSagaStorage(trips.url)
        engine = QuickEngine(storage)
        for name, step in (("plain", Plain), ("transactional", _paying(kind))):
            named = [type(step.__name__, (step,), {"name": f"{name}{n}"}) for n in range(steps)]
            saga = saga_of(named, context=Transfer, name=name)
            for _ in range(2):  # the first run connects, and prepares statements
                before = trips.count
                assert engine.run(saga, Transfer()).outcome == "completed"
                counts[name] = trips.count - before
        storage.close()

    # The first one has no checkpoint before it with which its transaction could begin.
    extra = (counts["transactional"] - counts["plain"] - 1) / steps
    record_property(
        "figure", f"round trips: {counts} for {steps} steps, {extra:.2f} more for each, one of them its own"
    )
    assert counts["plain"] == steps + 1
    assert extra == 1


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS.keys())
def test_transaction_of_a_step_begins_with_the_checkpoint_of_a_plain_one(
    accounts: Accounts, kind: type[StepInTransaction[Any]]
) -> None:
    counts = []
    with RoundTrips().counting_to(accounts.url) as trips:
        storage = PostgresSagaStorage(trips.url)
        for steps in ([Plain, _paying(kind)], [Plain, type("Other", (Plain,), {})]):
            saga = saga_of(steps, context=Transfer, name=f"trip{len(counts)}")
            for _ in range(2):
                before = trips.count
                assert QuickEngine(storage).run(saga, Transfer()).outcome == "completed"
            counts.append(trips.count - before)
        storage.close()

    assert counts[0] == counts[1] + 1  # its own statement

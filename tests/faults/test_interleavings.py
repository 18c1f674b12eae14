"""Whatever the order of two workers, scans and faults: what must hold of one saga, and that the search would notice."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from typing import NamedTuple

import pytest

from sagas.errors import LeaseLost
from sagas.progress import Action, EntryStatus, SagaStatus, Verdict
from sagas.storage.base import Refused, SagaRecord, Taken
from tests.faults.interleavings import (
    MAXIMUM,
    After,
    Answer,
    Explorer,
    Left,
    Request,
    Scenario,
    Violation,
    World,
)

_FORWARD = {SagaStatus.PENDING, SagaStatus.RUNNING, SagaStatus.COMPLETED, SagaStatus.FAILED}
_BACKWARD = {SagaStatus.COMPENSATING, SagaStatus.COMPENSATED, SagaStatus.FAILED}
#: The number of a holder that is no more, while its lease still runs.
_GONE = -1


class Books(NamedTuple):
    """The rules, and what must be remembered to judge by them.

    Attributes:
        holder: who holds the saga, until somebody else takes or seizes it, whatever the record says.
        over: whether the time of that lease is over.
        holds: how often the saga was taken.
        attempts: failed ones without progress.
        turned: whether the saga turned back.
        dispatched: whether a message was to be sent for it that nobody has acted on yet.
    """

    holder: int | None = None
    over: bool = False
    holds: int = 0
    attempts: int = 0
    turned: bool = False
    dispatched: bool = True

    def without(self, number: int) -> Books:
        return self._replace(holder=_GONE) if self.holder == number else self

    def when_expired(self) -> Books:
        return self._replace(over=True)

    def saw(self, world: World, number: int | None, request: Request, answer: Answer, after: After) -> Books:
        old, new, books = world.stored.record, after.record, self
        match request.name:
            case "act" | "compensate":
                self._called(number, request)
            case "checkpoint" | "release" | "renew":
                books = self._wrote(old, new, world, number, request, answer)
            case "take":
                books = self._took(old, new, number, request, answer.value)
            case "claim_sagas":
                books = self._claimed(old, new, request, answer.value)
            case "seize_orphans":
                books = self._seized(old, new, holder_is_dead=True)
            case "unclaim" if new != old:
                books = self._replace(dispatched=False)
        if new is not old:
            books._agree(old, new)
        _effects_fit(new, after.effects)
        return books

    def _called(self, number: int | None, request: Request) -> None:
        call = request.args[0]
        must(call.idempotency_key == f"{call.saga_id}:{call.step_name}:{request.name}", "the key is another")
        if request.name == "compensate":
            must(self.turned, "undone although the saga has not turned back")
        elif number == self.holder:
            must(not self.turned, "strict backward recovery: the saga ran forward after it had turned back")

    def _wrote(
        self, old: SagaRecord, new: SagaRecord, before: World, number: int | None, request: Request, answer: Answer
    ) -> Books:
        if answer.error is LeaseLost:
            must(number != self.holder, f"the fence: a {request.name} of the holder was refused")
            must(new == old, "the fence: what was refused changed something")
            return self
        must(number == self.holder, f"the fence: a {request.name} was accepted from a holder that had lost its lease")
        if request.name == "renew":
            return self._replace(over=False)
        given_back = new.lease_owner != old.lease_owner
        books = self._replace(
            holder=None if given_back else self.holder,
            dispatched=new.lease_owner == "queue" if given_back else self.dispatched,
        )
        if request.name == "release":
            # Nothing but an error that is no step's, just before, makes giving back a failed attempt.
            last = before.actors[number].point.answers[-1]
            return books._replace(attempts=self.attempts + (last.error is SystemExit))
        entry = request.args[1]
        if entry is None:
            return books._replace(attempts=0)
        must(
            [e for e in new.log if e.status is EntryStatus.COMPLETED]
            == [*{(e.step, e.action): e for e in new.log if e.status is EntryStatus.COMPLETED}.values()],
            "an action completed twice",
        )
        attempts = self.attempts + (entry.verdict is Verdict.GIVE_UP)
        done = entry.status is EntryStatus.COMPLETED or new.status.finished
        turned = self.turned or entry.verdict is Verdict.TURN_BACK or entry.action is Action.COMPENSATE
        return books._replace(attempts=0 if done else attempts, turned=turned)

    def _took(self, old: SagaRecord, new: SagaRecord, number: int | None, request: Request, result: object) -> Books:
        if isinstance(result, Refused):
            return self._seized(old, new)
        assert isinstance(result, Taken)
        version, by_hand = request.kwargs["version"], request.kwargs["by_hand"]
        must(version in (None, old.version), "a message took the saga at a version that it was not sent for")
        must(new.version > old.version, "the fencing token did not grow")
        books = self._seized(old, new)
        attempts = min(books.attempts, MAXIMUM - 1) if by_hand else books.attempts
        must(attempts < MAXIMUM, "a dead saga was taken")
        return Books(number, False, self.holds + 1, attempts, self.turned, dispatched=False)

    def _claimed(self, old: SagaRecord, new: SagaRecord, request: Request, result: object) -> Books:
        books = self._seized(old, new)
        if result.missing:
            must(
                self.dispatched and not request.kwargs["messages_waiting"], "a message was missed that was not missing"
            )
            books = books._replace(dispatched=False)
        if result.claims:
            must(not books.dispatched, "the mark of dispatch: a second message for the same saga")
            books = books._replace(dispatched=True)
        return books

    def _seized(self, old: SagaRecord, new: SagaRecord, *, holder_is_dead: bool = False) -> Books:
        """The lease is another's or nobody's now, by somebody else's doing."""
        if self.holder is None or (new.version, new.lease_owner) == (old.version, old.lease_owner):
            return self
        must(self.over or (holder_is_dead and self.holder == _GONE), "a live lease was seized")
        return self._replace(holder=None, over=False, attempts=self.attempts + (self.holds > 1))

    def _agree(self, old: SagaRecord, new: SagaRecord) -> None:
        must(not old.status.finished, "a finished saga was changed")
        must(new.log[: len(old.log)] == old.log, "the log was rewritten")
        must(new.version >= old.version, "the fencing token shrank")
        must(new.status in (_BACKWARD if self.turned else _FORWARD), f"the status is {new.status}")
        must(new.recovery_attempts == self.attempts, f"attempts: counted {new.recovery_attempts}, not {self.attempts}")
        must(new.dead == (self.attempts >= MAXIMUM), f"dead: {new.dead} after {self.attempts} failed attempts")
        acted = [e.step for e in new.log if e.action is Action.ACT and e.status is EntryStatus.COMPLETED]
        must(json.loads(new.context)["booked"] == acted, "the context is not what the log tells")


def must(holds: bool, otherwise: str) -> None:
    if not holds:
        raise Violation(otherwise)


def _effects_fit(record: SagaRecord, effects: tuple[str, ...]) -> None:
    if record.status is SagaStatus.COMPLETED:
        must(set(effects) == {"done"}, f"COMPLETED, but the effects are {effects}")
    if record.status is SagaStatus.COMPENSATED:
        must("done" not in effects, f"COMPENSATED, but the effects are {effects}")


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """Thousands of sagas crash here, and need not tell."""
    logging.disable()
    yield
    logging.disable(logging.NOTSET)


SCENARIOS = {
    "both steps succeed": Scenario(left=Left(faults=2, crashes=2, expiries=2, scans=2)),
}


@pytest.mark.parametrize("name", SCENARIOS)
def test_every_order_keeps_the_rules(name: str):
    found = Explorer(SCENARIOS[name], Books()).explore()

    print(
        f"\n{name}: {found.schedules:.3g} schedules, {found.worlds} worlds, {found.steps} steps, {found.seconds:.1f} s"
    )
    assert found.violation is None, f"\n{found.violation}"

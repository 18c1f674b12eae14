"""Whatever the order of two workers, scans and faults: what must hold of one saga, and that the search would notice."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

import pytest

from sagas import MemorySagaStorage, RetryPolicy
from sagas.errors import ActionRefused
from sagas.graph import Graph, Node
from sagas.progress import Action, Entry, EntryStatus, Progress, SagaStatus, Verdict
from sagas.storage import rules
from sagas.storage.records import (
    Acquired,
    Applied,
    ClaimResult,
    Lease,
    LeaseRequest,
    LogEntry,
    NotAcquired,
    Pause,
    SagaRecord,
    SagaState,
    is_shared,
)
from sagas.storage.transitions import Change, Progressed, Transition, change_of
from tests.faults.interleavings import After, Exploration, Explorer, Violation, World
from tests.faults.processes import (
    DONE,
    EXITS,
    FAILS,
    FAULTS,
    MAXIMUM,
    NOW,
    STEPS,
    UNKNOWN,
    Answer,
    KeptForOperators,
    Left,
    Point,
    Request,
    Scenario,
    Storage,
)

_FORWARD = {SagaStatus.PENDING, SagaStatus.RUNNING, SagaStatus.COMPLETED, SagaStatus.FAILED}
_BACKWARD = {SagaStatus.COMPENSATING, SagaStatus.COMPENSATED, SagaStatus.FAILED}
_ACTIONS = (Action.ACT, Action.COMPENSATE)
_ENDS = (EntryStatus.COMPLETED, EntryStatus.SKIPPED)
#: The number of a holder that is no more, while its lease still runs.
_GONE = -1


class Books(NamedTuple):
    """The rules, and what must be remembered to judge by them.

    Attributes:
        holder: who holds the saga, until somebody else acquires or reclaims it, whatever the record says.
        over: whether the time of that lease is over.
        leases: how often the saga was acquired.
        attempts: failed ones without progress.
        aborted: whether the saga aborted.
        dispatched: whether a message was to be sent for it that nobody has acted on yet.
        passed: whether a message reached a worker that cannot have overtaken this saga's.
        suspect: whether a process lost it that held others too, and it has not got on since.
        skipped: the steps that an operator answers for.
        resolved: whether an operator ended it.
    """

    holder: int | None = None
    over: bool = False
    leases: int = 0
    attempts: int = 0
    aborted: bool = False
    dispatched: bool = True
    passed: bool = False
    suspect: bool = False
    skipped: frozenset[str] = frozenset()
    resolved: bool = False

    def without(self, number: int) -> Books:
        return self._replace(holder=_GONE) if self.holder == number else self

    def when_expired(self) -> Books:
        return self._replace(over=True)

    def saw(self, world: World, number: int | None, request: Request, answer: Answer, after: After) -> Books:
        old, new, books = world.stored.record, after.record, self
        paused = world.stored.operated.paused
        match request.name:
            case "act" | "compensate":
                self._called(number, request, world.actors[number].point, old)
            case "apply" | "renew" | "set_definition":
                writer = number, world.actors[number].point
                books = self._wrote(old, new, writer, request, refused=answer.error is not None)
            case "acquire":
                must(not (paused and _by_message(request, answer)), "a message acquired a saga of a paused name")
                books = self._acquired(old, new, number, request, answer.value)
            case "operate":
                books = self._operated(old, new, answer, world.actors[number].point.activity.command)
            case "increment_recovery_attempts" if answer.error is None:
                books = self._lost_lease(old, new, counts=False)
                books = books._replace(attempts=books.attempts + 1, aborted=True)
            case "claim_sagas" | "claim_as_seen":
                must(not (paused and answer.value.claims), "a scan dispatched a saga of a paused name")
                books = self._claimed(world, new, answer.value)
            case "note_delivery" if number is None:
                passing = rules.lost_message(old, request.args[0].queued_at)
                books = self._replace(passed=self.passed or passing)
            case "reclaim":
                books = self._lost_lease(old, new, holder_is_dead=True)
            case "release_claims" if new != old:
                books = self._replace(dispatched=False)
        if (old.state, new.state) == (SagaState.QUEUED, SagaState.PAUSED):
            books = books._replace(dispatched=False)  # its message is used up, or given up for lost
        if new is not old and new != old:
            books._agree(old, new)
        books._effects_fit(new, after.effects)
        return books if new.state is SagaState.QUEUED else books._replace(passed=False)

    def _called(self, number: int | None, request: Request, point: Point, record: SagaRecord) -> None:
        call = request.args[0]
        asked = point.parent is not None and point.parent.request.name == "yield_requested?" and point.answers[-1].value
        must(not asked, "the holder went on although its yield was requested")
        late = number != self.holder
        must(late or call.step_name not in self.skipped, "code did a step that an operator had skipped")
        must(call.idempotency_key == f"{call.saga_id}:{call.step_name}:{request.name}", "the key is another")
        told = late or record.in_flight is None or call.step_name in record.in_flight
        must(told, f"{call.step_name} began, and only {record.in_flight} is known to be in flight")
        if request.name == "compensate":
            must(self.aborted, "undone although the saga has not aborted")
        elif number == self.holder:
            must(not self.aborted, "strict backward recovery: the saga ran forward after it had aborted")

    def _wrote(
        self, old: SagaRecord, new: SagaRecord, writer: tuple[int | None, Point], request: Request, *, refused: bool
    ) -> Books:
        number, point = writer
        if refused:
            must(number != self.holder, f"the fence: {request.name} of the holder was refused")
            must(new == old, "the fence: what was refused changed something")
            return self
        must(number == self.holder, f"the fence: {request.name} was accepted from a holder that had lost its lease")
        if request.name == "renew":
            return self._replace(over=False)
        if request.name == "set_definition":
            return self
        books = self
        if new.lease_owner is None:
            books = self._replace(holder=None, dispatched=new.state is SagaState.QUEUED)
        events = request.args[1].events
        got_on = new.status.finished or any(e.action in _ACTIONS and e.status in _ENDS for e in events)
        # It failed if a step's attempts are spent for now, or after an error that is no step's.
        fails = any(entry.verdict is Verdict.GIVE_UP for entry in events) or point.answers[-1].error is SystemExit
        return books._replace(
            attempts=(0 if got_on else self.attempts) + fails,
            suspect=self.suspect and not got_on,
            aborted=self.aborted or any(entry.verdict is Verdict.TURN_BACK for entry in events),
        )

    def _acquired(
        self, old: SagaRecord, new: SagaRecord, number: int | None, request: Request, result: object
    ) -> Books:
        books = self._lost_lease(old, new)
        if isinstance(result, NotAcquired):
            return books
        assert isinstance(result, Acquired)
        version, by_hand = request.kwargs["version"], request.kwargs["by_hand"]
        must(version in (None, old.version), "a message acquired the saga at a version that it was not sent for")
        must(new.version > old.version, "the fencing token did not grow")
        alone = not is_shared(request.args[1].owner)
        must(alone or not books.suspect, "a process that may hold others too acquired a suspect saga")
        attempts = min(books.attempts, MAXIMUM - 1) if by_hand else books.attempts
        must(attempts < MAXIMUM, "a dead saga was acquired")
        return books._replace(holder=number, over=False, leases=self.leases + 1, attempts=attempts, dispatched=False)

    def _operated(self, old: SagaRecord, new: SagaRecord, answer: Answer, command: str) -> Books:
        if not isinstance(answer.value, Applied):
            must(new == old, "an operator's action that was refused changed something")
            return self
        must(new.version > old.version, "the fencing token did not grow")
        entry = new.log[-1]
        books = self._lost_lease(old, new)
        ended = new.status.finished or entry.status is not EntryStatus.FAILED
        return books._replace(
            leases=books.leases + 1,
            attempts=0 if ended else min(books.attempts, MAXIMUM - 1),
            suspect=books.suspect and not ended,
            aborted=books.aborted or command == "compensate",
            dispatched=False,
            skipped=books.skipped | ({entry.step} if entry.status is EntryStatus.SKIPPED else set()),
            resolved=command.startswith("resolve"),
        )

    def _claimed(self, world: World, new: SagaRecord, result: ClaimResult) -> Books:
        old, delivered = world.stored.record, world.stored.delivered
        books = self._lost_lease(old, new)
        if result.lost:
            must(self.dispatched, "a message was sent again that was not missing")
            probed = old.due(NOW) and not delivered.moving
            must(self.passed or probed, "a message was sent again that may well wait")
            return books._replace(passed=False)
        if result.claims:
            must(not books.dispatched, "the queue: a second message for the same saga")
            books = books._replace(dispatched=True)
        return books

    def _lost_lease(
        self, old: SagaRecord, new: SagaRecord, *, holder_is_dead: bool = False, counts: bool = True
    ) -> Books:
        """The lease is another's or nobody's now, by somebody else's doing."""
        if self.holder is None or (new.version, new.lease_owner) == (old.version, old.lease_owner):
            return self
        must(self.over or (holder_is_dead and self.holder == _GONE), "a live lease was reclaimed")
        told = [e for e in new.log[len(old.log) :] if (e.action, e.status) == (Action.HOLDER, EntryStatus.LOST)]
        names = [(entry.version, entry.worker) for entry in told]
        must(names == [(old.version, old.lease_owner)], "the log does not tell whose lease ended without its holder")
        shared = is_shared(old.lease_owner)
        return self._replace(
            holder=None,
            over=False,
            attempts=self.attempts + (counts and self.leases > 1 and not shared),
            suspect=self.suspect or shared,
        )

    def _agree(self, old: SagaRecord, new: SagaRecord) -> None:
        try:
            rules.check_legal(new)
        except ValueError as error:
            raise Violation(str(error)) from error
        must(not old.status.finished, "a finished saga was changed")
        must(new.log[: len(old.log)] == old.log, "the log was rewritten")
        done = [(e.step, e.action) for e in new.log if e.status in _ENDS and e.action in _ACTIONS]
        must(len(done) == len(set(done)), "an action completed twice")
        must(new.version >= old.version, "the fencing token shrank")
        way = "after" if self.aborted else "before"
        fitting = new.status in (_BACKWARD if self.aborted else _FORWARD)
        must(fitting or self.resolved, f"it is {new.status} {way} aborting")
        must(new.recovery_attempts == self.attempts, f"attempts: counted {new.recovery_attempts}, not {self.attempts}")
        must(new.dead == (self.attempts >= MAXIMUM), f"dead: {new.dead} after {self.attempts} failed attempts")
        must(new.suspect == self.suspect, f"suspect: {new.suspect}, and it should be {self.suspect}")
        acted = [e.step for e in new.log if e.action is Action.ACT and e.status is EntryStatus.COMPLETED]
        must(json.loads(new.context)["booked"] == acted, "the context is not what the log tells")

    def _effects_fit(self, record: SagaRecord, effects: tuple[str, ...]) -> None:
        if self.resolved:
            return
        codes = {effect for step, effect in zip(STEPS, effects, strict=True) if step not in self.skipped}
        if record.status is SagaStatus.COMPLETED:
            must(codes <= {"done"}, f"COMPLETED, but the effects are {effects}")
        if record.status is SagaStatus.COMPENSATED:
            must("done" not in codes, f"COMPENSATED, but the effects are {effects}")


def _by_message(request: Request, answer: Answer) -> bool:
    return isinstance(answer.value, Acquired) and not request.kwargs["by_hand"]


def must(holds: bool, otherwise: str) -> None:
    if not holds:
        raise Violation(otherwise)


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """Thousands of sagas crash here, and need not tell."""
    logging.disable()
    yield
    logging.disable(logging.NOTSET)


def explore(scenario: Scenario, storage: type[MemorySagaStorage] = MemorySagaStorage) -> Exploration:
    """Explore it, with books that begin as the saga does."""
    held = Books(holder=0, leases=1, dispatched=False)
    return Explorer(scenario, held if scenario.in_place else Books(), storage).explore()


# -- the engine ---------------------------------------------------------------------------------------------------


#: How many faults at once, more or less; 2 takes minutes.
_FAULTS = int(os.environ.get("SAGAS_TEST_INTERLEAVED_FAULTS", "1"))
_DURABLE = RetryPolicy(max_attempts=2, first_delay=60)


def bounds(faults: int = _FAULTS, *, scans: int = 2, of: Sequence[str] = FAULTS, **free: int) -> Left:
    """So many faults of these kinds together, and so many failures, operations and arrivals."""
    return Left(faults=faults, scans=scans, **free, **dict.fromkeys(of, faults))


_AT_ONCE = RetryPolicy(max_attempts=2, first_delay=0)
_UNDO_FAILS = {"act car": (FAILS,), "compensate hotel": (DONE, FAILS)}
_UNDO_BOTH = {"act car": UNKNOWN[:1], "compensate car": (DONE, FAILS), "compensate hotel": (DONE, FAILS)}


def operated(
    *commands: str,
    operations: int = 1,
    operators: int = 1,
    scans: int = _FAULTS - 1,
    failures: int = 0,
    of: Sequence[str] = ("crashes", "expiries"),
    in_place: bool = True,
    **more: Any,
) -> Scenario:
    """Operators who do so many of these commands; each scan more makes it tenfold."""
    left = bounds(scans=scans, failures=failures, operations=operations, of=of)
    return Scenario(left=left, commands=commands, operators=operators, in_place=in_place, **more)


SCENARIOS = {
    "both succeed": Scenario(left=bounds()),
    "two faults": Scenario(left=bounds(_FAULTS + 1, scans=1, of=("crashes", "expiries", "cuts"))),
    "leases expire": Scenario(left=bounds(_FAULTS + 2, of=["expiries"])),
    "run in place": Scenario(left=bounds(_FAULTS + 1, scans=1), in_place=True),
    "two scans at once": Scenario(left=bounds(of=("crashes", "losses", "repeats")), scanners=2),
    "threads of one process": Scenario(
        left=bounds(_FAULTS + 1, scans=1, of=("expiries", "repeats")), owners=("A", "A")
    ),
    "code of one worker does not fit": Scenario(left=bounds(of=("crashes", "expiries", "cuts")), fits=(True, False)),
    "of version 0.1.0": Scenario(left=bounds(scans=1), of_old=True),
    "one worker holds several": Scenario(
        left=bounds(of=("crashes", "expiries", "repeats", "hands")), owners=("A/shared", "B")
    ),
    "a replica takes over": Scenario(
        left=bounds(_FAULTS + 1, of=("repeats", "expiries", "failovers")), owners=("A", "A")
    ),
    "messages of others move": Scenario(left=bounds(arrivals=2, of=("crashes", "losses", "cuts"))),
    "the first is tried again": Scenario(
        left=bounds(failures=2, scans=1, of=("crashes", "expiries", "cuts")),
        outcomes={"act hotel": (DONE, *UNKNOWN), "act car": (DONE, FAILS)},
        first_retry=_AT_ONCE,
    ),
    "the second fails": Scenario(left=bounds(scans=1), outcomes={"act car": (FAILS,)}),
    "the second fails or not": Scenario(left=bounds(failures=1), outcomes={"act car": (DONE, FAILS)}),
    "the second waits for a retry": Scenario(
        left=bounds(failures=1, scans=1), outcomes={"act car": (DONE, FAILS)}, retry=_DURABLE
    ),
    "the second is in doubt": Scenario(left=bounds(failures=1, scans=1), outcomes={"act car": UNKNOWN}),
    "the second ends its process": Scenario(left=bounds(failures=1, scans=1), outcomes={"act car": (DONE, EXITS)}),
    "the second fails past the pivot": Scenario(
        left=bounds(failures=1, scans=1), outcomes={"act car": (DONE, FAILS)}, pivot=True
    ),
    "undoing fails": Scenario(
        left=bounds(failures=1, of=("crashes", "expiries", "cuts", "hands")),
        outcomes=_UNDO_FAILS,
    ),
    "undoing waits for a retry": Scenario(
        left=bounds(failures=1, scans=1, of=("crashes", "expiries", "hands")),
        outcomes=_UNDO_FAILS,
        compensate_retry=_DURABLE,
    ),
    "the first is undone while undoing the second fails": Scenario(
        left=bounds(failures=2, scans=1, of=("crashes", "expiries", "cuts")), outcomes=_UNDO_BOTH, past_failures=True
    ),
    "its name is paused and resumed": operated("pause", "resume", operations=2, scans=1),
    "its name is paused as it starts": operated("pause", "resume", operations=2, scans=1, of=(), in_place=False),
    "two operators pause and resume": operated("pause", "resume", operations=2, operators=2, of=("crashes",)),
    "a scheduler aborts it": operated("abort", scans=2, of=(), in_place=False),
    "an operator aborts it": operated("compensate", scans=1, of=()),
    "an operator aborts it in doubt": operated("compensate", of=(), failures=1, outcomes={"act car": UNKNOWN}),
    "an operator skips an act": operated("skip hotel"),
    "an operator skips a compensation": operated("skip hotel", scans=1, of=(), failures=1, outcomes=_UNDO_FAILS),
    "an operator skips past the pivot": operated(
        "skip car", failures=1, outcomes={"act car": (DONE, FAILS)}, pivot=True
    ),
    "an operator resolves it": operated("resolve COMPENSATED"),
    "an operator retries it": operated("retry", scans=1, of=("crashes",)),
    "two operators abort it and retry it": operated("compensate", "retry", operations=2, operators=2, of=()),
    "two operators skip and resolve it": operated("skip hotel", "resolve COMPLETED", operations=2, operators=2, of=()),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SCENARIOS)
def test_every_order_keeps_the_rules(name: str, record_property: Callable[[str, object], None]):
    found = explore(SCENARIOS[name])

    explored = f"{found.schedules:.1e} schedules, {found.worlds} worlds, {found.steps} steps, {found.seconds:.1f} s"
    record_property("figure", f"interleavings: {name}: {explored}")
    assert found.violation is None, f"\n{found.violation}"
    assert found.schedules > 1_000


# -- the search itself --------------------------------------------------------------------------------------------

"""Whatever the order of two workers, scans and faults: what must hold of one saga, and that the search would notice."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, NamedTuple
from uuid import UUID

import pytest
from sagas.storage.XXX import QUEUE, Release

from sagas import MemorySagaStorage, RetryPolicy
from sagas.errors import ActionRefused, LeaseLost
from sagas.plan import Plan, PlannedStep
from sagas.progress import Action, End, EntryStatus, Perform, SagaStatus, Verdict, _next_backward, _owed, next_move
from sagas.storage.records import Acquired, ClaimResult, LogEntry, Pause, SagaRecord
from tests.faults.interleavings import After, Exploration, Explorer, Violation, World
from tests.faults.processes import (
    DONE,
    EXITS,
    FAILS,
    FAULTS,
    MAXIMUM,
    STEPS,
    UNKNOWN,
    Answer,
    LeaseAskedFor,
    Left,
    Point,
    Request,
    Scenario,
    Storage,
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
        skipped: the steps that an operator answers for.
        resolved: whether an operator ended it.
    """

    holder: int | None = None
    over: bool = False
    holds: int = 0
    attempts: int = 0
    turned: bool = False
    dispatched: bool = True
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
                self._called(number, request, world.actors[number].point)
            case "checkpoint" | "release" | "renew":
                writer = number, world.actors[number].point
                books = self._wrote(old, new, writer, request, refused=answer.error is LeaseLost)
            case "take":
                must(not (paused and _by_message(request, answer)), "a message took a saga of a paused name")
                books = self._took(old, new, number, request, answer.value)
            case "intervene":
                books = self._intervened(old, new, answer)
            case "claim_sagas" | "claim_as_seen":
                must(not (paused and answer.value.claims), "a scan dispatched a saga of a paused name")
                books = self._claimed(old, new, request, answer.value)
            case "seize_orphans":
                books = self._seized(old, new, holder_is_dead=True)
            case "unclaim" if new != old:
                books = self._replace(dispatched=False)
        if new is not old and new != old:
            books._agree(old, new)
        books._effects_fit(new, after.effects)
        return books

    def _called(self, number: int | None, request: Request, point: Point) -> None:
        call = request.args[0]
        asked = point.parent is not None and point.parent.request.name == "asked_back?" and point.answers[-1].value
        must(not asked, "the holder went on although it was asked to give the saga back")
        late = number != self.holder
        must(late or call.step_name not in self.skipped, "code did a step that an operator had skipped")
        must(call.idempotency_key == f"{call.saga_id}:{call.step_name}:{request.name}", "the key is another")
        if request.name == "compensate":
            must(self.turned, "undone although the saga has not turned back")
        elif number == self.holder:
            must(not self.turned, "strict backward recovery: the saga ran forward after it had turned back")

    def _wrote(
        self, old: SagaRecord, new: SagaRecord, writer: tuple[int | None, Point], request: Request, *, refused: bool
    ) -> Books:
        number, point = writer
        if refused:
            must(number != self.holder, f"the fence: a {request.name} of the holder was refused")
            must(new == old, "the fence: what was refused changed something")
            return self
        must(number == self.holder, f"the fence: a {request.name} was accepted from a holder that had lost its lease")
        if request.name == "renew":
            return self._replace(over=False)
        books = self
        if new.lease_owner != old.lease_owner:
            books = self._replace(holder=None, dispatched=new.lease_owner == QUEUE)
        if request.name == "release":
            # Giving back is a failed attempt only after an error that is no step's.
            return books._replace(attempts=self.attempts + (point.answers[-1].error is SystemExit))
        entry = request.args[1]
        if new.status.finished or entry.status is EntryStatus.COMPLETED:
            attempts = 0
        else:
            attempts = self.attempts + (entry.verdict is Verdict.GIVE_UP)
        turned = self.turned or (entry is not None and entry.verdict is Verdict.TURN_BACK)
        return books._replace(attempts=attempts, turned=turned)

    def _took(self, old: SagaRecord, new: SagaRecord, number: int | None, request: Request, result: object) -> Books:
        if isinstance(result, Refused):
            return self._seized(old, new)
        assert isinstance(result, Acquired)
        version, by_hand = request.kwargs["version"], request.kwargs["by_hand"]
        must(version in (None, old.version), "a message took the saga at a version that it was not sent for")
        must(new.version > old.version, "the fencing token did not grow")
        books = self._seized(old, new)
        attempts = min(books.attempts, MAXIMUM - 1) if by_hand else books.attempts
        must(attempts < MAXIMUM, "a dead saga was taken")
        return books._replace(holder=number, over=False, holds=self.holds + 1, attempts=attempts, dispatched=False)

    def _intervened(self, old: SagaRecord, new: SagaRecord, answer: Answer) -> Books:
        if answer.error is not None or answer.value is not None:
            must(new == old, "an operator's action that was refused changed something")
            return self
        must(new.version > old.version, "the fencing token did not grow")
        (entry,) = new.log[len(old.log) :]
        books = self._seized(old, new)
        ended = new.status.finished or entry.status is not EntryStatus.FAILED
        return books._replace(
            holds=books.holds + 1,
            attempts=0 if ended else min(books.attempts, MAXIMUM - 1),
            turned=books.turned or entry.verdict is Verdict.TURN_BACK,
            dispatched=False,
            skipped=books.skipped | ({entry.step} if entry.status is EntryStatus.SKIPPED else set()),
            resolved=entry.step.startswith("resolve"),
        )

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
        ends = (EntryStatus.COMPLETED, EntryStatus.SKIPPED)
        done = [(e.step, e.action) for e in new.log if e.status in ends and e.action is not Action.OPERATOR]
        must(len(done) == len(set(done)), "an action completed twice")
        must(new.version >= old.version, "the fencing token shrank")
        way = "after" if self.turned else "before"
        fitting = new.status in (_BACKWARD if self.turned else _FORWARD)
        must(fitting or self.resolved, f"it is {new.status} {way} turning back")
        must(new.recovery_attempts == self.attempts, f"attempts: counted {new.recovery_attempts}, not {self.attempts}")
        must(new.dead == (self.attempts >= MAXIMUM), f"dead: {new.dead} after {self.attempts} failed attempts")
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
    held = Books(holder=0, holds=1, dispatched=False)
    return Explorer(scenario, held if scenario.in_place else Books(), storage).explore()


# -- the engine ---------------------------------------------------------------------------------------------------


#: How many faults at once, more or less; 2 takes minutes.
_FAULTS = int(os.environ.get("SAGAS_TEST_INTERLEAVED_FAULTS", "1"))
_DURABLE = RetryPolicy(max_attempts=2, first_delay=60)


def bounds(
    faults: int = _FAULTS, *, scans: int = 2, failures: int = 0, operations: int = 0, of: Sequence[str] = FAULTS
) -> Left:
    """So many faults of these kinds together."""
    return Left(faults=faults, scans=scans, failures=failures, operations=operations, **dict.fromkeys(of, faults))


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
    "an operator turns it back": operated("compensate", scans=1, of=()),
    "an operator turns it back in doubt": operated("compensate", of=(), failures=1, outcomes={"act car": UNKNOWN}),
    "an operator skips an act": operated("skip hotel"),
    "an operator skips a compensation": operated("skip hotel", scans=1, of=(), failures=1, outcomes=_UNDO_FAILS),
    "an operator skips past the pivot": operated(
        "skip car", failures=1, outcomes={"act car": (DONE, FAILS)}, pivot=True
    ),
    "an operator resolves it": operated("resolve COMPENSATED"),
    "an operator retries it": operated("retry", scans=1, of=("crashes",)),
    "two operators turn it back and retry it": operated("compensate", "retry", operations=2, operators=2, of=()),
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


class WithoutFence(MemorySagaStorage):
    """Accepts what any holder writes."""

    @contextmanager
    def _held(self, hold: Hold) -> Iterator[SagaRecord]:
        yield self._sagas[hold.saga_id]


class FencedByOwnerAlone(MemorySagaStorage):
    """Does not look at the version."""

    @contextmanager
    def _held(self, hold: Hold) -> Iterator[SagaRecord]:
        if self._sagas[hold.saga_id].lease_owner != hold.owner:
            raise LeaseLost("another's")
        yield self._sagas[hold.saga_id]


class FencedByVersionAlone(MemorySagaStorage):
    """Does not look at the owner, so what a scan seized is the holder's still."""

    @contextmanager
    def _held(self, hold: Hold) -> Iterator[SagaRecord]:
        if self._sagas[hold.saga_id].version != hold.version:
            raise LeaseLost("another's")
        yield self._sagas[hold.saga_id]


class CountsNoCrashes(MemorySagaStorage):
    """Seizes a lease as if its holder had given it back."""

    def _seize(self, saga: SagaRecord, max_recovery_attempts: int) -> SagaRecord:
        super()._seize(saga, max_recovery_attempts=99)
        return self._put(self._sagas[saga.id], recovery_attempts=saga.recovery_attempts)


class CountsTheFirstCrash(MemorySagaStorage):
    """Counts the crash of the first hold too."""

    def _seize(self, saga: SagaRecord, max_recovery_attempts: int) -> SagaRecord:
        seized = super()._seize(saga, max_recovery_attempts)
        return self._put(seized, recovery_attempts=saga.recovery_attempts + (saga.lease_owner is not None))


class ForgetsTheInterruption(MemorySagaStorage):
    """Seizes without a word that the step in progress may have begun."""

    def _seize(self, saga: SagaRecord, max_recovery_attempts: int) -> SagaRecord:
        return self._put(super()._seize(saga, max_recovery_attempts), interrupted=saga.interrupted)


class MarksNothing(MemorySagaStorage):
    """Claims without the mark of dispatch."""

    def claim_sagas(self, **arguments: Any) -> ClaimResult:
        result = super().claim_sagas(**arguments)
        for claim in result.claims:
            self._put(self._sagas[claim.saga_id], lease_owner=None, available_at=self._clock())
        return result


class MissesNoMessage(MemorySagaStorage):
    """Believes that every message still waits."""

    def claim_sagas(self, **arguments: Any) -> ClaimResult:
        return super().claim_sagas(**arguments | {"messages_waiting": 9})


class TakesForAnyMessage(MemorySagaStorage):
    """Does not look at the version that a message was sent for."""

    def take(self, saga_id: UUID, **arguments: Any) -> Acquired | Refused:
        found = self._sagas[saga_id]
        return super().take(saga_id, **arguments | {"version": found.version})


class ResetsNoAttempts(MemorySagaStorage):
    """Counts attempts without looking at progress."""

    def checkpoint(self, hold: Hold, *arguments: Any, **more: Any) -> None:
        before = self._sagas[hold.saga_id].recovery_attempts
        super().checkpoint(hold, *arguments, **more)
        if not self._sagas[hold.saga_id].status.finished:
            self._put(self._sagas[hold.saga_id], recovery_attempts=before)


class ScansFinishNoResume(MemorySagaStorage):
    """Leaves what a resume that was cut off has left parked."""

    def claim_sagas(self, **arguments: Any) -> ClaimResult:
        resumes, self._resumes = self._resumes, set()
        result = super().claim_sagas(**arguments)
        self._resumes = resumes
        return result


class ParksWithoutTheScansLock(MemorySagaStorage):
    """Parks by the pauses that there were when the scan began."""

    def claim_as_seen(self, seen: tuple[Pause, ...], **arguments: Any) -> ClaimResult:
        pauses, self._pauses = self._pauses, {pause.name: pause for pause in seen} | self._pauses
        result = self.claim_sagas(**arguments)
        self._pauses = pauses
        return result


class DispatchesThePaused(MemorySagaStorage):
    """Scans without a look at the pauses."""

    def claim_sagas(self, **arguments: Any) -> ClaimResult:
        pauses, self._pauses = self._pauses, {}
        result = super().claim_sagas(**arguments)
        self._pauses = pauses
        return result


class TakesThePaused(MemorySagaStorage):
    """Takes without a look at the pauses."""

    def take(self, saga_id: UUID, **arguments: Any) -> Acquired | Refused:
        pauses, self._pauses = self._pauses, {}
        result = super().take(saga_id, **arguments)
        self._pauses = pauses
        return result


class InterveneInALiveLease(MemorySagaStorage):
    """Lets an operator write to what a worker holds."""

    def intervene(self, saga_id: UUID, *arguments: Any, **more: Any) -> Refused | None:
        saga = self._sagas[saga_id]
        if not saga.status.finished:
            self._put(saga, lease_owner=None)
        return super().intervene(saga_id, *arguments, **more)


class InterveneInTwoWrites(MemorySagaStorage):
    """Keeps the taking, whatever becomes of the writing."""

    def intervene(self, saga_id: UUID, decide: Any, **arguments: Any) -> Refused | None:
        try:
            return super().intervene(saga_id, decide, **arguments)
        except ActionRefused:
            self.take(saga_id, lease_seconds=9.0, by_hand=True, **arguments)
            raise


class InterveneAtTheSameVersion(MemorySagaStorage):
    """Does not fence the holder off that was cut off."""

    def intervene(self, saga_id: UUID, *arguments: Any, **more: Any) -> Refused | None:
        version = self._sagas[saga_id].version
        refused = super().intervene(saga_id, *arguments, **more)
        if refused is None:
            self._put(self._sagas[saga_id], version=version)
        return refused


class ForgetsASkipInTheLog(MemorySagaStorage):
    """Writes that a step was skipped as a note."""

    def checkpoint(self, hold: Hold, entry: LogEntry | None, **more: Any) -> None:
        if entry is not None and entry.status is EntryStatus.SKIPPED:
            entry = replace(entry, action=Action.OPERATOR)
        super().checkpoint(hold, entry, **more)


def forgets_why(plan: Plan, log: Sequence[LogEntry]) -> Perform | End:
    """Goes on as if no earlier holder had decided to turn back."""
    return next_move(plan, [entry for entry in log if not (entry.version and entry.verdict)])


def acts_of_code(log: Sequence[LogEntry]) -> list[str]:
    """Counts no skipped step as done."""
    return [e.step for e in log if e.action is Action.ACT and e.status is EntryStatus.COMPLETED]


def compensates_skipped(plan: Plan, log: Sequence[LogEntry], done: Sequence[str]) -> Perform | End:
    """Goes back over what was skipped, too."""
    return _next_backward(plan, [entry for entry in log if entry.status is not EntryStatus.SKIPPED], done)


def forgets_what_was_set_aside(plan: Plan, log: Sequence[LogEntry], done: Sequence[str]) -> list[PlannedStep]:
    """Owes no compensation whose attempts were spent once."""
    spent = {entry.step for entry in log if entry.verdict is Verdict.SET_ASIDE}
    return [step for step in _owed(plan, log, done) if step.name not in spent]


def without_doubt(**entry: Any) -> LogEntry:
    """Turns back as if no step could have begun."""
    return LogEntry(**entry | {"in_doubt": False})


def settles(*, status: SagaStatus, interrupted: bool) -> Release:
    """Gives back as if no step could have begun."""
    return Release(status=status)


_EXPIRING = Scenario(left=bounds(2, of=["expiries"]))
_SPLIT = Scenario(left=bounds(1, failures=1), outcomes={"act car": (DONE, FAILS)})
_FAILING = Scenario(left=bounds(1), outcomes={"act car": (FAILS,)})
_IN_DOUBT = Scenario(left=bounds(1), outcomes={"act car": UNKNOWN})
_PAUSING = operated("pause", "resume", operations=2, scans=1, of=("crashes",), in_place=False)
_RETRIED = operated("retry", scans=1, failures=1, outcomes={"act car": (DONE, FAILS)})
_UNDOING_BOTH = SCENARIOS["the first is undone while undoing the second fails"]
_SKIPPING_BACK = SCENARIOS["an operator skips a compensation"]
_SKIPPING = SCENARIOS["an operator skips an act"]
_FENCE = "was accepted from a holder that had lost its lease"


@pytest.mark.parametrize(
    ("mutant", "scenario", "rule"),
    [
        (WithoutFence, _EXPIRING, _FENCE),
        (FencedByOwnerAlone, replace(_EXPIRING, owners=("A", "A")), _FENCE),
        (FencedByVersionAlone, _EXPIRING, _FENCE),
        (CountsNoCrashes, _EXPIRING, "attempts: counted 0, not 1"),
        (CountsTheFirstCrash, _EXPIRING, "attempts: counted 1, not 0"),
        (ResetsNoAttempts, _EXPIRING, "attempts: counted 1, not 0"),
        (ForgetsTheInterruption, _SPLIT, "COMPENSATED, but the effects are ('undone', 'done')"),
        (MarksNothing, _EXPIRING, "a second message for the same saga"),
        (MissesNoMessage, _EXPIRING, "the saga never ends"),
        (TakesForAnyMessage, Scenario(left=bounds(1)), "at a version that it was not sent for"),
        (ScansFinishNoResume, _PAUSING, "the saga never ends"),
        (DispatchesThePaused, _PAUSING, "a scan dispatched a saga of a paused name"),
        (TakesThePaused, _PAUSING, "a message took a saga of a paused name"),
        (InterveneInALiveLease, operated("compensate"), "a live lease was seized"),
        (
            InterveneInTwoWrites,
            SCENARIOS["two operators turn it back and retry it"],
            "that was refused changed something",
        ),
        (InterveneAtTheSameVersion, operated("retry"), "the fencing token did not grow"),
        (ForgetsASkipInTheLog, _SKIPPING, "code did a step that an operator had skipped"),
    ],
)
def test_a_storage_that_breaks_a_rule_is_found_out(mutant: type[MemorySagaStorage], scenario: Scenario, rule: str):
    found = explore(scenario, mutant)

    print(f"\n{found.violation}")
    assert rule in (found.violation or "")


@pytest.mark.parametrize(
    ("name", "broken", "scenario", "rule"),
    [
        ("progress.turned_back", lambda log: False, _FAILING, "RUNNING after turning back"),
        ("progress.turned_back", lambda log: log[-1:] and log[-1].verdict, _FAILING, "RUNNING after turning back"),
        ("execution.next_move", forgets_why, _FAILING, "the saga ran forward after it had turned back"),
        ("failures.OutcomeUnknown", KeyError, _IN_DOUBT, "COMPENSATED, but the effects are ('undone', 'done')"),
        ("execution._Execution._took_effect", lambda *_, **__: False, _FAILING, "an action completed twice"),
        ("progress._done_acts", acts_of_code, _SKIPPING, "code did a step that an operator had skipped"),
        (
            "progress._next_backward",
            compensates_skipped,
            _SKIPPING_BACK,
            "code did a step that an operator had skipped",
        ),
        ("progress._owed", forgets_what_was_set_aside, _UNDOING_BOTH, "COMPENSATED, but the effects are"),
        ("operating.LogEntry", without_doubt, operated("compensate"), "COMPENSATED, but the effects are"),
        ("operating.Release", settles, _RETRIED, "COMPENSATED, but the effects are"),
    ],
)
def test_an_engine_that_breaks_a_rule_is_found_out(
    monkeypatch: pytest.MonkeyPatch, name: str, broken: Any, scenario: Scenario, rule: str
):
    monkeypatch.setattr(f"sagas.{name}", broken)

    found = explore(scenario)

    print(f"\n{found.violation}")
    assert rule in (found.violation or "")


def test_a_scan_that_parks_by_an_earlier_look_at_the_pauses_is_found_out(monkeypatch: pytest.MonkeyPatch):
    def claim_in_two_steps(self: Any, **arguments: Any) -> Any:
        return self.process.ask("claim_as_seen", self.pauses(), **arguments)

    monkeypatch.setattr(Storage, "claim_sagas", claim_in_two_steps)

    found = explore(_PAUSING, ParksWithoutTheScansLock)

    print(f"\n{found.violation}")
    assert "the saga never ends" in (found.violation or "")


def test_a_holder_that_does_not_give_back_what_it_is_asked_for_is_found_out(monkeypatch: pytest.MonkeyPatch):
    def deaf(self: Any) -> bool:
        return bool(self.process.ask("asked_back?") and False)

    monkeypatch.setattr(LeaseAskedFor, "asked_back", property(deaf, lambda self, value: None))

    found = explore(operated("compensate"))

    print(f"\n{found.violation}")
    assert "went on although it was asked to give the saga back" in (found.violation or "")


def test_a_service_that_forgets_what_it_undid_may_be_left_with_a_late_effect():
    # No engine can call a request back that a frozen worker has sent: the service must refuse it, by its key.
    found = explore(replace(_SPLIT, forgets=True))

    print(f"\n{found.violation}")
    assert "COMPENSATED, but the effects are" in (found.violation or "")


def test_a_violation_is_told_by_the_shortest_schedule():
    found = explore(Scenario(left=bounds(1, of=["expiries"])), WithoutFence)

    assert found.violation is not None
    assert found.violation.splitlines()[2:] == [
        "  3. start: send()",
        "  4. A receives the message for version 0",
        "  5. A: take(version=0) -> taken at version 1, RUNNING",
        "  6. time passes, and what A holds is over",
        "  7. scan 1: claim_sagas(pending=False, messages_waiting=0) -> 1 claimed, 0 died, 0 missing",
        "  8. A: act hotel -> ok",
        "  9. A: checkpoint(act hotel completed, RUNNING) -> ok",
        "     the fence: a checkpoint was accepted from a holder that had lost its lease",
    ]

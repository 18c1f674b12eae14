"""Test the rules of one saga for every order of two workers, scans and faults, and that the search finds violations."""

from __future__ import annotations

import gc
import json
import logging
import os
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any, NamedTuple
from uuid import UUID

import pytest

from sagas import MemorySagaStorage, RetryPolicy
from sagas.errors import ActionRefused, InboxMoved
from sagas.graph import Graph, Node
from sagas.inbox import Inbox
from sagas.progress import Action, Entry, EntryStatus, Progress, SagaStatus, Verdict
from sagas.storage import rules
from sagas.storage.answers import Acquired, Applied, ClaimResult, NotAcquired
from sagas.storage.leases import Lease, LeaseRequest, is_shared
from sagas.storage.records import Claim, LogEntry, Pause, SagaRecord, SagaState, Signal, SignalKind
from sagas.storage.transitions import Change, Ended, Progressed, Suspended, Transition, change_of
from tests.faults.interleavings import MUCH_LATER, After, Exploration, Explorer, Sent, Violation, World, armed
from tests.faults.processes import (
    DONE,
    EXITS,
    FAILS,
    FALLBACK,
    FAULTS,
    MAXIMUM,
    NOW,
    STEPS,
    UNKNOWN,
    WAIT,
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
#: The number of a holder that has died while its lease still runs.
_GONE = -1


class Books(NamedTuple):
    """The rules, and the part of the past that they need.

    Attributes:
        holder: the saga's holder until another process acquires or reclaims the saga, independent of the record.
        over: whether the time of the holder's lease is over.
        leases: number of times that the saga was acquired.
        attempts: failed attempts without progress.
        aborted: whether the saga aborted.
        dispatched: whether a message was to be sent for the saga that no process has handled yet.
        passed: whether a worker received another message that cannot have overtaken this saga's message.
        suspect: whether a process lost the saga that also held others, and the saga has made no progress since.
        skipped: the steps that an operator skipped.
        resolved: whether an operator ended it.
        came: whether a signal was stored when the holder acquired the saga.
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
    came: bool = False

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
                if answer.error is InboxMoved:
                    must(new == old, "an inbox that moved: what was refused changed something")
                    must(request.args[1].seen != len(world.stored.sent.delivered), "refused although all was read")
                else:
                    writer = number, world.actors[number].point
                    books = self._wrote(old, new, writer, request, refused=answer.error is not None)
                if answer.error is None and request.name == "apply":
                    self._came_in_time(old, new, request, after.sent)
            case "acquire":
                must(not (paused and _by_message(request, answer)), "a message acquired a saga of a paused name")
                books = self._acquired(old, new, number, request, answer.value)
                if books.leases > self.leases:
                    books = books._replace(came=_any_signal(after.sent.signals))
            case "add_signal":
                must(answer.value == (after.sent != world.stored.sent), "a signal was not stored, or another was")
                must(len(after.sent.signals) == len(set(after.sent.signals)), "a signal was stored twice")
                must(new == old, "storing a signal changed its saga")
            case "deliver":
                books = self._delivered(old, new, answer.value)
            case "operate":
                books = self._operated(old, new, answer, world.actors[number].point.activity.command)
            case "increment_recovery_attempts" if answer.error is None:
                books = self._lost_lease(old, new, counts=False)
                books = books._replace(attempts=books.attempts + 1, aborted=True)
            case "claim_sagas" | "claim_as_seen":
                must(not (paused and answer.value.claims), "a scan dispatched a saga of a paused name")
                books = self._claimed(world, new, answer.value)
            case "note_delivery" if number is None:
                books = self._replace(passed=self.passed or request.args[0].saga_id == MUCH_LATER)
            case "reclaim":
                books = self._lost_lease(old, new, holder_is_dead=True)
            case "release_claims" if new != old:
                books = self._replace(dispatched=False)
        if (old.state, new.state) == (SagaState.QUEUED, SagaState.PAUSED):
            books = books._replace(dispatched=False)  # its message is used up, or counts as lost
        if new is not old and new != old:
            books._agree(old, new)
        books._leaves_none_unread(new, after.sent)
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
        # The attempt failed if a step's attempts are spent for now, or after an error that no step raised.
        fails = any(entry.verdict is Verdict.FAIL_ATTEMPT for entry in events) or point.answers[-1].error is SystemExit
        return books._replace(
            attempts=(0 if got_on else self.attempts) + fails,
            suspect=self.suspect and not got_on,
            aborted=self.aborted or any(entry.verdict is Verdict.ABORT for entry in events),
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

    def _delivered(self, old: SagaRecord, new: SagaRecord, claims: Sequence[Claim]) -> Books:
        if new.state is old.state:
            must(not claims, "the queue: a message for a saga that was not woken")
            return self
        must(not self.dispatched, "the queue: a second message for the same saga")
        return self._replace(dispatched=True, attempts=0 if old.dead else self.attempts)

    def _came_in_time(self, old: SagaRecord, new: SagaRecord, request: Request, sent: Sent) -> None:
        """Judge how a wait or the saga ended: not before its time, and not beside what came before."""
        for entry in new.log[len(old.log) :]:
            if entry.step == WAIT and entry.signal is None and entry.status is not EntryStatus.ARMED:
                begun = next(e for e in old.log if e.step == WAIT)
                must(begun.created_at != NOW, "a wait or a sleep ended before its time")
                came = entry.message is not None and (self.came or _any_signal(sent.delivered))
                must(not came, "a wait timed out although a signal had come")
            if entry.step == "deadline":
                must(old.deadline_at == NOW, "the deadline ended the saga before its time")
            if entry.signal is not None:
                must(entry.signal["id"] in {signal.id for signal in sent.signals}, "what was received was never sent")
        if new.status is SagaStatus.COMPLETED:
            cancels = {signal.id for signal in sent.delivered if signal.kind is SignalKind.CANCEL}
            told = {entry.signal["id"] for entry in new.log if entry.signal is not None}
            must(cancels <= told, "it completed, and its log does not tell of a request to cancel")

    def _leaves_none_unread(self, record: SagaRecord, sent: Sent) -> None:
        must(record.inbox == len(sent.delivered), "the inbox does not count what was delivered")
        told = [entry.signal["id"] for entry in record.log if entry.signal is not None]
        must(len(told) == len(set(told)), "a signal was received twice")
        if record.state is SagaState.WAITING and not self.aborted:
            waits = armed(record) is not None
            unread = {s.id for s in sent.delivered if s.kind is SignalKind.CANCEL or waits} - set(told)
            must(not unread, "it waits beside a signal that nobody has read")

    def _lost_lease(
        self, old: SagaRecord, new: SagaRecord, *, holder_is_dead: bool = False, counts: bool = True
    ) -> Books:
        """Handle that another process took the lease, or ended it."""
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
        must(not old.status.finished or replace(new, inbox=old.inbox) == old, "a finished saga was changed")
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
        acted = [e for e in new.log if e.action is Action.ACT and e.status is EntryStatus.COMPLETED]
        context = {
            "booked": [entry.step for entry in acted if entry.step != WAIT],
            "note": next((json.loads(e.signal["payload"]) for e in acted if e.signal is not None), None),
        }
        must(json.loads(new.context) == context, "the context is not what the log tells")

    def _effects_fit(self, record: SagaRecord, effects: tuple[str, ...]) -> None:
        if self.resolved:
            return
        names = zip((*STEPS, FALLBACK), effects, strict=False)
        codes = {step: effect for step, effect in names if step not in self.skipped}
        if record.status is SagaStatus.COMPLETED:
            # One of a step and its fallback took effect. The step that it fell back from may have, too.
            places = [{codes[step] for step in place if step in codes} for place in (STEPS[:1], (STEPS[1], FALLBACK))]
            right = all(not place or "done" in place for place in places) and "undone" not in codes.values()
            must(right, f"COMPLETED, but the effects are {effects}")
        if record.status is SagaStatus.COMPENSATED:
            must("done" not in codes.values(), f"COMPENSATED, but the effects are {effects}")


def _by_message(request: Request, answer: Answer) -> bool:
    return isinstance(answer.value, Acquired) and not request.kwargs["by_hand"]


def _any_signal(sent: Sequence[Signal]) -> bool:
    return any(signal.kind is SignalKind.SIGNAL for signal in sent)


def must(holds: bool, otherwise: str) -> None:
    if not holds:
        raise Violation(otherwise)


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """Silence the log lines of thousands of intended crashes, and collect no garbage: worlds live until the end."""
    logging.disable()
    gc.disable()
    yield
    gc.enable()
    logging.disable(logging.NOTSET)


def explore(scenario: Scenario, storage: type[MemorySagaStorage] = MemorySagaStorage) -> Exploration:
    """Explore the scenario, with a judge whose state matches the saga's start."""
    held = Books(holder=0, leases=1, dispatched=False)
    return Explorer(scenario, held if scenario.in_place else Books(), storage).explore()


# -- the engine ---------------------------------------------------------------------------------------------------


#: Additional number of faults in each exploration; 2 takes minutes.
_FAULTS = int(os.environ.get("SAGAS_TEST_INTERLEAVED_FAULTS", "1"))
_DURABLE = RetryPolicy(max_attempts=2, first_delay=60)


def bounds(faults: int = _FAULTS, *, scans: int = 1, of: Sequence[str] = FAULTS, **free: int) -> Left:
    """Return bounds: so many faults of these kinds together, and so many failures, operations and arrivals."""
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
    """Return a scenario in which operators issue so many of these commands.

    Each further scan makes the exploration ten times as long.
    """
    left = bounds(scans=scans, failures=failures, operations=operations, of=of)
    return Scenario(left=left, commands=commands, operators=operators, in_place=in_place, **more)


def sent_to(
    *sent: str,
    signals: int = 1,
    senders: int = 1,
    scans: int = 1,
    of: Sequence[str] = ("crashes", "cuts"),
    wait: str | None = "for ever",
    operations: int = 0,
    failures: int = 0,
    **more: Any,
) -> Scenario:
    """Return a scenario in which programs send so many of these signals and requests to a saga that may wait."""
    left = bounds(scans=scans, signals=signals, operations=operations, failures=failures, of=of)
    return Scenario(left=left, sent=sent, senders=senders, wait=wait, in_place=True, **more)


SCENARIOS = {
    "both succeed": Scenario(left=bounds()),
    "two faults": Scenario(left=bounds(_FAULTS + 1, scans=1, of=("crashes", "expiries", "cuts"))),
    "leases expire": Scenario(left=bounds(_FAULTS + 2, of=["expiries"])),
    "run in place": Scenario(left=bounds(_FAULTS + 1, scans=1), in_place=True),
    "two scans at once": Scenario(left=bounds(scans=2, of=("crashes", "losses", "repeats")), scanners=2),
    "threads of one process": Scenario(
        left=bounds(_FAULTS + 1, scans=1, of=("expiries", "repeats")), owners=("A", "A")
    ),
    "code of one worker does not fit": Scenario(left=bounds(of=("crashes", "expiries", "cuts")), fits=(True, False)),
    "of version 0.1.0": Scenario(left=bounds(scans=1), of_old=True),
    "one worker holds several": Scenario(
        left=bounds(scans=2, of=("crashes", "expiries", "repeats", "hands")), owners=("A/shared", "B")
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
    "the second falls back": Scenario(
        left=bounds(failures=2, scans=1, of=("crashes", "expiries", "cuts")),
        outcomes={"act car": (FAILS, *UNKNOWN), "act bus": (DONE, FAILS, *UNKNOWN)},
        fallback=True,
    ),
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
    "a scheduler aborts it": operated("abort", scans=1, of=(), in_place=False),
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
    "a signal is sent twice": sent_to("signal 1", signals=2, of=("crashes",)),
    "two signals are sent at once": sent_to("signal 1", "signal 2", signals=2, senders=2, scans=0, of=()),
    "a signal or a timeout aborts it": sent_to("signal 1", wait="abort", of=("cuts",)),
    "a signal comes or it goes on": sent_to("signal 1", wait="go on", of=("crashes",)),
    "a signal and a request to cancel": sent_to("signal 1", "cancel 1", signals=2, scans=0, of=("crashes",)),
    "it sleeps and is cancelled": sent_to("cancel 1", wait="sleep", of=("expiries",)),
    "it is cancelled in doubt": sent_to("cancel 1", wait=None, failures=1, scans=0, outcomes={"act car": UNKNOWN}),
    "it is cancelled past its pivot": sent_to("cancel 1", "cancel 2", signals=2, scans=0, wait=None, pivot=True),
    "a signal comes as it waits for a retry": sent_to(
        "signal 1", wait=None, failures=1, outcomes={"act car": (DONE, FAILS)}, retry=_DURABLE
    ),
    "it has a deadline": sent_to("signal 1", deadline=True, of=("crashes",)),
    "its name is paused as a signal comes": sent_to(
        "signal 1", scans=0, operations=2, commands=("pause", "resume"), of=("crashes",)
    ),
    "an operator skips a wait or aborts it": sent_to(
        "signal 1", wait="abort", operations=1, scans=0, commands=("skip courier", "compensate"), of=()
    ),
    "a scheduler aborts what waits": sent_to("signal 1", operations=1, scans=1, commands=("abort",), of=()),
}


#: These are explored with a second scan by `make proofs`: each takes five times as long as with one.
TWICE_SCANNED = (
    "both succeed",
    "leases expire",
    "code of one worker does not fit",
    "a replica takes over",
    "messages of others move",
    "the second fails or not",
    "undoing fails",
    "a scheduler aborts it",
)


@pytest.mark.slow(5)
@pytest.mark.parametrize("name", SCENARIOS)
def test_every_order_keeps_the_rules(name: str, record_property: Callable[[str, object], None]):
    keeps_the_rules(name, SCENARIOS[name], record_property)


@pytest.mark.proofs
@pytest.mark.slow(10)
@pytest.mark.parametrize("name", TWICE_SCANNED)
def test_every_order_with_two_scans_keeps_the_rules(name: str, record_property: Callable[[str, object], None]):
    scenario = SCENARIOS[name]

    keeps_the_rules(name, replace(scenario, left=scenario.left._replace(scans=2)), record_property)


def keeps_the_rules(name: str, scenario: Scenario, record_property: Callable[[str, object], None]) -> None:
    found = explore(scenario)

    explored = f"{found.schedules:.1e} schedules, {found.worlds} worlds, {found.steps} steps, {found.seconds:.1f} s"
    record_property("figure", f"interleavings: {name}: {explored}")
    assert found.violation is None, f"\n{found.violation}"
    assert found.schedules > 1_000


# -- the search itself --------------------------------------------------------------------------------------------
class WithoutFence(MemorySagaStorage):
    """Accepts what any holder writes."""

    def _held(self, lease: Lease) -> SagaRecord:
        return self._sagas[lease.saga_id]


class ResetsNoAttempts(MemorySagaStorage):
    """Counts attempts without looking at progress."""

    def apply(self, lease: Lease, transition: Transition) -> Applied:
        before = self._sagas[lease.saga_id].recovery_attempts
        applied = super().apply(lease, transition)
        after = self._sagas[lease.saga_id]
        if not after.status.finished:
            self._put(replace(after, recovery_attempts=before))
        return applied


class TellsNobodyOfLostHolders(MemorySagaStorage):
    """Reclaims without a row in the log."""

    def _log(self, saga: SagaRecord, events: Sequence[LogEntry]) -> SagaRecord:
        return super()._log(saga, [event for event in events if event.status is not EntryStatus.LOST])


class ForgetsWhatWasInFlight(MemorySagaStorage):
    """Reclaims without a word that the step in progress may have begun."""

    def _log(self, saga: SagaRecord, events: Sequence[LogEntry]) -> SagaRecord:
        lost = EntryStatus.LOST
        return super()._log(saga, [replace(e, in_flight=()) if e.status is lost else e for e in events])


class QueuesNothing(MemorySagaStorage):
    """Claims and leaves the saga ready."""

    def claim_sagas(self, **arguments: Any) -> ClaimResult:
        result = super().claim_sagas(**arguments)
        for claim in result.claims:
            self._put(replace(self._sagas[claim.saga_id], state=SagaState.READY, available_at=self._clock()))
        return result


class ProbesWhileMessagesMove(MemorySagaStorage):
    """Ignores when the last message reached a worker."""

    def claim_sagas(self, **arguments: Any) -> ClaimResult:
        deliveries = self._deliveries
        self._deliveries = {pending: (newest, at - timedelta(hours=1)) for pending, (newest, at) in deliveries.items()}
        result = super().claim_sagas(**arguments)
        self._deliveries = deliveries
        return result


class NotesNoStarts(MemorySagaStorage):
    """Does not know the time at which a message of `start` was queued."""

    def note_delivery(self, claim: Claim) -> None:
        super().note_delivery(replace(claim, saga_id=UUID(int=0)))


class AcquiresForAnyMessage(MemorySagaStorage):
    """Ignores the version of a message."""

    def acquire(self, saga_id: UUID, request: LeaseRequest, **arguments: Any) -> Acquired | NotAcquired:
        found = self._sagas[saga_id]
        return super().acquire(saga_id, request, **arguments | {"version": found.version})


class AcquiresTheSuspect(MemorySagaStorage):
    """Lets a process that holds other sagas acquire suspect sagas."""

    def acquire(self, saga_id: UUID, request: LeaseRequest, **arguments: Any) -> Acquired | NotAcquired:
        found = self._sagas[saga_id]
        if not found.suspect:
            return super().acquire(saga_id, request, **arguments)
        self._put(replace(found, suspect=False))
        acquired = super().acquire(saga_id, request, **arguments)
        self._put(replace(self._sagas[saga_id], suspect=True))
        return acquired


class ScansFreeNothing(MemorySagaStorage):
    """Leaves sagas paused after a resume was cut off."""

    def claim_sagas(self, **arguments: Any) -> ClaimResult:
        before = self._sagas
        self._sagas = {saga_id: saga for saga_id, saga in before.items() if saga.state is not SagaState.PAUSED}
        result = super().claim_sagas(**arguments)
        self._sagas = before | self._sagas
        return result


class ScansByAnEarlierLook(MemorySagaStorage):
    """Claims by the pauses at the beginning of the scan."""

    def claim_as_seen(self, seen: tuple[Pause, ...], **arguments: Any) -> ClaimResult:
        pauses, self._pauses = self._pauses, {pause.name: pause for pause in seen}
        result = self.claim_sagas(**arguments)
        self._pauses = pauses
        return result


class DispatchesThePaused(MemorySagaStorage):
    """Ignores pauses in scans."""

    def claim_sagas(self, **arguments: Any) -> ClaimResult:
        pauses, self._pauses = self._pauses, {}
        result = super().claim_sagas(**arguments)
        self._pauses = pauses
        return result


class AcquiresThePaused(MemorySagaStorage):
    """Ignores pauses when it acquires a saga."""

    def acquire(self, saga_id: UUID, request: LeaseRequest, **arguments: Any) -> Acquired | NotAcquired:
        pauses, self._pauses = self._pauses, {}
        result = super().acquire(saga_id, request, **arguments)
        self._pauses = pauses
        return result


class OperatesInALiveLease(MemorySagaStorage):
    """Lets an operator write to a saga that a worker holds."""

    def operate(self, saga_id: UUID, *arguments: Any, **more: Any) -> Applied | NotAcquired:
        saga = self._sagas[saga_id]
        if not saga.status.finished:
            free = {"lease_owner": None, "lease_token": None, "in_flight": None}
            self._put(replace(saga, state=SagaState.READY, **free))
        return super().operate(saga_id, *arguments, **more)


class OperatesInTwoWrites(MemorySagaStorage):
    """Keeps the lease even if the write fails."""

    def operate(self, saga_id: UUID, decide: Any, **arguments: Any) -> Applied | NotAcquired:
        try:
            return super().operate(saga_id, decide, **arguments)
        except ActionRefused:
            maximum = arguments["max_recovery_attempts"]
            request = LeaseRequest(owner=arguments["owner"], seconds=9.0)
            self.acquire(saga_id, request, max_recovery_attempts=maximum, by_hand=True)
            raise


class OperatesAtTheSameVersion(MemorySagaStorage):
    """Does not fence off a holder that lost its lease."""

    def operate(self, saga_id: UUID, *arguments: Any, **more: Any) -> Applied | NotAcquired:
        version = self._sagas[saga_id].version
        done = super().operate(saga_id, *arguments, **more)
        if isinstance(done, Applied):
            self._put(replace(self._sagas[saga_id], version=version))
        return done


class ForgetsASkipInTheLog(MemorySagaStorage):
    """Logs a skipped step as a note."""

    def _signed(self, lease: Lease, transition: Transition) -> list[LogEntry]:
        note, skipped = Action.OPERATOR, EntryStatus.SKIPPED
        return [replace(e, action=note) if e.status is skipped else e for e in super()._signed(lease, transition)]


class AbortsWithoutItsEvent(MemorySagaStorage):
    """Sets the status to COMPENSATING without a log entry."""

    def increment_recovery_attempts(self, saga_id: UUID, new_status: SagaStatus | None = None) -> None:
        log = self._sagas[saga_id].log
        super().increment_recovery_attempts(saga_id, new_status)
        kept = tuple(e for e in self._sagas[saga_id].log if e in log or e.verdict is None)
        self._put(replace(self._sagas[saga_id], log=kept))


class StoresNoSignal(MemorySagaStorage):
    """Wakes a saga for a signal that is not stored."""

    def add_signal(self, signal: Signal, *, connection: Any = None) -> bool:
        return True

    def deliver(self, saga_ids: Sequence[UUID]) -> list[Claim]:
        (saga_id,) = saga_ids
        saga = self._sagas[saga_id]
        woken = self._put(rules.deliver(saga, self._clock(), count=0, cancels=False))
        return [Claim(saga.id, saga.version)] if woken.state is not saga.state else []


class CountsNoSignal(MemorySagaStorage):
    """Wakes a saga without counting what was delivered."""

    def deliver(self, saga_ids: Sequence[UUID]) -> list[Claim]:
        claims = super().deliver(saga_ids)
        for saga_id in saga_ids:
            self._put(replace(self._sagas[saga_id], inbox=0))
        return claims


class CountsAgain(MemorySagaStorage):
    """Counts a signal at each delivery."""

    def deliver(self, saga_ids: Sequence[UUID]) -> list[Claim]:
        self._undelivered = [signal for saga_id in saga_ids for signal in self._signals[saga_id]]
        return super().deliver(saga_ids)


class WakesNobody(MemorySagaStorage):
    """Counts signals, and leaves the saga asleep."""

    def deliver(self, saga_ids: Sequence[UUID]) -> list[Claim]:
        before = {saga_id: self._sagas[saga_id] for saga_id in saga_ids}
        super().deliver(saga_ids)
        for saga_id, saga in before.items():
            self._put(replace(saga, inbox=self._sagas[saga_id].inbox))
        return []


class StoresTwice(MemorySagaStorage):
    """Stores the same signal again."""

    def add_signal(self, signal: Signal, *, connection: Any = None) -> bool:
        known = self._signals.pop(signal.saga_id, [])
        super().add_signal(signal)
        self._signals[signal.saga_id] = [*known, *self._signals[signal.saga_id]]
        return True


def by_owner(record: SagaRecord, lease: Lease) -> bool:
    """Fences by the owner alone."""
    return record.state is SagaState.RUNNING and record.lease_owner == lease.owner


def by_version(record: SagaRecord, lease: Lease) -> bool:
    """Fences by the version alone, so a saga that a scan reclaimed still belongs to the holder."""
    return record.version == lease.version


def without_token(record: SagaRecord, lease: Lease) -> bool:
    """Fences by version and owner, which two requests of one process share."""
    return (record.state, record.version, record.lease_owner) == (SagaState.RUNNING, lease.version, lease.owner)


def counts_the_first(record: SagaRecord) -> bool:
    """Also counts the crash of the first lease."""
    return not is_shared(record.lease_owner)


def counts_shared(record: SagaRecord) -> bool:
    """Also counts the crash of a process that held several sagas."""
    return record.version >= 2


def keeps_in_flight(transition: Transition) -> Change:
    """Stores the step in flight only once."""
    change = change_of(transition)
    return replace(change, in_flight=None) if len(transition.events) and transition.events[0].attempt > 1 else change


class ForgetsWhy(Progress):
    """Goes on as if no earlier holder had decided to abort."""

    def __init__(self, graph: Graph, log: Sequence[LogEntry], **more: Any) -> None:
        super().__init__(graph, [entry for entry in log if not (entry.version and entry.verdict)], **more)


class NeverAborted(Progress):
    """Goes on as if nothing had ever aborted a saga."""

    aborted = property(lambda self: False, lambda self, value: None)  # type: ignore[assignment]


class LooksAtTheLastEvent(Progress):
    """Treats a saga as aborted only while its last event says so."""

    def add(self, entry: Entry) -> None:
        super().add(entry)
        self.aborted = entry.verdict is Verdict.ABORT


class ForgetsLostHolders(Progress):
    """Assumes that each step that began has an event."""

    def _holder_lost(self, entry: Entry) -> None:
        pass


class CountsActsOfCode(Progress):
    """Does not count skipped steps as done."""

    def _step_ended(self, entry: Entry) -> None:
        super()._step_ended(entry)
        if entry.status is EntryStatus.SKIPPED and entry.action is Action.ACT:
            self._done.discard(entry.step)
            self._open = {entry.step: self.graph.named[entry.step]}


class ForgetsWhatItFellBackFrom(Progress):
    """Compensates fallbacks, but not the step that failed before."""

    def _owed(self) -> list[Node]:
        turns = {name for name, node in self._open.items() if node.name != name}
        return [node for node in super()._owed() if node.name not in turns]


class CompensatesSkipped(Progress):
    """Compensates skipped steps, too."""

    def _step_ended(self, entry: Entry) -> None:
        super()._step_ended(entry)
        if entry.status is EntryStatus.SKIPPED:
            self._settled.discard(entry.step)


class ForgetsWhatWasSetAside(Progress):
    """Omits a compensation after its attempts were spent once."""

    def _owed(self) -> list[Node]:
        return [node for node in super()._owed() if node.name not in self._set_aside]


def finds_nothing(*_: object) -> Generator[object, object, None]:
    """Never detects that its write was applied."""
    yield from ()


def none_in_flight(**columns: Any) -> Progressed:
    """Stores that no step is in flight, although one begins next."""
    return Progressed(**columns | {"in_flight": ()})


def began_nothing(error: BaseException, in_flight: tuple[str, ...] | None) -> LogEntry:
    """Fails an attempt as if no step could have begun."""
    return LogEntry(step="holder", action=Action.HOLDER, status=EntryStatus.FAILED, in_flight=())


class SuspendedUnseen(Suspended):
    """Puts the saga down without a look at its inbox."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "seen", None)


class ProgressedUnseen(Progressed):
    """Times out without a look at the inbox."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "seen", None)


class EndedUnseen(Ended):
    """Ends without a look at the inbox."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "seen", None)


class ReadsNothing(Inbox):
    """Takes what was delivered for read."""

    @property
    def unread(self) -> bool:
        self.read = self.delivered
        return False


class ForgetsWhatWasDealtWith(Inbox):
    """Does not look into the log for what earlier holders dealt with."""

    def __init__(self, delivered: int, log: Sequence[LogEntry]) -> None:
        super().__init__(delivered, ())


class LooksOnlyAtItsCounter(Inbox):
    """Lets a wait time out beside a signal that is stored and not delivered."""

    looked = property(lambda self: True, lambda self, value: None)  # type: ignore[assignment]


def without_verdict(**entry: Any) -> LogEntry:
    """Aborts without an event."""
    return LogEntry(**entry | {"verdict": None})


_TIMING_OUT = SCENARIOS["a signal or a timeout aborts it"]
_SENT_TWICE = SCENARIOS["a signal is sent twice"]
_CANCELLED_LATE = SCENARIOS["it is cancelled past its pivot"]
_TIMED_OUT = "a wait timed out although a signal had come"
_UNTOLD = "its log does not tell of a request to cancel"
_UNREAD = "it waits beside a signal that nobody has read"
_EXPIRING = Scenario(left=bounds(2, of=["expiries"]))
_SPLIT = Scenario(left=bounds(1, failures=1), outcomes={"act car": (DONE, FAILS)})
_FAILING = Scenario(left=bounds(1), outcomes={"act car": (FAILS,)})
_IN_DOUBT = Scenario(left=bounds(1), outcomes={"act car": UNKNOWN})
_EXITING = operated("compensate", scans=1, failures=1, of=("crashes",), outcomes={"act car": (DONE, EXITS)})
_PAUSING = operated("pause", "resume", operations=2, scans=1, of=("crashes",), in_place=False)
_RETRIED = operated("retry", scans=1, failures=1, outcomes={"act car": (DONE, FAILS)})
_MOVING = SCENARIOS["messages of others move"]
_SHARED = SCENARIOS["one worker holds several"]
_UNDOING_BOTH = SCENARIOS["the first is undone while undoing the second fails"]
_SKIPPING_BACK = SCENARIOS["an operator skips a compensation"]
_SKIPPING = SCENARIOS["an operator skips an act"]
_FENCE = "was accepted from a holder that had lost its lease"
_LEFT = "COMPENSATED, but the effects are"
_FORWARD_AGAIN = "the saga ran forward after it had aborted"
_SKIPPED = "code did a step that an operator had skipped"
_WAITS = "a message was sent again that may well wait"


@pytest.mark.parametrize(
    ("mutant", "scenario", "rule"),
    [
        (WithoutFence, _EXPIRING, _FENCE),
        (ResetsNoAttempts, _EXPIRING, "attempts: counted 1, not 0"),
        (TellsNobodyOfLostHolders, _EXPIRING, "the log does not tell whose lease ended without its holder"),
        (ForgetsWhatWasInFlight, _SPLIT, _LEFT),
        (ForgetsWhatWasInFlight, operated("compensate"), _LEFT),
        (QueuesNothing, _EXPIRING, "a second message for the same saga"),
        (ProbesWhileMessagesMove, _MOVING, _WAITS),
        (NotesNoStarts, _MOVING, "the saga never ends"),
        (AcquiresForAnyMessage, Scenario(left=bounds(1)), "at a version that it was not sent for"),
        (AcquiresTheSuspect, _SHARED, "acquired a suspect saga"),
        (ScansFreeNothing, _PAUSING, "the saga never ends"),
        (DispatchesThePaused, _PAUSING, "a scan dispatched a saga of a paused name"),
        (AcquiresThePaused, _PAUSING, "a message acquired a saga of a paused name"),
        (OperatesInALiveLease, operated("compensate"), "a live lease was reclaimed"),
        (OperatesInTwoWrites, SCENARIOS["two operators abort it and retry it"], "that was refused changed something"),
        (OperatesAtTheSameVersion, operated("retry"), "the fencing token did not grow"),
        (ForgetsASkipInTheLog, _SKIPPING, _SKIPPED),
        (AbortsWithoutItsEvent, SCENARIOS["a scheduler aborts it"], _FORWARD_AGAIN),
        (StoresNoSignal, _SENT_TWICE, "a signal was not stored"),
        (CountsNoSignal, _SENT_TWICE, "the inbox does not count what was delivered"),
        (CountsAgain, _SENT_TWICE, "the inbox does not count what was delivered"),
        (WakesNobody, _SENT_TWICE, _UNREAD),
        (StoresTwice, _SENT_TWICE, "a signal was stored twice"),
    ],
)
def test_a_storage_that_breaks_a_rule_is_found_out(mutant: type[MemorySagaStorage], scenario: Scenario, rule: str):
    found = explore(scenario, mutant)

    print(f"\n{found.violation}")
    assert rule in (found.violation or "")


@pytest.mark.parametrize(
    ("name", "broken", "scenario", "rule"),
    [
        ("storage.rules.holds", by_owner, replace(_EXPIRING, owners=("A", "A")), _FENCE),
        ("storage.rules.holds", by_version, _EXPIRING, _FENCE),
        ("storage.rules.holds", without_token, SCENARIOS["a replica takes over"], _FENCE),
        ("storage.dead_letters.crash_counts", lambda record: False, _EXPIRING, "attempts: counted 0, not 1"),
        ("storage.dead_letters.crash_counts", counts_the_first, _EXPIRING, "attempts: counted 1, not 0"),
        ("storage.dead_letters.crash_counts", counts_shared, _SHARED, "attempts: counted 1, not 0"),
        ("storage.rules.is_shared", lambda owner: False, _SHARED, "suspect: False, and it should be True"),
        ("storage.lost_messages.lost_message", lambda record, delivered: False, _MOVING, "the saga never ends"),
        ("storage.lost_messages.PROBES", 0, Scenario(left=bounds(1)), "the saga never ends"),
        ("storage.lost_messages.OVERTAKING_SECONDS", 0.0, _MOVING, _WAITS),
        ("storage.rules.change_of", keeps_in_flight, SCENARIOS["the first is tried again"], "is known to be in flight"),
        ("execution.held.Progress", NeverAborted, _FAILING, "RUNNING after aborting"),
        ("execution.held.Progress", LooksAtTheLastEvent, _FAILING, "RUNNING after aborting"),
        ("execution.held.Progress", ForgetsWhy, _FAILING, _FORWARD_AGAIN),
        ("execution.held.Progress", ForgetsLostHolders, _RETRIED, _LEFT),
        ("execution.held.Progress", CountsActsOfCode, _SKIPPING, _SKIPPED),
        ("execution.held.Progress", CompensatesSkipped, _SKIPPING_BACK, _SKIPPED),
        ("execution.held.Progress", ForgetsWhatItFellBackFrom, SCENARIOS["the second falls back"], _LEFT),
        ("execution.held.Progress", ForgetsWhatWasSetAside, _UNDOING_BOTH, _LEFT),
        ("execution.held.Held._find_applied", finds_nothing, _FAILING, "an action completed twice"),
        ("execution.loop.Progressed", none_in_flight, _SPLIT, "is known to be in flight"),
        ("execution.loop.holder_failed", began_nothing, _EXITING, _LEFT),
        ("failures.OutcomeUnknown", KeyError, _IN_DOUBT, f"{_LEFT} ('undone', 'done')"),
        ("storage.rules.unread", lambda record, transition: False, _SENT_TWICE, _UNREAD),
        ("storage.rules.unread", lambda record, transition: False, _TIMING_OUT, _UNREAD),
        ("execution.outside.Suspended", SuspendedUnseen, _SENT_TWICE, _UNREAD),
        ("execution.outside.Suspended", SuspendedUnseen, SCENARIOS["it sleeps and is cancelled"], _UNREAD),
        ("execution.outside.Progressed", ProgressedUnseen, _TIMING_OUT, _TIMED_OUT),
        ("execution.loop.Ended", EndedUnseen, SCENARIOS["it sleeps and is cancelled"], _UNTOLD),
        ("execution.loop.Ended", EndedUnseen, _CANCELLED_LATE, _UNTOLD),
        ("execution.held.Inbox", ReadsNothing, _SENT_TWICE, _UNREAD),
        ("execution.held.Inbox", ForgetsWhatWasDealtWith, _CANCELLED_LATE, "a signal was received twice"),
        ("execution.held.Inbox", LooksOnlyAtItsCounter, _TIMING_OUT, _TIMED_OUT),
        ("execution.outside.Outside._left", lambda self, armed: 0.0, _TIMING_OUT, "before its time"),
        ("recovery._deliver_forgotten", lambda *_: None, _SENT_TWICE, "the saga never ends"),
        ("admin.LogEntry", without_verdict, operated("compensate"), "RUNNING after aborting"),
    ],
)
def test_an_engine_that_breaks_a_rule_is_found_out(
    monkeypatch: pytest.MonkeyPatch, name: str, broken: Any, scenario: Scenario, rule: str
):
    monkeypatch.setattr(f"sagas.{name}", broken)

    found = explore(scenario)

    print(f"\n{found.violation}")
    assert rule in (found.violation or "")


def test_a_scan_that_claims_by_an_earlier_look_at_the_pauses_is_found_out(monkeypatch: pytest.MonkeyPatch):
    def claim_in_two_steps(self: Any, **arguments: Any) -> Any:
        return self.process.ask("claim_as_seen", self.pauses(), **arguments)

    monkeypatch.setattr(Storage, "claim_sagas", claim_in_two_steps)

    found = explore(_PAUSING, ScansByAnEarlierLook)

    print(f"\n{found.violation}")
    assert "a scan dispatched a saga of a paused name" in (found.violation or "")


def test_a_holder_that_ignores_a_requested_yield_is_found_out(monkeypatch: pytest.MonkeyPatch):
    def deaf(self: Any) -> bool:
        return bool(self.process.ask("yield_requested?") and False)

    monkeypatch.setattr(KeptForOperators, "yield_requested", property(deaf, lambda self, value: None))

    found = explore(operated("compensate"))

    print(f"\n{found.violation}")
    assert "went on although its yield was requested" in (found.violation or "")


def test_a_service_that_forgets_what_it_undid_may_be_left_with_a_late_effect():
    # No engine can cancel a request that a frozen worker has sent: the service must refuse it, by its key.
    found = explore(replace(_SPLIT, forgets=True))

    print(f"\n{found.violation}")
    assert "COMPENSATED, but the effects are" in (found.violation or "")


def test_a_violation_is_told_by_the_shortest_schedule():
    found = explore(Scenario(left=bounds(1, of=["expiries"])), WithoutFence)

    assert found.violation is not None
    assert found.violation.splitlines()[1:] == [
        "  2. start: send()",
        "  3. A receives the message for version 0",
        "  4. A: acquire(version=0) -> acquired at version 1, RUNNING",
        "  5. time passes, and what A holds is over",
        "  6. scan 1: claim_sagas(pending=False) -> 1 claimed, 0 died, 0 lost",
        "  7. A: act hotel -> ok",
        "  8. A: apply(Progressed, act hotel completed, RUNNING) -> ok",
        "     the fence: apply was accepted from a holder that had lost its lease",
    ]

"""The one loop: ask what is ready, begin it, wait for the first that ends, write its event, ask again.

Forward, backward and recovered runs all go through it. It does no I/O itself: `saga_loop` is a generator that yields
what it wants done (a command) and is sent what came of it. `sagas.drivers` does the commands in a thread,
`sagas.async_driver` on an event loop, and the tests' explorer in every order.
"""

from __future__ import annotations

import logging
import traceback
from collections import Counter
from collections.abc import Generator
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from itertools import count
from typing import Any, Final, TypeAlias
from uuid import UUID

from sagas.context import Stored
from sagas.definition import AnySaga, Call, Part, Wait, backoff
from sagas.duration import duration
from sagas.errors import (
    ContextError,
    InboxMoved,
    LeaseLost,
    LogDoesNotFit,
    StepRolledBack,
    StorageUnavailable,
    TransactionRefused,
)
from sagas.failures import is_conflict, is_in_doubt, is_of_the_step, is_retryable, message_of
from sagas.graph import Graph
from sagas.inbox import Inbox, as_logged
from sagas.outbox import EnqueuedTask, OutboxTask
from sagas.plan import Plan, plan_for
from sagas.progress import Action, Entry, EntryStatus, Frontier, Move, Progress, SagaStatus, Verdict
from sagas.runtime import Runtime
from sagas.storage.records import Acquired, Applied, Claim, LogEntry, Refusal, SagaRecord, SagaState, Signal
from sagas.storage.transitions import (
    PROBE_SECONDS,
    Ended,
    FailedAttempt,
    GaveBack,
    Progressed,
    Suspended,
    Transition,
)
from sagas.telemetry.logs import about, saga_logger
from sagas.telemetry.observer import NullObserver
from sagas.text import printable

logger = saga_logger(__name__)

#: Waits up to this long, or up to the interval of scans, happen in place; a longer one puts the saga down, to be found
#: by the first scan after it.
IN_PLACE_SECONDS: Final = 5.0
#: How long a saga whose yield was requested is left to the operator who requested it.
_YIELDED_SECONDS: Final = 10.0
#: A traceback is for a reader, and its end says most.
_TRACEBACK_CHARACTERS: Final = 4000
_MESSAGE_CHARACTERS: Final = 2000
#: What the log calls the row that says that the saga's deadline has passed.
_DEADLINE: Final = "deadline"
#: A worker whose code does not fit leaves the saga alone for as long as it has been stuck, between these bounds.
_DECLINE_SECONDS: Final = (5.0, 60.0)
#: How often a transactional step is performed again because the database rolled it back, until that counts as failed.
_PERFORMED_AGAIN: Final = 10


class Outcome(StrEnum):
    """What became of a saga in one call.

    WAITING: it is put down until it is due. FAILED: this attempt failed, and another follows. DECLINED: this process's
    code does not fit. HANDED_OVER: given back, because this process stops or an operator asked. LOST: another worker
    has it. SKIPPED: it was not acquired.
    """

    COMPLETED = "completed"
    COMPENSATED = "compensated"
    WAITING = "waiting"
    FAILED = "failed"
    DEAD = "dead"
    DECLINED = "declined"
    HANDED_OVER = "handed over"
    LOST = "lost"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What one call did for a saga.

    Attributes:
        saga_id: which saga.
        name: its name.
        status: how it stands now.
        outcome: what became of it.
        did: what was done, in order.
        message: the same in a sentence.
        refusal: why it was not acquired, if it was not.
    """

    saga_id: UUID
    name: str
    status: SagaStatus
    outcome: Outcome
    did: tuple[str, ...] = ()
    message: str = ""
    refusal: Refusal | None = None

    @classmethod
    def of(cls, saga: SagaRecord, outcome: Outcome, message: str, **more: Any) -> Report:
        """Return a report on this saga as it was last seen; `more` are other attributes."""
        more.setdefault("status", saga.status)
        return cls(saga_id=saga.id, name=saga.name, outcome=outcome, message=message, **more)

    def __post_init__(self) -> None:
        # They quote errors and names, and are read in terminals and logs.
        object.__setattr__(self, "did", tuple(map(printable, self.did)))
        object.__setattr__(self, "message", printable(self.message))

    def as_json(self) -> dict[str, Any]:
        """Return it as plain data, which reads well in Flower: what a reader wants first, what may be long last."""
        return {
            "name": self.name,
            "outcome": str(self.outcome),
            "message": self.message,
            "status": str(self.status),
            "saga_id": str(self.saga_id),
            "did": list(self.did),
        }


# -- commands: what the loop wants done -----------------------------------------------------------------------


class Interruption(StrEnum):
    """Why a holder puts its saga down at the next boundary."""

    STOPPING = "stopping"
    LOST = "lost"
    YIELD = "yield"


@dataclass(frozen=True, slots=True)
class Interrupted:
    """Is there a reason to put the saga down? Answer: an `Interruption`, or None."""


@dataclass(frozen=True, slots=True)
class Begin:
    """One action to begin: of this part's class, with this call and context; a wait gets what the signal brought."""

    move: Move
    part: type[Part]
    call: Call
    context: Any
    signal: Any = None


@dataclass(frozen=True, slots=True)
class Perform:
    """Begin these actions, and wait for the first to end of all that are in flight. Answer: `Done`."""

    begin: tuple[Begin, ...]


@dataclass(frozen=True, slots=True)
class Done:
    """How an action ended: with what it returned, or an error."""

    move: Move
    returned: Any = None
    error: BaseException | None = None


@dataclass(frozen=True, slots=True)
class Apply:
    """Write this transition under the lease. Answer: `Applied`; raises what the storage raises.

    With `commits`, write it in the transaction of the transactional step that ended last, and commit that; `then` is
    written there too, unless something was delivered that the holder has not read. Before any other command, that
    transaction is rolled back. `ahead` is the transactional step that follows: its transaction may begin meanwhile.
    """

    transition: Transition
    commits: bool = False
    then: Suspended | Ended | None = None
    ahead: tuple[str, type[Part]] | None = None


@dataclass(frozen=True, slots=True)
class Load:
    """Read the saga. Answer: its record."""


@dataclass(frozen=True, slots=True)
class Delay:
    """Wait so many seconds; with `interruptible`, until there is a reason to put the saga down. Answer: None."""

    seconds: float
    interruptible: bool = True


@dataclass(frozen=True, slots=True)
class Send:
    """Publish the message of a saga that was given back. Answer: None."""

    claim: Claim


@dataclass(frozen=True, slots=True)
class ReadSignals:
    """Read what was sent to the saga. Answer: a list of `Signal`."""


@dataclass(frozen=True, slots=True)
class SendTasks:
    """Send tasks of the outbox. Answer: None; a later scan sends those that could not be sent."""

    tasks: tuple[OutboxTask, ...]


Command: TypeAlias = Interrupted | Perform | Apply | Load | Delay | Send | ReadSignals | SendTasks
Loop: TypeAlias = Generator[Command, Any, Report]


def saga_loop(saga: AnySaga, graph: Graph, acquired: Acquired, runtime: Runtime) -> Loop:
    """Bring a saga that is acquired as far as it goes now, and give it back.

    Args:
        saga: the class that goes on with it.
        graph: what it was started with.
        acquired: its lease and record.
        runtime: settings, randomness and whom to notify; its I/O is left to whoever drives the loop.

    Returns:
        By StopIteration: what was done.
    """
    return _Execution(saga, graph, acquired, runtime).run()


def decline(acquired: Acquired, runtime: Runtime, reason: str) -> Loop:
    """Give a saga back that this process's code does not fit: as it was, no attempt spent, the reason kept."""
    record = acquired.record
    entry = LogEntry(step="holder", action=Action.HOLDER, status=EntryStatus.DECLINED, message=_cut(reason))
    known = record.log[-1] if record.log else None
    said = known is not None and (known.status, known.message) == (entry.status, entry.message)
    moved = (e.created_at for e in record.log if e.created_at and e.status is not EntryStatus.DECLINED)
    shortest, longest = _DECLINE_SECONDS
    stuck = (record.updated_at - max(moved, default=record.created_at)).total_seconds()
    after = min(longest, max(shortest, stuck)) * (1 - 0.1 * runtime.random())
    outcome, message = Outcome.DECLINED, f"left as it was for {after:.0f} s, no attempt spent: {reason}"
    try:
        yield Apply(
            GaveBack(
                status=acquired.status_before,
                after_seconds=after,
                # Once is enough: a saga may be declined every minute for days.
                events=() if said else (entry,),
                last_error=f"declined: {reason}",
            )
        )
    except LeaseLost as error:
        outcome, message = Outcome.LOST, str(error)
    logger.warning(
        "saga %s (%s): %s: %s", record.id, record.name, outcome, message, extra=about(record.id, record.name)
    )
    runtime.observer.given_back(record, outcome)
    return Report.of(record, outcome, message, status=acquired.status_before)


def database_backoff(failures: int) -> float:
    """Return how many seconds to wait for a database that did not answer so many times in a row."""
    return backoff(failures, first=0.1, factor=2, cap=2.0)


def failed_attempt(runtime: Runtime, attempts: int, *events: LogEntry, last_error: str | None = None) -> FailedAttempt:
    """Return the transition that counts one more failed attempt, with its backoff."""
    settings = runtime.settings
    full = backoff(attempts + 1, first=settings.backoff_seconds, factor=2, cap=settings.max_backoff_seconds)
    return FailedAttempt(
        events=events,
        after_seconds=full * (1 - 0.2 * runtime.random()),
        max_recovery_attempts=settings.max_recovery_attempts,
        last_error=last_error,
    )


def holder_failed(error: BaseException, in_flight: tuple[str, ...] | None) -> LogEntry:
    """Return the row for an attempt that failed by an error outside of steps, while these may have begun."""
    return LogEntry(
        step="holder",
        action=Action.HOLDER,
        status=EntryStatus.FAILED,
        in_flight=in_flight,
        error_type=type(error).__name__,
        message=_message(error),
    )


@dataclass(frozen=True, slots=True)
class _Failure:
    error: BaseException
    in_doubt: bool
    retryable: bool


@dataclass(frozen=True, slots=True)
class _Result:
    """What a completed action leaves: the context, tasks for the outbox, and perhaps an open transaction."""

    stored: Stored[Any]
    tasks: tuple[EnqueuedTask, ...] = ()
    commits: bool = False


class _NotCommitted(Exception):
    """The transaction of a step was rolled back, and the step is performed again."""


class _EndedBefore(Exception):
    """An earlier COMMIT, whose answer was lost, has come late and ended the saga."""


class _Execution:
    """One lease of one saga, from acquiring it to giving it back."""

    def __init__(self, saga: AnySaga, graph: Graph, acquired: Acquired, runtime: Runtime) -> None:
        self.saga = saga
        self.graph = graph
        self.acquired = acquired
        self.lease = acquired.lease
        self.record: SagaRecord = acquired.record
        self.id = str(acquired.record.id)
        self.runtime = runtime
        self.observer = runtime.observer
        self.status = acquired.record.status
        self.attempts = acquired.record.recovery_attempts
        self.traced = {
            (e.step, e.action, e.error_type, e.message) for e in acquired.record.log if e.traceback is not None
        }
        self.plan: Plan
        self.progress: Progress
        self.stored: Stored[Any]
        self.inbox = Inbox(acquired.record.inbox, acquired.record.log)
        said = any(e.step == _DEADLINE and e.action is Action.OPERATOR for e in acquired.record.log)
        self.deadline = None if said else acquired.record.deadline_at
        # What the last write did: its rows have the newest time that is known.
        self.applied: Applied | None = None
        # What can be done after the last event, once it is known.
        self.frontier: Frontier | None = None
        self.running: dict[str, Move] = {}
        # The signals that are being received, by the name of their node.
        self.received: dict[str, Signal] = {}
        self.calls: dict[str, Call] = {}
        # How often each transactional step was performed again in a row.
        self.again: Counter[str] = Counter()
        self.did: list[str] = []

    def run(self) -> Loop:
        try:
            self.plan = plan_for(self.saga, self.graph)
            self.progress = Progress(self.plan.graph, self.record.log, past_failures=self.plan.past_failures)
            self.stored = self.saga.codec.reopen(self.record.context)
            if any(e.status is EntryStatus.LOST and e.version == self.lease.version - 1 for e in self.record.log[-1:]):
                self.observer.taken_over(self.record)
            while True:
                report = yield from self._advance()
                if report is not None:
                    return report
        except (LogDoesNotFit, ContextError) as error:
            # As it was; but once this lease has brought it on, as it stands.
            acquired = replace(self.acquired, status_before=self.status) if self.did else self.acquired
            return (yield from decline(acquired, self.runtime, str(error)))
        except LeaseLost as error:
            return self._report(Outcome.LOST, str(error))
        except _EndedBefore:
            return self._ended()
        except (StorageUnavailable, GeneratorExit):
            raise
        except Exception as error:
            logger.exception("saga %s (%s): this attempt failed", self.record.id, self.record.name)
            try:
                return (yield from self._fail(error))
            except LeaseLost as lost:
                return self._report(Outcome.LOST, str(lost))
        except BaseException as error:
            # The process is about to end: whatever comes of counting it must not hide why.
            with suppress(LeaseLost, StorageUnavailable):
                yield from self._fail(error)
            raise

    def _advance(self) -> Generator[Command, Any, Report | None]:
        """Do what is ready; return a report when there is nothing more to do now."""
        if (yield from self._aborted_from_outside()):
            return None
        frontier = self.frontier or self.progress.frontier()
        self.frontier = None
        if frontier.end is not None and not self.running:
            return (yield from self._end((), frontier.end))
        interruption = yield Interrupted()
        if interruption is not None and not self.running:
            return (yield from self._put_down(interruption))
        begin = () if interruption is not None else self._to_begin(frontier.ready)
        if not begin and not self.running:
            found = yield from self._attend(frontier.awaiting)
            if not isinstance(found, Begin):
                return found
            begin = (found,)
        for each in begin:
            self.running[each.move.node.name] = each.move
            self.calls[each.move.node.name] = each.call
        done: Done = yield Perform(begin)
        del self.running[done.move.node.name]
        return (yield from self._after(done))

    def _to_begin(self, ready: tuple[Move, ...]) -> tuple[Begin, ...]:
        if self.progress.aborted and any(move.action is Action.ACT for move in self.running.values()):
            return ()  # what is in flight ends first
        free = self.runtime.at_once - len(self.running)
        new = [move for move in ready if move.node.name not in self.running][: max(free, 0)]
        return tuple(self._begin(move) for move in new)

    def _begin(self, move: Move, signal: Any = None) -> Begin:
        return Begin(move, self.plan.steps[move.node.name], self._call(move), self.stored.context, signal)

    def _call(self, move: Move) -> Call:
        return Call(
            saga_id=self.record.id,
            step_name=move.node.name,
            attempt=move.attempt,
            idempotency_key=f"{self.id}:{move.node.name}:{move.action}",
        )

    # -- what comes from outside, and in time -----------------------------------------------------------------

    def _aborted_from_outside(self) -> Generator[Command, Any, bool]:
        """Read what was sent to the saga, and abort it if that or its deadline asks for it. Return whether it did."""
        if self.inbox.unread:
            yield from self._read_signals()
        if self.progress.aborted:
            return False
        while (request := self.inbox.request_to_cancel()) is not None:
            self.inbox.dealt_with(request)
            entry = _note("cancel", actor=request.by, reason=request.because, signal=as_logged(request))
            if (yield from self._abort(entry)):
                return True
        deadline = self._deadline()
        if deadline is None or self._now() < deadline:
            return False
        late = _note(_DEADLINE, message=f"the deadline was {deadline:%Y-%m-%d %H:%M:%S %Z}")
        aborted = yield from self._abort(late, seen=self.inbox.read)
        if not aborted:
            self.deadline = None  # past the pivot, it is said once
        return aborted

    def _read_signals(self) -> Generator[Command, Any, None]:
        """Read what was sent to the saga, until the database answers: a lease that ran out would count as a crash."""
        self.inbox.receive((yield from self._until_answered(ReadSignals())))

    def _abort(self, entry: LogEntry, seen: int | None = None) -> Generator[Command, Any, bool]:
        """Write a row that aborts the saga; past the pivot, one that only says what was asked for."""
        if not self.progress.past_pivot:
            entry = replace(entry, verdict=Verdict.ABORT)
        status = self.progress.status if self.progress.past_pivot else SagaStatus.COMPENSATING
        in_flight = None
        if not self.progress.past_pivot:
            following = self.progress.compensations()
            in_flight = tuple(dict.fromkeys((*self.running, *(move.node.name for move in following))))
        try:
            yield from self._write(Progressed(events=(entry,), status=status, in_flight=in_flight, seen=seen))
        except InboxMoved:
            return True
        self.progress.add(entry)
        self.frontier = None
        logger.log(
            logging.WARNING,
            "saga %s (%s): %s: %s",
            *(self.record.id, self.record.name, entry.step, entry.reason or entry.message or "no reason given"),
        )
        return self.progress.aborted

    def _attend(self, awaiting: tuple[Move, ...]) -> Generator[Command, Any, Begin | Report | None]:
        """Return what a signal begins; or end a wait whose time is up; or else suspend the saga."""
        for move in awaiting:
            part = self.plan.steps[move.node.name]
            if issubclass(part, Wait):
                while (signal := self.inbox.signal_for(part, move.node.name)) is not None:
                    self.inbox.dealt_with(signal)
                    try:
                        payload = part.payload.load(signal.payload or "null")
                    except ContextError as error:
                        refused = _note("signal refused", actor=signal.by, message=str(error), signal=as_logged(signal))
                        yield from self._write(Progressed(events=(refused,), status=self.progress.status))
                        continue
                    self.received[move.node.name] = signal
                    return self._begin(move, payload)
            armed = self.progress.armed.get(move.node.name)
            if armed is not None and (left := self._left(armed)) is not None and left <= 0:
                if self.inbox.looked:
                    yield from self._time_is_up(move, part)
                else:
                    # A signal may be stored that nobody has delivered, as its sender died. It came in time.
                    yield from self._read_signals()
                return None
        return (yield from self._suspend(awaiting))

    def _time_is_up(self, move: Move, part: type[Part]) -> Generator[Command, Any, None]:
        entry = LogEntry.of(move, EntryStatus.COMPLETED)
        if issubclass(part, Wait):
            entry = replace(entry, message="no signal came in time")
            if part.on_timeout == "abort":
                entry = replace(entry, status=EntryStatus.FAILED, verdict=Verdict.ABORT, error_type="WaitTimedOut")
        status = self.progress.status if entry.verdict is None else SagaStatus.COMPENSATING
        try:
            yield from self._write(Progressed(events=(entry,), status=status, seen=self.inbox.read))
        except InboxMoved:
            return
        self.progress.add(entry)
        self.did.append(f"{move.node.name}: {entry.message or 'slept'}")

    def _suspend(self, awaiting: tuple[Move, ...]) -> Generator[Command, Any, Report | None]:
        """Put the saga down until a signal comes, or the first of the waits is over."""
        began, left = [], []
        for move in awaiting:
            armed = self.progress.armed.get(move.node.name)
            if armed is None:
                part = self.plan.steps[move.node.name]
                armed = LogEntry(
                    step=move.node.name,
                    action=move.action,
                    status=EntryStatus.ARMED,
                    seconds=part.limit(),
                    message="waits for a signal" if issubclass(part, Wait) else "sleeps",
                )
                began.append(armed)
            left.append(self._left(armed))
        if (deadline := self._deadline()) is not None:
            left.append((deadline - self._now()).total_seconds())
        after = min((seconds for seconds in left if seconds is not None), default=None)
        suspended = Suspended(
            events=tuple(began),
            status=self.progress.status,
            after_seconds=None if after is None else max(after, 0.0),
            waiting=True,
            seen=self.inbox.read,
        )
        try:
            yield from self._write(suspended)
        except InboxMoved:
            return None
        names = " and ".join(move.node.name for move in awaiting)
        limit = "" if after is None else f", at most {duration(after)}"
        return self._report(Outcome.WAITING, f"it waits for {names}{limit}.")

    def _deadline(self) -> datetime | None:
        """The saga's deadline; None if it has none, if the log says that it has passed, or once the saga aborted."""
        return None if self.progress.aborted else self.deadline

    def _left(self, armed: Entry) -> float | None:
        """How many seconds are left of a wait that began with this row; None if it has no end."""
        if armed.seconds is None:
            return None
        began = armed.created_at if isinstance(armed, LogEntry) else None
        return armed.seconds if began is None else (began - self._now()).total_seconds() + armed.seconds

    def _now(self) -> datetime:
        """The newest time by the database's clock that is known: that of the last write, or of acquiring the saga."""
        rows = () if self.applied is None else self.applied.log
        return (rows[-1].created_at if rows else None) or self.record.updated_at

    # -- after an action --------------------------------------------------------------------------------------

    def _after(self, done: Done) -> Generator[Command, Any, Report | None]:
        move = done.move
        transactional = move.node.kind == "transaction"
        policy = self.plan.retry_policy(self.progress, move)
        if done.error is not None:
            if not is_of_the_step(done.error):
                self.running[move.node.name] = move  # it may have taken effect
                raise done.error
            rolled_back = transactional and (isinstance(done.error, StorageUnavailable) or is_conflict(done.error))
            if rolled_back and (yield from self._may_perform_again(move)):
                return None
            in_doubt = move.node.doubtful and is_in_doubt(done.error, self.runtime.in_doubt_on)
            failure = _Failure(done.error, in_doubt, is_retryable(done.error, policy.retry_on))
            return (yield from self._after_failure(move, failure))
        try:
            # Read back too, or a value that no recovery could load would strand the saga here.
            context = self.stored.context if done.returned is None else done.returned
            changed = self.saga.codec.after_step(context, self.stored)
        except ContextError as error:
            # The effect is there and its result cannot be kept: doing it again would end the same way.
            return (yield from self._after_failure(move, _Failure(error, move.node.doubtful, retryable=False)))
        done_by = "received" if move.node.waits else "acted" if move.action is Action.ACT else "compensated"
        self.did.append(f"{move.node.name}: {done_by}")
        entry = LogEntry.of(move, EntryStatus.COMPLETED)
        if (signal := self.received.pop(move.node.name, None)) is not None:
            entry = replace(entry, actor=signal.by, reason=signal.because, signal=as_logged(signal))
        result = _Result(changed, tuple(self.calls[move.node.name].enqueued), commits=transactional)
        try:
            report = yield from self._go_on(move, entry, result=result)
        except (_NotCommitted, StepRolledBack, TransactionRefused, LeaseLost) as error:
            if not transactional:
                raise
            return (yield from self._after_rollback(move, error))
        self.again.pop(move.node.name, None)
        return report

    def _after_rollback(self, move: Move, error: Exception) -> Generator[Command, Any, Report | None]:
        """Go on from the log after the transaction of a step that had returned was rolled back."""
        self.did.pop()
        yield from self._read_again()
        done = self.progress.frontier().end is not None or move not in self.progress.frontier().ready
        if done:
            return None  # an earlier COMMIT, whose answer was lost, has come late
        if isinstance(error, LeaseLost):
            raise error
        cause = error.cause if isinstance(error, StepRolledBack) and error.cause is not None else error
        rolled_back = isinstance(error, _NotCommitted) or is_conflict(cause)
        if rolled_back and (yield from self._may_perform_again(move)):
            return None
        policy = self.plan.retry_policy(self.progress, move)
        return (yield from self._after_failure(move, _Failure(cause, False, is_retryable(cause, policy.retry_on))))

    def _may_perform_again(self, move: Move) -> Generator[Command, Any, bool]:
        """Whether a transactional step is performed again, which spends no attempt: the database rolled it back."""
        self.again[move.node.name] += 1
        times = self.again[move.node.name]
        if times > _PERFORMED_AGAIN:
            return False
        logger.warning(
            "saga %s (%s): step %s, %s was rolled back by the database, and is performed again",
            *(self.record.id, self.record.name, move.node.name, move.action),
        )
        yield Delay(database_backoff(times) * (1 - 0.5 * self.runtime.random()))
        yield from self._read_again()
        return True

    def _read_again(self) -> Generator[Command, Any, None]:
        """Continue with the saga as it is stored, once the database answers.

        Raises:
            LeaseLost: another worker has it.
            _EndedBefore: it has ended.
        """
        record: SagaRecord = yield from self._until_answered(Load())
        if record.version == self.lease.version and record.status.finished:
            self.status = record.status
            raise _EndedBefore
        if (record.version, record.lease_token) != (self.lease.version, self.lease.token):
            raise LeaseLost(f"saga {record.id}: the lease was lost to another worker; nothing more was done.")
        self.progress = Progress(self.plan.graph, record.log, past_failures=self.plan.past_failures)
        self.stored = self.saga.codec.reopen(record.context)
        self.frontier = None

    def _until_answered(self, command: Command) -> Generator[Command, Any, Any]:
        for failures in count(1):
            try:
                return (yield command)
            except StorageUnavailable as error:
                yield from self._wait_for_database(error, failures)

    def _after_failure(self, move: Move, failure: _Failure) -> Generator[Command, Any, Report | None]:
        policy = self.plan.retry_policy(self.progress, move)
        verdict = self.progress.judge_failure(move, retryable=failure.retryable, max_attempts=policy.max_attempts)
        retried = verdict is Verdict.RETRY
        if (signal := self.received.pop(move.node.name, None)) is not None:
            self.inbox.put_back(signal)  # a later attempt receives it again
        error_type, message = type(failure.error).__name__, _message(failure.error)
        trace = (move.node.name, move.action, error_type, message)
        entry = LogEntry.of(
            move,
            EntryStatus.FAILED,
            verdict=verdict,
            in_doubt=failure.in_doubt,
            error_type=error_type,
            message=message,
            # The log is read whole at each recovery: a step that polls must not fill it with one traceback.
            traceback=None if retried and trace in self.traced else _traceback(failure.error),
        )
        self.traced.add(trace)
        self.did.append(f"{move.node.name}: {move.action} failed ({error_type}), {verdict}")
        # A retry is what the step's policy expects; nobody need see to it.
        logger.log(
            logging.INFO if retried else logging.WARNING,
            "saga %s (%s): step %s, %s, attempt %d failed, %s: %s: %s",
            *(self.record.id, self.record.name, move.node.name, move.action, move.attempt, verdict),
            *(error_type, message),
        )
        if verdict is Verdict.FAIL_ATTEMPT and not self.running:
            failed = failed_attempt(self.runtime, self.attempts, entry)
            return self._failed((yield from self._write(failed)), failed, message)
        report = yield from self._go_on(move, entry)
        if report is None:
            # What a failed attempt did to the context is not part of the saga. Only once the failure is written: should
            # the context no longer validate (a date that has passed, say), the step's doubt must not be forgotten.
            self.stored = replace(self.stored, context=self.saga.codec.load(self.stored.text))
        return report

    def _go_on(
        self, move: Move, entry: LogEntry, *, result: _Result | None = None
    ) -> Generator[Command, Any, Report | None]:
        """Write how an action ended, and everything that follows from it; wait if what comes next has failed before."""
        failures = self.progress.failures_in_a_row(move)
        self.progress.add(entry)
        following = self.frontier = self.progress.frontier()
        status = self.progress.status if following.end is None else following.end
        context = None if result is None or result.stored.text == self.stored.text else result.stored.text
        events: tuple[LogEntry, ...] = (entry,)
        delay, name = self._delay((*following.ready, *following.awaiting), failures)
        long = delay > max(IN_PLACE_SECONDS, self.runtime.settings.scan_interval_seconds)
        if following.end is not None and not self.running:
            return (yield from self._end(events, following.end, context, result))
        if long and not self.running:
            if (deadline := self._deadline()) is not None and not self.progress.past_pivot:
                # It aborts the saga. Past the pivot it would only make the retry early.
                delay = min(delay, max((deadline - self._now()).total_seconds(), 0.0))
            suspended = Suspended(
                events=events, status=status, context=context, after_seconds=delay, seen=self.inbox.read
            )
            while not (yield from self._unless_unread(suspended, result)):
                yield from self._aborted_from_outside()
                if self.progress.aborted:
                    return None
                # What came ends no wait for a retry.
                suspended, result = replace(suspended, events=(), context=None, seen=self.inbox.read), None
            return self._report(Outcome.WAITING, f"{name} is tried again in {delay:.0f} s.")
        in_flight = (*self.running, *(move.node.name for move in following.ready))
        yield from self._write(
            Progressed(
                events=events,
                status=self.progress.status,
                context=context,
                in_flight=tuple(dict.fromkeys(in_flight)),
            ),
            result,
            ahead=None if delay > 0 else self._ahead(following.ready),
        )
        if delay > 0:
            yield Delay(delay)
        return None

    def _ahead(self, ready: tuple[Move, ...]) -> tuple[str, type[Part]] | None:
        """Return the transactional step that is next, by its name and class, if it is alone."""
        if self.running or len(ready) != 1 or ready[0].node.kind != "transaction":
            return None
        name = ready[0].node.name
        return name, self.plan.steps[name]

    def _end(
        self,
        events: tuple[LogEntry, ...],
        status: SagaStatus,
        context: str | None = None,
        result: _Result | None = None,
    ) -> Generator[Command, Any, Report | None]:
        """End the saga, unless something came that the log has to tell of: a request to cancel, at the least."""
        seen = self.inbox.read if status is SagaStatus.COMPLETED else None
        ended = Ended(events=events, status=status, context=context, seen=seen)
        return self._ended() if (yield from self._unless_unread(ended, result)) else None

    def _unless_unread(self, transition: Suspended | Ended, result: _Result | None) -> Generator[Command, Any, bool]:
        """Write a transition with which the holder lets go of the saga. Return whether it did.

        If something was delivered that the holder has not read, only the events are written, and the saga goes on.
        """
        if result is not None and result.commits:
            # What was delivered keeps the saga from resting, and must not undo what the step wrote.
            then = replace(transition, events=(), context=None)
            applied = yield from self._write(self._only_the_events(transition), result, then)
            return applied.state is not SagaState.RUNNING
        try:
            yield from self._write(transition, result)
            return True
        except InboxMoved:
            if transition.events:
                yield from self._write(self._only_the_events(transition), result)
            return False

    def _only_the_events(self, transition: Suspended | Ended) -> Progressed:
        return Progressed(
            events=transition.events, status=self.progress.status, context=transition.context, in_flight=()
        )

    def _delay(self, following: tuple[Move, ...], failures: int) -> tuple[float, str]:
        """How long to wait before the first of the moves that follow, and for which step."""
        if not following or self.running:
            return 0.0, ""
        move = following[0]
        now = self.progress.failures_in_a_row(move)
        if now <= failures:
            return 0.0, ""  # it never failed; or it is another compensation, whose turn it is since the last wait
        policy = self.plan.retry_policy(self.progress, move)
        return policy.delay(now, random=self.runtime.random()), move.node.name

    # -- writing ----------------------------------------------------------------------------------------------

    def _write(
        self,
        transition: Transition,
        result: _Result | None = None,
        then: Suspended | Ended | None = None,
        *,
        ahead: tuple[str, type[Part]] | None = None,
    ) -> Generator[Command, Any, Applied]:
        """Write a transition, until the database answers.

        The fence rejects it if the lease was lost meanwhile. After a failure whose effect is unknown, look first
        whether it was applied. A transaction that was not is gone, and with it the effect.

        Raises:
            InboxMoved: something was delivered that the holder has not read; the inbox knows of it.
            _NotCommitted: that transaction.
            StepRolledBack: it could not be committed.
        """
        commits = result is not None and result.commits
        if result is not None and result.tasks and isinstance(transition, Progressed | Suspended | Ended):
            transition = replace(transition, outbox=result.tasks)
        unknown = False
        applied: Applied | None = None
        for failures in count(1):
            try:
                applied = (yield from self._find_applied(transition, then)) if unknown else None
                if applied is None and unknown and commits:
                    raise _NotCommitted
                if applied is None:
                    applied = yield Apply(transition, commits, then, ahead)
                break
            except InboxMoved as error:
                self.inbox.delivered = error.inbox
                raise
            except StorageUnavailable as error:
                unknown = True
                yield from self._wait_for_database(error, failures)
        assert applied is not None
        self.applied, self.inbox.delivered = applied, applied.inbox
        self.status, self.attempts = applied.status, applied.recovery_attempts
        self.stored = self.stored if result is None else result.stored
        if applied.outbox:
            yield SendTasks(applied.outbox)
        if type(self.observer) is not NullObserver:
            for entry in applied.log:
                if entry.status is EntryStatus.ARMED:
                    self.observer.waiting(self.record, entry)
                elif entry.action in (Action.ACT, Action.COMPENSATE):
                    self.observer.step_ended(self.record, entry)
        return applied

    def _wait_for_database(self, error: StorageUnavailable, failures: int) -> Generator[Command, Any, None]:
        """Wait before the database is asked again.

        Raises:
            StorageUnavailable: this process is to stop.
        """
        if (yield Interrupted()) is Interruption.STOPPING:
            raise error
        logger.warning("saga %s (%s): waiting for the database: %s", self.record.id, self.record.name, error)
        yield Delay(database_backoff(failures) * (1 - 0.5 * self.runtime.random()), interruptible=False)

    def _find_applied(
        self, transition: Transition, then: Suspended | Ended | None
    ) -> Generator[Command, Any, Applied | None]:
        """Return what a transition did whose answer was lost, or None if it was not applied."""
        record: SagaRecord = yield Load()
        ours = (record.version, record.lease_token) == (self.lease.version, self.lease.token)
        holds = record.state is SagaState.RUNNING and ours
        written = [e for e in record.log if e.version == self.lease.version and e.worker == self.lease.owner]
        rows = tuple(e for e in written if any(_same(e, event) for event in transition.events))
        if len(rows) < len(transition.events):
            return None
        if not transition.events and holds:
            return None
        last = transition if then is None or holds else then
        if isinstance(last, Ended) and record.state is not SagaState.FINISHED:
            raise LeaseLost(f"saga {record.id}: the lease was lost to another worker while the database was away.")
        if isinstance(last, Progressed) and not holds:
            raise LeaseLost(f"saga {record.id}: the lease was lost to another worker while the database was away.")
        if (then or not transition.events) and record.version != self.lease.version:
            raise LeaseLost(f"saga {record.id}: another worker has acquired it while the database was away.")
        return Applied(
            status=record.status,
            state=record.state,
            recovery_attempts=record.recovery_attempts,
            available_at=record.available_at,
            log=rows,
            inbox=record.inbox,
        )

    # -- giving back ------------------------------------------------------------------------------------------

    def _put_down(self, why: Interruption) -> Generator[Command, Any, Report]:
        if why is Interruption.LOST:
            raise LeaseLost(f"saga {self.record.id}: the lease was lost to another worker; nothing more was done.")
        if why is Interruption.YIELD:
            # Nothing failed, so the lease must not run out, which would count: a database that is away is waited for.
            yield from self._write(GaveBack(status=self.status, after_seconds=_YIELDED_SECONDS))
            return self._report(Outcome.HANDED_OVER, "an operator asked for it, or its name is paused.")
        applied: Applied = yield Apply(GaveBack(status=self.status, queued=True))
        queued_at = applied.available_at and applied.available_at - timedelta(seconds=PROBE_SECONDS)
        yield Send(Claim(self.record.id, self.lease.version, queued_at=queued_at))
        return self._report(Outcome.HANDED_OVER, "this worker is stopping, so the next one goes on.")

    def _fail(self, error: BaseException) -> Generator[Command, Any, Report]:
        message = f"{type(error).__name__}: {_message(error)}"
        ready = self.progress.frontier().ready if hasattr(self, "progress") else ()
        in_flight = tuple(self.running) if self.running or ready else None
        event = holder_failed(error, in_flight)
        failed = failed_attempt(self.runtime, self.attempts, event, last_error=message)
        return self._failed((yield Apply(failed)), failed, message)

    def _failed(self, applied: Applied, failed: FailedAttempt, message: str) -> Report:
        self.status = applied.status
        nth = f"failed attempt {applied.recovery_attempts} of {self.runtime.settings.max_recovery_attempts}"
        if applied.state is SagaState.DEAD:
            return self._report(
                Outcome.DEAD, f"{nth}, so it is dead until an operator revives it: {message}", level=logging.ERROR
            )
        return self._report(Outcome.FAILED, f"{nth}, the next in {failed.after_seconds:.0f} s: {message}")

    def _ended(self) -> Report:
        return self._report(Outcome(self.status.lower()), f"the saga is {self.status}.")

    def _report(self, outcome: Outcome, message: str, *, level: int = logging.INFO) -> Report:
        logger.log(level, "saga %s (%s): %s: %s", self.record.id, self.record.name, outcome, message)
        self.observer.given_back(self.record, outcome)
        return Report.of(self.record, outcome, message, status=self.status, did=tuple(self.did))


def _note(
    what: str,
    *,
    actor: str | None = None,
    reason: str | None = None,
    message: str | None = None,
    signal: dict[str, object] | None = None,
) -> LogEntry:
    """Return a row that says what came from outside, or that a time has passed."""
    return LogEntry(
        step=what,
        action=Action.OPERATOR,
        status=EntryStatus.COMPLETED,
        actor=actor,
        reason=reason,
        message=None if message is None else _cut(message),
        signal=signal,
    )


def _same(row: LogEntry, event: LogEntry) -> bool:
    # An attempt at an action ends once under one lease, so these tell its row from every other. Of requests to cancel
    # and of signals that were refused there may be several.
    ids = [entry.signal and entry.signal["id"] for entry in (row, event)]
    same = (row.step, row.action, row.status, row.attempt) == (event.step, event.action, event.status, event.attempt)
    return same and ids[0] == ids[1]


def _message(error: BaseException) -> str:
    return _cut(message_of(error))


def _cut(text: str) -> str:
    return _storable(text[:_MESSAGE_CHARACTERS])


def _traceback(error: BaseException) -> str:
    return _storable("".join(traceback.format_exception(error))[-_TRACEBACK_CHARACTERS:])


def _storable(text: str) -> str:
    """Text that PostgreSQL can hold, whatever an exception's message holds."""
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}").encode(errors="replace").decode()

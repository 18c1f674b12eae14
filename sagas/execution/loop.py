"""The one loop: ask what is ready, begin it, wait for the first that ends, write its event, ask again."""

from __future__ import annotations

import logging
from collections.abc import Generator
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, Final

from sagas.definition import AnySaga, Call
from sagas.errors import (
    ContextError,
    InboxMoved,
    LeaseLost,
    LogDoesNotFit,
    StepRolledBack,
    StorageUnavailable,
    TransactionRefused,
)
from sagas.execution.commands import Apply, Begin, Command, Delay, Done, Interrupted, Interruption, Loop, Perform, Send
from sagas.execution.declining import decline
from sagas.execution.entries import failed_attempt, failure, holder_failed, message, trace_of
from sagas.execution.held import EndedBefore, Held, NotCommitted, Result, database_backoff, logger
from sagas.execution.outside import Outside, Received
from sagas.execution.report import Outcome, Report
from sagas.failures import is_conflict, is_in_doubt, is_of_the_step, is_retryable
from sagas.graph import Graph
from sagas.inbox import as_logged
from sagas.progress import Action, EntryStatus, Move, SagaStatus, Verdict
from sagas.runtime import Runtime
from sagas.storage.answers import Acquired, Applied
from sagas.storage.records import Claim, LogEntry, SagaState
from sagas.storage.step_transaction import NextStep
from sagas.storage.transitions import PROBE_SECONDS, Ended, FailedAttempt, GaveBack, Progressed, Suspended
from sagas.transactional import StepInTransaction

#: Waits up to this long, or up to the interval of scans, happen in place; a longer one puts the saga down, to be found
#: by the first scan after it.
IN_PLACE_SECONDS: Final = 5.0
#: How long a saga whose yield was requested is left to the operator who requested it.
_YIELDED_SECONDS: Final = 10.0
#: How often a transactional step is performed again because the database rolled it back, until that counts as failed.
_PERFORMED_AGAIN: Final = 10


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
    return _Execution(Held(saga, graph, acquired, runtime)).run()


@dataclass(frozen=True, slots=True)
class _Failure:
    error: BaseException
    in_doubt: bool
    retryable: bool


class _Execution:
    """What is done under one lease of one saga."""

    def __init__(self, held: Held) -> None:
        self.held = held
        self.outside = Outside(held)
        self.runtime = held.runtime
        self.id = str(held.record.id)
        self.traced = {trace_of(entry) for entry in held.record.log if entry.traceback is not None}
        self.calls: dict[str, Call] = {}

    def run(self) -> Loop:
        held = self.held
        try:
            held.open()
            while True:
                report = yield from self._advance()
                if report is not None:
                    return report
        except (LogDoesNotFit, ContextError) as error:
            # As it was; but once this lease has brought it on, as it stands.
            acquired = replace(held.acquired, status_before=held.status) if held.events else held.acquired
            return (yield from decline(acquired, self.runtime, str(error)))
        except LeaseLost as error:
            return held.report(Outcome.LOST, str(error))
        except EndedBefore:
            return held.report_end()
        except (StorageUnavailable, GeneratorExit):
            raise
        except Exception as error:
            logger.exception("saga %s (%s): this attempt failed", held.record.id, held.record.name)
            try:
                return (yield from self._fail(error))
            except LeaseLost as lost:
                return held.report(Outcome.LOST, str(lost))
        except BaseException as error:
            # The process is about to end: whatever comes of counting it must not hide why.
            with suppress(LeaseLost, StorageUnavailable):
                yield from self._fail(error)
            raise

    def _advance(self) -> Generator[Command, Any, Report | None]:
        """Do what is ready; return a report when there is nothing more to do now."""
        held = self.held
        if (yield from self.outside.aborts()):
            return None
        frontier = held.frontier or held.progress.frontier()
        held.frontier = None
        if frontier.end is not None and not held.running:
            return (yield from self._end((), frontier.end))
        interruption = yield Interrupted()
        if interruption is not None and not held.running:
            return (yield from self._put_down(interruption))
        begin = () if interruption is not None else self._to_begin(frontier.ready)
        if not begin and not held.running:
            found = yield from self.outside.attend(frontier.awaiting)
            if not isinstance(found, Received):
                return found
            begin = (self._begin(found.move, found.payload),)
        for each in begin:
            held.running[each.move.node.name] = each.move
            self.calls[each.move.node.name] = each.call
        done: Done = yield Perform(begin)
        del held.running[done.move.node.name]
        return (yield from self._after(done))

    def _to_begin(self, ready: tuple[Move, ...]) -> tuple[Begin, ...]:
        running = self.held.running
        if self.held.progress.aborted and any(move.action is Action.ACT for move in running.values()):
            return ()  # what is in flight ends first
        free = self.runtime.at_once - len(running)
        new = [move for move in ready if move.node.name not in running][: max(free, 0)]
        return tuple(self._begin(move) for move in new)

    def _begin(self, move: Move, signal: Any = None) -> Begin:
        call = Call(
            saga_id=self.held.record.id,
            step_name=move.node.name,
            attempt=move.attempt,
            idempotency_key=f"{self.id}:{move.node.name}:{move.action}",
        )
        return Begin(move, self.held.plan.steps[move.node.name], call, self.held.stored.context, signal)

    # -- after an action --------------------------------------------------------------------------------------

    def _after(self, done: Done) -> Generator[Command, Any, Report | None]:
        held, move = self.held, done.move
        transactional = move.node.transactional
        policy = held.plan.retry_policy(held.progress, move)
        if done.error is not None:
            if not is_of_the_step(done.error):
                held.running[move.node.name] = move  # it may have taken effect
                raise done.error
            rolled_back = transactional and (isinstance(done.error, StorageUnavailable) or is_conflict(done.error))
            if rolled_back and (yield from self._may_perform_again(move)):
                return None
            in_doubt = move.node.doubtful and is_in_doubt(done.error, self.runtime.in_doubt_on)
            failed = _Failure(done.error, in_doubt, is_retryable(done.error, policy.retry_on))
            return (yield from self._after_failure(move, failed))
        try:
            # Read back too, or a value that no recovery could load would strand the saga here.
            context = held.stored.context if done.returned is None else done.returned
            changed = held.saga.codec.after_step(context, held.stored)
        except ContextError as error:
            # The effect is there and its result cannot be kept: doing it again would end the same way.
            return (yield from self._after_failure(move, _Failure(error, move.node.doubtful, retryable=False)))
        done_by = "received" if move.node.waits else "acted" if move.action is Action.ACT else "compensated"
        held.events.append(f"{move.node.name}: {done_by}")
        entry = LogEntry.of(move, EntryStatus.COMPLETED)
        if (signal := self.outside.received(move)) is not None:
            entry = replace(entry, actor=signal.actor, reason=signal.reason, signal=as_logged(signal))
        result = Result(changed, tuple(self.calls[move.node.name].enqueued), commits=transactional)
        try:
            report = yield from self._go_on(move, entry, result=result)
        except (NotCommitted, StepRolledBack, TransactionRefused, LeaseLost) as error:
            if not transactional:
                raise
            return (yield from self._after_rollback(move, error))
        held.again.pop(move.node.name, None)
        return report

    def _after_rollback(self, move: Move, error: Exception) -> Generator[Command, Any, Report | None]:
        """Go on from the log after the transaction of a step that had returned was rolled back."""
        held = self.held
        held.events.pop()
        yield from held.read_again()
        frontier = held.progress.frontier()
        if frontier.end is not None or move not in frontier.ready:
            return None  # an earlier COMMIT, whose answer was lost, has come late
        if isinstance(error, LeaseLost):
            raise error
        cause = error.cause if isinstance(error, StepRolledBack) and error.cause is not None else error
        rolled_back = isinstance(error, NotCommitted) or is_conflict(cause)
        if rolled_back and (yield from self._may_perform_again(move)):
            return None
        policy = held.plan.retry_policy(held.progress, move)
        return (yield from self._after_failure(move, _Failure(cause, False, is_retryable(cause, policy.retry_on))))

    def _may_perform_again(self, move: Move) -> Generator[Command, Any, bool]:
        """Whether a transactional step is performed again, which spends no attempt: the database rolled it back."""
        held = self.held
        held.again[move.node.name] += 1
        times = held.again[move.node.name]
        if times > _PERFORMED_AGAIN:
            return False
        held.log(
            logging.WARNING,
            "step %s, %s was rolled back by the database, and is performed again",
            *(move.node.name, move.action),
        )
        yield Delay(database_backoff(times) * (1 - 0.5 * self.runtime.random()))
        yield from held.read_again()
        return True

    def _after_failure(self, move: Move, failed: _Failure) -> Generator[Command, Any, Report | None]:
        held = self.held
        policy = held.plan.retry_policy(held.progress, move)
        verdict = held.progress.judge_failure(move, retryable=failed.retryable, max_attempts=policy.max_attempts)
        self.outside.put_back(move)
        entry = failure(move, failed.error, verdict, in_doubt=failed.in_doubt, traced=self.traced)
        self.traced.add(trace_of(entry))
        held.events.append(f"{move.node.name}: {move.action} failed ({entry.error_type}), {verdict}")
        held.log(
            # A retry is what the step's policy expects; nobody need see to it.
            logging.INFO if verdict is Verdict.RETRY else logging.WARNING,
            "step %s, %s, attempt %d failed, %s: %s: %s",
            *(move.node.name, move.action, move.attempt, verdict, entry.error_type, entry.message),
        )
        if verdict is Verdict.FAIL_ATTEMPT and not held.running:
            attempt = failed_attempt(self.runtime, held.attempts, entry)
            return self._failed((yield from held.write(attempt)), attempt, str(entry.message))
        report = yield from self._go_on(move, entry)
        if report is None:
            # What a failed attempt did to the context is not part of the saga. Only once the failure is written: should
            # the context no longer validate (a date that has passed, say), the step's doubt must not be forgotten.
            held.stored = replace(held.stored, context=held.saga.codec.load(held.stored.text))
        return report

    def _go_on(
        self, move: Move, entry: LogEntry, *, result: Result | None = None
    ) -> Generator[Command, Any, Report | None]:
        """Write how an action ended, and everything that follows from it; wait if what comes next has failed before."""
        held, progress = self.held, self.held.progress
        failures = progress.failures_in_a_row(move)
        progress.add(entry)
        following = held.frontier = progress.frontier()
        context = None if result is None or result.stored.text == held.stored.text else result.stored.text
        events: tuple[LogEntry, ...] = (entry,)
        if following.end is not None and not held.running:
            return (yield from self._end(events, following.end, context, result))
        delay, name = self._delay((*following.ready, *following.awaiting), failures)
        if delay > max(IN_PLACE_SECONDS, self.runtime.settings.scan_interval_seconds):
            if (deadline := self.outside.deadline) is not None and not progress.past_pivot:
                # It aborts the saga. Past the pivot it would only make the retry early.
                delay = min(delay, max((deadline - held.now).total_seconds(), 0.0))
            suspended = Suspended(
                events=events, status=progress.status, context=context, after_seconds=delay, seen=held.inbox.read
            )
            while not (yield from self._unless_unread(suspended, result)):
                yield from self.outside.aborts()
                if progress.aborted:
                    return None
                # What came ends no wait for a retry.
                suspended, result = replace(suspended, events=(), context=None, seen=held.inbox.read), None
            return held.report(Outcome.WAITING, f"{name} is tried again in {delay:.0f} s.")
        in_flight = (*held.running, *(move.node.name for move in following.ready))
        yield from held.write(
            Progressed(
                events=events,
                status=progress.status,
                context=context,
                in_flight=tuple(dict.fromkeys(in_flight)),
            ),
            result,
            ahead=None if delay > 0 else self._ahead(following.ready),
        )
        if delay > 0:
            yield Delay(delay)
        return None

    def _delay(self, following: tuple[Move, ...], failures: int) -> tuple[float, str]:
        """How long to wait before the first of the moves that follow, and for which step."""
        if not following or self.held.running:
            return 0.0, ""
        move, progress = following[0], self.held.progress
        now = progress.failures_in_a_row(move)
        if now <= failures:
            return 0.0, ""  # it never failed; or it is another compensation, whose turn it is since the last wait
        policy = self.held.plan.retry_policy(progress, move)
        return policy.delay(now, random=self.runtime.random()), move.node.name

    def _ahead(self, ready: tuple[Move, ...]) -> NextStep | None:
        """Return the transactional step that is next, if it is alone."""
        if self.held.running or len(ready) != 1 or not ready[0].node.transactional:
            return None
        name = ready[0].node.name
        part = self.held.plan.steps[name]
        assert issubclass(part, StepInTransaction)
        return name, part.session_kind

    # -- giving back ------------------------------------------------------------------------------------------

    def _end(
        self,
        events: tuple[LogEntry, ...],
        status: SagaStatus,
        context: str | None = None,
        result: Result | None = None,
    ) -> Generator[Command, Any, Report | None]:
        """End the saga, unless something came that the log has to tell of: a request to cancel, at the least."""
        seen = self.held.inbox.read if status is SagaStatus.COMPLETED else None
        ended = Ended(events=events, status=status, context=context, seen=seen)
        return self.held.report_end() if (yield from self._unless_unread(ended, result)) else None

    def _unless_unread(self, transition: Suspended | Ended, result: Result | None) -> Generator[Command, Any, bool]:
        """Write a transition with which the holder lets go of the saga. Return whether it did.

        If something was delivered that the holder has not read, only the events are written, and the saga goes on.
        """
        held = self.held
        if result is not None and result.commits:
            # What was delivered keeps the saga from resting, and must not undo what the step wrote.
            then = replace(transition, events=(), context=None)
            applied = yield from held.write(self._only_the_events(transition), result, then)
            return applied.state is not SagaState.RUNNING
        try:
            yield from held.write(transition, result)
            return True
        except InboxMoved:
            if transition.events:
                yield from held.write(self._only_the_events(transition), result)
            return False

    def _only_the_events(self, transition: Suspended | Ended) -> Progressed:
        status = self.held.progress.status
        return Progressed(events=transition.events, status=status, context=transition.context, in_flight=())

    def _put_down(self, why: Interruption) -> Generator[Command, Any, Report]:
        held = self.held
        if why is Interruption.LOST:
            raise held.lost()
        if why is Interruption.YIELD:
            # Nothing failed, so the lease must not run out, which would count: a database that is away is waited for.
            yield from held.write(GaveBack(status=held.status, after_seconds=_YIELDED_SECONDS))
            return held.report(Outcome.HANDED_OVER, "an operator asked for it, or its name is paused.")
        applied: Applied = yield Apply(GaveBack(status=held.status, queued=True))
        queued_at = applied.available_at and applied.available_at - timedelta(seconds=PROBE_SECONDS)
        yield Send(Claim(held.record.id, held.lease.version, queued_at=queued_at))
        return held.report(Outcome.HANDED_OVER, "this worker is stopping, so the next one goes on.")

    def _fail(self, error: BaseException) -> Generator[Command, Any, Report]:
        held = self.held
        text = f"{type(error).__name__}: {message(error)}"
        ready = held.progress.frontier().ready if hasattr(held, "progress") else ()
        in_flight = tuple(held.running) if held.running or ready else None
        failed = failed_attempt(self.runtime, held.attempts, holder_failed(error, in_flight), last_error=text)
        return self._failed((yield Apply(failed)), failed, text)

    def _failed(self, applied: Applied, failed: FailedAttempt, text: str) -> Report:
        held = self.held
        held.status = applied.status
        nth = f"failed attempt {applied.recovery_attempts} of {self.runtime.settings.max_recovery_attempts}"
        if applied.state is SagaState.DEAD:
            return held.report(
                Outcome.DEAD, f"{nth}, so it is dead until an operator revives it: {text}", level=logging.ERROR
            )
        return held.report(Outcome.FAILED, f"{nth}, the next in {failed.after_seconds:.0f} s: {text}")

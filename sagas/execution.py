"""The one loop: ask `progress`, perform, checkpoint. Forward, backward and recovered runs all go through it."""

from __future__ import annotations

import logging
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from itertools import count
from random import random
from typing import Any, Final
from uuid import UUID

from sagas.context import Stored
from sagas.definition import AnySaga, Call, Resolver, Step, backoff
from sagas.errors import ContextError, LeaseLost, LogDoesNotFit, StorageUnavailable
from sagas.failures import is_in_doubt, is_of_the_step, is_retryable, message_of
from sagas.lease import Heartbeat, Lease
from sagas.performing import perform
from sagas.plan import Plan, plan_as_started
from sagas.progress import (
    Action,
    End,
    EntryStatus,
    Perform,
    SagaStatus,
    Verdict,
    failures_in_a_row,
    judge_failure,
    next_move,
    retry_policy,
    status_before,
)
from sagas.settings import Settings
from sagas.storage.base import Claim, ISagaStorage, LogEntry, Release, SagaRecord, Taken
from sagas.telemetry.logs import about, saga_logger, working_on
from sagas.telemetry.observer import NOBODY, Observer
from sagas.text import printable

logger = saga_logger(__name__)

#: Waits up to this long, or up to the interval of scans, happen in place; a longer one puts the saga down, to be found
#: by the first scan after it.
IN_PLACE_SECONDS: Final = 5.0
#: How long the mark of a dispatch protects it before scans ask the broker whether its message still waits.
MARK_SECONDS: Final = 4.0
#: How long a saga that was asked back is left to the operator who asked for it.
_ASKED_BACK_SECONDS: Final = 10.0
#: How often a worker that waits looks whether it is to stop.
_LOOK_SECONDS: Final = 0.1
#: A traceback is for a reader, and its end says most.
_TRACEBACK_CHARACTERS: Final = 4000
_MESSAGE_CHARACTERS: Final = 2000
#: A worker whose code does not fit leaves the saga alone for as long as it has been stuck, between these bounds.
_DECLINE_SECONDS: Final = (5.0, 60.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What one call did for a saga.

    Attributes:
        saga_id: which saga.
        name: its name.
        status: how it stands now.
        outcome: completed, compensated, waiting, failed, dead, declined, handed over, lost or skipped.
        did: what was done, in order.
        message: the same in a sentence.
    """

    saga_id: UUID
    name: str
    status: SagaStatus
    outcome: str
    did: tuple[str, ...] = ()
    message: str = ""

    def __post_init__(self) -> None:
        # They quote errors and names, and are read in terminals and logs.
        object.__setattr__(self, "did", tuple(map(printable, self.did)))
        object.__setattr__(self, "message", printable(self.message))

    def as_json(self) -> dict[str, Any]:
        """Return it as plain data, which reads well in Flower: what a reader wants first, what may be long last."""
        return {
            "name": self.name,
            "outcome": self.outcome,
            "message": self.message,
            "status": str(self.status),
            "saga_id": str(self.saga_id),
            "did": list(self.did),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Runtime:
    """What an execution needs from the process it runs in.

    Attributes:
        owner: the name under which this process holds leases.
        resolve: builds a step from its class.
        stopping: whether the process was asked to stop at the next step's boundary.
        send: publishes the message for a saga that this process gives back.
        in_doubt_on: exceptions raised into a step from outside, after which it may have taken effect.
        observer: is told what happens; None for nobody.
        sleep: injected, as is `random`, so that tests need not wait.
    """

    storage: ISagaStorage
    heartbeat: Heartbeat
    settings: Settings
    owner: str
    resolve: Resolver
    stopping: Callable[[], bool]
    send: Callable[[Claim], None]
    in_doubt_on: tuple[type[BaseException], ...] = ()
    observer: Observer | None = None
    sleep: Callable[[float], None] = time.sleep
    random: Callable[[], float] = random


def execute(saga: AnySaga, taken: Taken, runtime: Runtime) -> Report:
    """Bring a saga that this process has taken as far as it goes now, and give it back.

    Raises:
        StorageUnavailable: the database went away and this process is to stop; the lease runs out by itself.
        BaseException: what ends the process itself (SystemExit, KeyboardInterrupt), once the attempt is counted.
    """
    work = working_on.set((taken.record, None))
    try:
        with (
            giving_back_on_error(taken, runtime),
            runtime.heartbeat.keep(taken.hold) as lease,
            (runtime.observer or NOBODY).running(taken),
        ):
            return _Execution(saga, taken, runtime, lease).run()
    finally:
        working_on.reset(work)


@contextmanager
def giving_back_on_error(taken: Taken, runtime: Runtime) -> Iterator[None]:
    """Give the saga back with a failed attempt if the block raises what is no fault of the saga's.

    An observer that fails, say, or a process that can start no thread. Nothing is done to a saga that was given back.
    """
    try:
        yield
    except (LeaseLost, StorageUnavailable):
        raise
    except Exception as error:
        message = f"{type(error).__name__}: {_message(error)}"
        release = _failed_attempt(runtime, taken.record.recovery_attempts, interrupted=True, last_error=message)
        with suppress(Exception):  # it must not hide what happened
            runtime.storage.release(taken.hold, release)
        raise


def decline(taken: Taken, runtime: Runtime, reason: str) -> Report:
    """Give a saga back that this process's code does not fit: as it was, no attempt spent, the reason kept."""
    record = taken.record
    moved_at = max((entry.created_at for entry in record.log if entry.created_at), default=record.created_at)
    shortest, longest = _DECLINE_SECONDS
    stuck = (record.updated_at - moved_at).total_seconds()
    after = min(longest, max(shortest, stuck)) * (1 - 0.1 * runtime.random())
    release = Release(status=taken.status_before, after_seconds=after, last_error=f"declined: {reason}")
    outcome, message = "declined", f"left as it was for {after:.0f} s, no attempt spent: {reason}"
    try:
        runtime.storage.release(taken.hold, release)
    except LeaseLost as error:
        outcome, message = "lost", str(error)
    logger.warning(
        "saga %s (%s): %s: %s", record.id, record.name, outcome, message, extra=about(record.id, record.name)
    )
    (runtime.observer or NOBODY).given_back(record, outcome)
    return Report(saga_id=record.id, name=record.name, status=taken.status_before, outcome=outcome, message=message)


class _Failed(Exception):
    """An action of a step raised."""

    def __init__(self, error: BaseException, *, in_doubt: bool, retryable: bool) -> None:
        super().__init__(_message(error))
        self.error = error
        self.in_doubt = in_doubt
        self.retryable = retryable


class _Execution:
    """One hold of one saga, from taking it to giving it back."""

    def __init__(self, saga: AnySaga, taken: Taken, runtime: Runtime, lease: Lease) -> None:
        self.saga = saga
        self.taken = taken
        self.hold = taken.hold
        self.record: SagaRecord = taken.record
        self.id = str(taken.record.id)
        self.runtime = runtime
        self.observer = runtime.observer
        self.lease = lease
        self.status = taken.record.status
        self.log = list(taken.record.log)
        self.stored: Stored[Any]
        self.plan: Plan
        self.move: Perform | End
        # Whether the next action may have been begun by a holder that was cut off.
        self.interrupted = taken.record.interrupted
        self.attempts = taken.record.recovery_attempts
        self.steps: dict[type[Step[Any]], Step[Any]] = {}
        self.did: list[str] = []

    def run(self) -> Report:
        try:
            return self._run()
        except LeaseLost as error:
            return self._report("lost", str(error))

    def _run(self) -> Report:
        try:
            self.plan = plan_as_started(self.saga, self.record.definition_version)
            self.move = next_move(self.plan, self.log)
            self.stored = self.saga.codec.reopen(self.record.context)
            if self.interrupted and self.observer is not None and self.taken.status_before is not SagaStatus.FAILED:
                self.observer.taken_over(self.record)
            while (report := self._advance()) is None:
                pass
        except (LogDoesNotFit, ContextError) as error:
            # As it was; but once this hold has brought it on, as it stands.
            taken = replace(self.taken, status_before=self.status) if self.did else self.taken
            return decline(taken, self.runtime, str(error))
        except (LeaseLost, StorageUnavailable):
            raise
        except Exception as error:
            logger.exception("saga %s (%s): this attempt failed", self.record.id, self.record.name)
            return self._give_up(error)
        except BaseException as error:
            # The process is about to end: whatever comes of counting it must not hide why.
            with suppress(LeaseLost, StorageUnavailable):
                self._give_up(error)
            raise
        return report

    def _advance(self) -> Report | None:
        """Make the next move; return a report when there is nothing more to do now."""
        move = self.move
        if isinstance(move, End):
            self._checkpoint(None, status=move.status)
            return self._ended()
        if self.runtime.stopping():
            return self._hand_over()
        if self.lease.lost:
            raise LeaseLost(f"saga {self.record.id}: the lease was lost to another worker; nothing more was done.")
        if self.lease.asked_back:
            return self._hand_back()
        try:
            changed = self._perform(move)
        except _Failed as failure:
            return self._after_failure(move, failure)
        self.did.append(f"{move.step.name}: {'acted' if move.action is Action.ACT else 'compensated'}")
        entry = LogEntry(step=move.step.name, action=move.action, status=EntryStatus.COMPLETED, attempt=move.attempt)
        if self.plan.compensate_past_failures and move.action is Action.COMPENSATE:
            return self._go_on(move, entry, stored=changed)
        self._checkpoint_move(entry, stored=changed)
        return self._ended() if self.status.finished else None

    def _perform(self, move: Perform) -> Stored[Any]:
        """Perform the action; return the context as it is to be stored then."""
        kind = move.step.kind
        step = self.steps.get(kind) or self.steps.setdefault(kind, self.runtime.resolve(kind))
        call = Call(
            saga_id=self.record.id,
            step_name=move.step.name,
            attempt=move.attempt,
            idempotency_key=f"{self.id}:{move.step.name}:{move.action}",
        )
        action = partial(step.act if move.action is Action.ACT else step.compensate, self.stored.context, call)
        self.lease.work = work = (self.record, move)
        working_on.set(work)
        try:
            if self.observer is None:
                returned = perform(action, timeout=kind.timeout)
            else:
                with self.observer.acting(self.record, move):
                    returned = perform(action, timeout=kind.timeout)
        except BaseException as error:
            if not is_of_the_step(error):
                raise
            retry_on = retry_policy(self.plan, self.log, move).retry_on
            in_doubt = is_in_doubt(error, self.runtime.in_doubt_on)
            raise _Failed(error, in_doubt=in_doubt, retryable=is_retryable(error, retry_on)) from error
        try:
            # Read back too, or a value that no recovery could load would strand the saga here.
            context = self.stored.context if returned is None else returned
            return self.saga.codec.after_step(context, self.stored)
        except ContextError as error:
            # The effect is there and its result cannot be kept: doing it again would end the same way.
            raise _Failed(error, in_doubt=True, retryable=False) from error

    def _after_failure(self, move: Perform, failure: _Failed) -> Report | None:
        verdict = judge_failure(self.plan, self.log, move, retryable=failure.retryable)
        retried = verdict is Verdict.RETRY
        error_type, message = type(failure.error).__name__, _message(failure.error)
        entry = LogEntry(
            step=move.step.name,
            action=move.action,
            status=EntryStatus.FAILED,
            attempt=move.attempt,
            verdict=verdict,
            in_doubt=failure.in_doubt or self.interrupted,
            error_type=error_type,
            message=message,
            # The log is read whole at each recovery: a step that polls must not fill it with one traceback.
            traceback=None if retried and self._was_traced(move, error_type, message) else _traceback(failure.error),
        )
        self.did.append(f"{move.step.name}: {move.action} failed ({entry.error_type}), {verdict}")
        # A retry is what the step's policy expects; nobody need see to it.
        logger.log(
            logging.INFO if retried else logging.WARNING,
            "saga %s (%s): step %s, %s, attempt %d failed, %s: %s: %s",
            *(self.record.id, self.record.name, move.step.name, move.action, move.attempt, verdict),
            *(entry.error_type, entry.message),
        )
        if verdict in (Verdict.TURN_BACK, Verdict.SET_ASIDE):
            self._checkpoint_move(entry)
            if self.status.finished:
                return self._ended()
            self._reload()
            return None
        if verdict is Verdict.GIVE_UP:
            release = _failed_attempt(self.runtime, self.attempts)
            self._checkpoint(entry, status=release.status, release=release)
            return self._gave_up(release, entry.message or "")
        return self._go_on(move, entry)

    def _was_traced(self, move: Perform, error_type: str, message: str) -> bool:
        failure = (move.step.name, move.action, error_type, message)
        return any((e.step, e.action, e.error_type, e.message) == failure and e.traceback for e in self.log)

    def _go_on(self, move: Perform, entry: LogEntry, *, stored: Stored[Any] | None = None) -> Report | None:
        """Checkpoint, and wait if what comes next has failed before."""
        delay, name = self._delay(move, entry)
        if delay > max(IN_PLACE_SECONDS, self.runtime.settings.scan_interval_seconds):
            release = Release(status=self.status, after_seconds=delay)
            self._checkpoint(entry, status=self.status, stored=stored, release=release)
            return self._report("waiting", f"{name} is tried again in {delay:.0f} s.")
        self._checkpoint_move(entry, stored=stored)
        if self.status.finished:
            return self._ended()
        if entry.status is EntryStatus.FAILED:
            self._reload()
        self._wait(delay)
        return None

    def _delay(self, move: Perform, entry: LogEntry) -> tuple[float, str]:
        """How long to wait after this move, which ended so, and for which step."""
        log = [*self.log, entry]
        following = next_move(self.plan, log)
        if isinstance(following, End):
            return 0.0, ""
        failures = failures_in_a_row(log, following)
        if failures <= failures_in_a_row(self.log, move):
            return 0.0, ""  # it never failed; or it is another compensation, whose turn it is since the last wait
        policy = retry_policy(self.plan, log, following)
        return policy.delay(failures, random=self.runtime.random()), following.step.name

    def _reload(self) -> None:
        # What a failed attempt did to the context is not part of the saga. Only once the failure is logged: should the
        # context no longer validate (a date that has passed, say), it must not be forgotten that a step is in doubt.
        self.stored = replace(self.stored, context=self.saga.codec.load(self.stored.text))

    def _wait(self, seconds: float) -> None:
        left = seconds
        while left > 0 and not (self.runtime.stopping() or self.lease.lost or self.lease.asked_back):
            self.runtime.sleep(min(left, _LOOK_SECONDS))
            left -= _LOOK_SECONDS

    # -- writing ----------------------------------------------------------------------------------------------

    def _checkpoint_move(self, entry: LogEntry, *, stored: Stored[Any] | None = None) -> None:
        """Write how a move ended, and where the saga stands then: the last checkpoint also ends it."""
        following = next_move(self.plan, [*self.log, entry])
        self._checkpoint(entry, status=status_before(following), stored=stored)
        self.move = following

    def _checkpoint(
        self,
        entry: LogEntry | None,
        *,
        status: SagaStatus,
        stored: Stored[Any] | None = None,
        release: Release | None = None,
    ) -> None:
        context = None if stored is None or stored.text == self.stored.text else stored.text
        write = partial(
            self.runtime.storage.checkpoint, self.hold, entry, status=status, context=context, release=release
        )
        gives_back = release is not None or status.finished
        self._persist(write, partial(self._took_effect, entry, status, gives_back=gives_back))
        self.status = status
        self.stored = self.stored if stored is None else stored
        self.interrupted = False
        if entry is not None:
            self.attempts = self.attempts if entry.status is EntryStatus.FAILED else 0
            self.log.append(entry)
            if self.observer is not None:
                self.observer.step_ended(self.record, entry)

    def _persist(self, write: Callable[[], None], took_effect: Callable[[], bool]) -> None:
        """Write, for as long as it takes: a worker whose database is away has nothing better to do.

        The fence decides, once the database answers; a write whose answer was lost is not repeated.
        """
        in_question = False
        for failures in count(1):
            try:
                if not (in_question and took_effect()):
                    write()
                return
            except StorageUnavailable as error:
                in_question = True
                if self.runtime.stopping():
                    raise
                logger.warning("saga %s (%s): waiting for the database: %s", self.record.id, self.record.name, error)
                self.runtime.sleep(backoff(failures, first=0.1, factor=2, cap=2.0) * (1 - 0.5 * self.runtime.random()))

    def _took_effect(self, entry: LogEntry | None, status: SagaStatus, *, gives_back: bool) -> bool:
        now = self.runtime.storage.load(self.record.id)
        if entry is None:
            return now.status is status and now.version == self.hold.version
        key = (self.hold.version, entry.step, entry.action, entry.status, entry.attempt)
        stands = any(key == (e.version, e.step, e.action, e.status, e.attempt) for e in now.log)
        still_ours = (now.version, now.lease_owner) == (self.hold.version, self.hold.owner)
        if stands and not gives_back and not still_ours:
            raise LeaseLost(f"saga {self.record.id}: the lease was lost to another worker while the database was away.")
        return stands

    def _is_given_back(self) -> bool:
        now = self.runtime.storage.load(self.record.id)
        return (now.version, now.lease_owner) != (self.hold.version, self.hold.owner)

    # -- giving back ------------------------------------------------------------------------------------------

    def _hand_over(self) -> Report:
        release = Release(status=self.status, to_queue=True, after_seconds=MARK_SECONDS)
        self.runtime.storage.release(self.hold, release)
        self.runtime.send(Claim(self.record.id, self.hold.version))
        return self._report("handed over", "this worker is stopping, so the next one goes on.")

    def _hand_back(self) -> Report:
        release = Release(status=self.status, after_seconds=_ASKED_BACK_SECONDS)
        # Nothing failed, so the lease must not run out, which would count: a database that is away is waited for.
        self._persist(partial(self.runtime.storage.release, self.hold, release), self._is_given_back)
        return self._report("handed over", "an operator asked for it, or its name is paused.")

    def _give_up(self, error: BaseException) -> Report:
        message = f"{type(error).__name__}: {_message(error)}"
        release = _failed_attempt(self.runtime, self.attempts, interrupted=True, last_error=message)
        self.runtime.storage.release(self.hold, release)
        return self._gave_up(release, message)

    def _gave_up(self, release: Release, message: str) -> Report:
        self.status = SagaStatus.FAILED
        nth = f"failed attempt {self.attempts + 1} of {release.max_recovery_attempts}"
        if self.attempts + 1 >= release.max_recovery_attempts:
            return self._report(
                "dead",
                f"{nth}, so it is dead until an operator revives it: {message}",
                level=logging.ERROR,
            )
        return self._report("failed", f"{nth}, the next in {release.after_seconds:.0f} s: {message}")

    def _ended(self) -> Report:
        return self._report(str(self.status).lower(), f"the saga is {self.status}.")

    def _report(self, outcome: str, message: str, *, level: int = logging.INFO) -> Report:
        logger.log(level, "saga %s (%s): %s: %s", self.record.id, self.record.name, outcome, message)
        if self.observer is not None:
            self.observer.given_back(self.record, outcome)
        return Report(
            saga_id=self.record.id,
            name=self.record.name,
            status=self.status,
            outcome=outcome,
            did=tuple(self.did),
            message=message,
        )


def _failed_attempt(
    runtime: Runtime, attempts: int, *, interrupted: bool = False, last_error: str | None = None
) -> Release:
    settings = runtime.settings
    full = backoff(attempts + 1, first=settings.backoff_seconds, factor=2, cap=settings.max_backoff_seconds)
    return Release(
        status=SagaStatus.FAILED,
        failed_attempt=True,
        max_recovery_attempts=settings.max_recovery_attempts,
        after_seconds=full * (1 - 0.2 * runtime.random()),
        interrupted=interrupted,
        last_error=last_error,
    )


def _message(error: BaseException) -> str:
    return _storable(message_of(error)[:_MESSAGE_CHARACTERS])


def _traceback(error: BaseException) -> str:
    return _storable("".join(traceback.format_exception(error))[-_TRACEBACK_CHARACTERS:])


def _storable(text: str) -> str:
    """Text that PostgreSQL can hold, whatever an exception's message holds."""
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}").encode(errors="replace").decode()

"""One run of a saga as planned: real engine, storage in memory, and processes that die where the plan says.

A crash is like SIGKILL: nothing of the engine or of the step runs after it, and the next process begins with new steps,
once the lease of the dead one has run out.
"""

from __future__ import annotations

import asyncio
import inspect
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, Generic, TypeVar, cast
from uuid import UUID

from sagas.context import ContextT
from sagas.definition import PATIENT, AnySaga, Call, Saga, Step
from sagas.errors import OutcomeUnknown
from sagas.execution import Runtime
from sagas.lease import Heartbeat, Lease
from sagas.progress import Action, EntryStatus, SagaStatus, Verdict
from sagas.recovery import recover
from sagas.registry import Registry
from sagas.settings import Settings
from sagas.storage.contract import ISagaStorage
from sagas.storage.records import Lease, LogEntry, NewSaga, SagaRecord
from sagas.storage.transitions import describe
from sagas.storage.memory import MemorySagaStorage
from sagas.testing.clock import FakeClock
from sagas.testing.crashes.keepsakes import Keepsake, Watch
from sagas.testing.crashes.plan import Failure, How, InjectedFailure, Moment, Place, Plan, retryable_error
from sagas.testing.crashes.snapshot import Content, content

WorldT = TypeVar("WorldT")

#: The same in every run, so that idempotency keys are too.
SAGA_ID: Final = UUID("00000000-0000-7000-8000-000000000001")
_SETTINGS: Final = Settings()
#: More than any saga needs that ends.
_MOST_PROCESSES: Final = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome(Generic[ContextT]):
    """How a run ended, for a `check` of your own.

    Attributes:
        status: COMPLETED or COMPENSATED.
        context: as it was stored last.
        plan: what went wrong in this run: `plan.failure` and `plan.crashes`; as text it is one line.
        log: the saga's log, oldest row first.
    """

    status: SagaStatus
    context: ContextT
    plan: Plan
    log: tuple[LogEntry, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Case(Generic[ContextT, WorldT]):
    """What is the same in every run: the saga, and how its user makes and looks at the rest."""

    saga: type[Saga[ContextT]]
    make_world: Callable[[], WorldT]
    make_context: Callable[[WorldT], ContextT]
    make_step: Callable[[type[Step[Any]], WorldT], Step[Any]]
    look: Callable[[WorldT], object]
    check: Callable[[WorldT, Outcome[ContextT]], object] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What was seen of one run.

    Attributes:
        plan: what went wrong.
        trace: the places it came by, those of its crashes among them.
        status: how the saga ended; FAILED when it did not end.
        error: why a step failed last, or why the saga did not end.
        failed_step: that step.
        raised: the last exception that a step raised by itself.
        struck: whether the planned failure of a step came about.
        calls: how often each action was begun, those left out that were to fail before they took effect.
        succeeded: the actions that returned.
        keepsakes: what only the memory of its first process held, and the length of the trace when it appeared.
        world: what the world held at the end.
        context: what the stored context held at the end.
        refused: what `check` says against it.
    """

    plan: Plan
    trace: tuple[Place, ...]
    status: SagaStatus
    error: str | None
    failed_step: str | None
    raised: BaseException | None
    struck: bool
    calls: Counter[tuple[str, Action]]
    succeeded: set[tuple[str, Action]]
    keepsakes: dict[Keepsake, int]
    world: Content
    context: Content
    refused: str | None


def rehearse(
    case: Case[ContextT, WorldT],
    failure: Failure | None = None,
    crashes: Collection[int] = (),
    *,
    watch: bool = False,
) -> Run:
    """Run the saga until it ended.

    Args:
        case: the saga.
        failure: the step that fails.
        crashes: positions in the run's trace at which the process crashes.
        watch: look for what only the process's memory holds.
    """
    world = case.make_world()
    clock = FakeClock()
    storage = MemorySagaStorage(clock)
    script = _Script(failure, crashes)
    context = case.make_context(world)
    keepsakes = Watch(case.saga, world, case.make_step) if watch else None
    new = NewSaga(
        id=SAGA_ID,
        name=case.saga.stored_name(),
        context=case.saga.codec.dump_checked(context),
        definition_version=case.saga.definition_version,
    )
    storage.create_sagas([new], owner=None)
    if keepsakes is not None:
        keepsakes.look_at_context(context, "", None, at=0)
    registry = Registry([case.saga])
    heartbeat = _NoHeartbeat(storage, _SETTINGS.lease_seconds)
    for process in range(1, _MOST_PROCESSES):
        script.begin(process)
        runtime = Runtime(
            storage=cast(ISagaStorage, _Connection(storage, script)),
            heartbeat=heartbeat,
            settings=_SETTINGS,
            owner=f"process {process}",
            resolve=lambda step: _RehearsedStep(step, case.make_step(step, world), script, keepsakes),
            stopping=lambda: False,
            send=lambda _: None,
            sleep=clock.advance,
            random=lambda: 0.0,
        )
        try:
            report = recover(SAGA_ID, runtime=runtime, registry=registry)
        except Crash:
            report = None
        record = storage.load(SAGA_ID)
        # A worker whose code does not fit leaves a saga to others, and here are none.
        if record.status.finished or record.available_at is None or (report and report.outcome == "declined"):
            break
        if _only_more_of_the_same(case.saga, record):
            break
        clock.advance(max((record.available_at - clock()).total_seconds(), 0.0))
    plan = Plan(failure, tuple(script.trace[index] for index in sorted(crashes) if index < len(script.trace)))
    finished = record.status.finished
    failed = [entry for entry in record.log if entry.status is EntryStatus.FAILED]
    return Run(
        plan=plan,
        trace=tuple(script.trace),
        status=record.status if finished else SagaStatus.FAILED,
        error=describe(failed[-1]) if failed else record.last_error,
        failed_step=failed[-1].step if failed else None,
        raised=script.raised,
        struck=script.struck,
        calls=script.calls,
        succeeded=script.succeeded,
        keepsakes=keepsakes.found if keepsakes is not None else {},
        world=content(case.look(world)),
        context=content(case.saga.codec.load(record.context)),
        refused=_refusal(case, world, plan, storage) if finished else None,
    )


def _only_more_of_the_same(saga: AnySaga, record: SagaRecord) -> bool:
    """Whether an action that is tried for hours by default has failed as often as makes a saga dead."""
    last = record.log[-1] if record.log else None
    step = next((step for step in saga.steps if last and step.name == last.step), None)
    if last is None or step is None or last.verdict is not Verdict.RETRY:
        return False
    policy = step.compensate_retry if last.action is Action.COMPENSATE else step.retry_after_pivot()
    return policy is PATIENT and last.attempt >= _SETTINGS.max_recovery_attempts


class Crash(BaseException):
    """The process is dead: nothing runs any more."""


@dataclass
class _Script:
    """Leads a run through its plan: knows where it is, and ends processes."""

    failure: Failure | None
    crashes: Collection[int]
    trace: list[Place] = field(default_factory=list)
    calls: Counter[tuple[str, Action]] = field(default_factory=Counter)
    succeeded: set[tuple[str, Action]] = field(default_factory=set)
    struck: bool = False
    raised: BaseException | None = None
    turn: int = 0
    process: int = 0
    alive: bool = False

    def begin(self, process: int) -> None:
        self.process, self.alive = process, True

    def require_alive(self) -> None:
        if not self.alive:
            raise Crash

    def reach(self, step: str, action: Action, moment: Moment, attempt: int) -> None:
        """Note the place, and crash if the plan says so."""
        self.require_alive()
        self.trace.append(Place(step, action, moment, attempt, self.process))
        if len(self.trace) - 1 in self.crashes:
            self.alive = False
            raise Crash

    def begin_action(self, step: str, action: Action) -> int:
        """Count the call; return its turn, which is over when anything is checkpointed."""
        self.calls[step, action] += 1
        self.turn += 1
        return self.turn

    def failure_of(self, action: Action, call: Call) -> Failure | None:
        failure = self.failure
        if failure is None or action is not Action.ACT or call.step_name != failure.step:
            return None
        if call.attempt > failure.attempts:
            return None
        self.struck = True
        return failure


class _Connection:
    """The storage as one process has it: it answers nobody who is dead."""

    def __init__(self, storage: ISagaStorage, script: _Script) -> None:
        self._storage = storage
        self._script = script

    def __getattr__(self, name: str) -> Any:
        self._script.require_alive()
        return getattr(self._storage, name)

    def checkpoint(self, hold: Hold, entry: LogEntry | None, **rest: Any) -> None:
        self._script.require_alive()
        self._script.turn += 1
        reach = partial(self._script.reach, entry.step, entry.action, attempt=entry.attempt) if entry else None
        if reach:
            reach(Moment.BEFORE_CHECKPOINT)
        self._storage.checkpoint(hold, entry, **rest)
        if reach:
            reach(Moment.AFTER_CHECKPOINT)


class _NoHeartbeat(Heartbeat):
    """Here time passes only between processes."""

    @contextmanager
    def keep(self, hold: Hold) -> Iterator[Lease]:
        yield Lease(hold)


class _RehearsedStep(Step[Any]):
    """A user's step, with the failure that is planned for it and a place to crash on either side."""

    def __init__(self, kind: type[Step[Any]], step: Step[Any], script: _Script, watch: Watch | None) -> None:
        self._kind = kind
        self._step = step
        self._script = script
        self._watch = watch

    def act(self, context: Any, call: Call) -> Any:
        attempt = _Attempt(self._script, self._kind, Action.ACT, context, call)
        return attempt.perform(self._step, self._step.act, self._watch)

    def compensate(self, context: Any, call: Call) -> Any:
        attempt = _Attempt(self._script, self._kind, Action.COMPENSATE, context, call)
        return attempt.perform(self._step, self._step.compensate, self._watch)


@dataclass(slots=True)
class _Attempt:
    """One attempt at one action."""

    script: _Script
    kind: type[Step[Any]]
    action: Action
    context: Any
    call: Call
    failure: Failure | None = None
    turn: int = 0
    look: Callable[[Any], None] = field(default=lambda _: None)

    def perform(self, step: Step[Any], method: Callable[[Any, Call], Any], watch: Watch | None) -> Any:
        self._reach(Moment.BEFORE)
        self.failure = self.script.failure_of(self.action, self.call)
        if self.failure is not None and self.failure.how is not How.ANSWER_LOST:
            self._reach(Moment.AFTER)
            raise _error(self.failure, self.kind)
        self.turn = self.script.begin_action(self.call.step_name, self.action)
        if watch is not None:
            self.look = self._looking(watch, step)
        try:
            result = method(self.context, self.call)
        except (Exception, asyncio.CancelledError) as error:
            self._failed(error)
            raise
        return self._awaited(result) if inspect.isawaitable(result) else self._ended(result)

    async def _awaited(self, result: Awaitable[Any]) -> Any:
        try:
            returned = await result
        except (Exception, asyncio.CancelledError) as error:
            self._failed(error)
            raise
        return self._ended(returned)

    def _ended(self, returned: Any) -> Any:
        if self.script.turn != self.turn:
            return returned  # too late: its timeout left it behind
        self.script.succeeded.add((self.call.step_name, self.action))
        self.look(self.context if returned is None else returned)
        self._reach(Moment.AFTER)
        if self.failure is not None:
            raise _error(self.failure, self.kind)
        return returned

    def _failed(self, error: BaseException) -> None:
        if self.script.turn == self.turn:
            self.script.raised = error
            self._reach(Moment.AFTER)

    def _reach(self, moment: Moment) -> None:
        self.script.reach(self.call.step_name, self.action, moment, self.call.attempt)

    def _looking(self, watch: Watch, step: Step[Any]) -> Callable[[Any], None]:
        before = watch.held_by(step)

        def look(context: Any) -> None:
            at = len(self.script.trace)
            watch.look_at_context(context, self.kind.name, self.action, at=at)
            watch.look_at_step(step, self.kind, self.action, before, at=at)

        return look


def _error(failure: Failure, step: type[Step[Any]]) -> Exception:
    if failure.how is not How.REFUSED:
        return OutcomeUnknown("crash_matrix lost the answer")
    return (retryable_error(step.retry) if failure.once else None) or InjectedFailure(
        "crash_matrix lets this step fail"
    )


def _refusal(case: Case[ContextT, WorldT], world: WorldT, plan: Plan, storage: MemorySagaStorage) -> str | None:
    if case.check is None:
        return None
    record = storage.load(SAGA_ID)
    context = case.saga.codec.load(record.context)
    try:
        verdict = case.check(world, Outcome(status=record.status, context=context, plan=plan, log=record.log))
    except Exception as error:
        # pytest adds lines that show the values compared.
        text = next(iter(str(error).strip().splitlines()), "")
        return text if isinstance(error, AssertionError) and text else f"{type(error).__name__}: {text}".rstrip(": ")
    return "it returned False" if verdict is False else None

"""Running the loop in a thread: each command is done where the loop is driven, and waits for its answer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import contextmanager, suppress
from contextvars import copy_context
from functools import partial
from typing import Any, Final

from sagas.definition import AnySaga, Part, Step, Wait
from sagas.errors import LeaseLost, StorageUnavailable
from sagas.execution import Report, decline, failed_attempt, holder_failed, saga_loop
from sagas.execution.commands import (
    Apply,
    Begin,
    Command,
    Delay,
    Done,
    Interrupted,
    Interruption,
    Load,
    Loop,
    Perform,
    ReadSignals,
    Send,
    SendTasks,
)
from sagas.graph import Graph
from sagas.lease import KeptLease
from sagas.loops import SerialThread, start_thread
from sagas.progress import Action, Move
from sagas.runtime import Runtime
from sagas.step_runner import perform
from sagas.storage.answers import Acquired, Applied
from sagas.storage.step_transaction import NextStep, StepTransaction
from sagas.storage.transitions import FailedAttempt
from sagas.telemetry.logs import working_on
from sagas.timeouts import timed_out
from sagas.transaction_runner import OpenStep
from sagas.transactional import StepInTransaction

#: How often a waiting saga checks whether the wait is interrupted.
CHECK_SECONDS: Final = 0.1


def execute(saga: AnySaga, graph: Graph, acquired: Acquired, runtime: Runtime) -> Report:
    """Bring a saga that this process has acquired as far as it goes now, and give it back.

    Raises:
        StorageUnavailable: the database went away and this process is to stop; the lease runs out by itself.
        BaseException: what ends the process itself (SystemExit, KeyboardInterrupt), once the attempt is counted.
    """
    with (
        at_work(acquired),
        giving_back_on_error(acquired, runtime),
        runtime.keeper.keep(acquired.lease) as kept,
        runtime.observer.running(acquired),
    ):
        return ThreadDriver(acquired, runtime, kept).drive(saga_loop(saga, graph, acquired, runtime))


def decline_now(acquired: Acquired, runtime: Runtime, reason: str) -> Report:
    """Give a saga back that this process's code does not fit."""
    return ThreadDriver(acquired, runtime, None).drive(decline(acquired, runtime, reason))


@contextmanager
def at_work(acquired: Acquired) -> Iterator[None]:
    """Let the log lines of the block name the saga."""
    work = working_on.set((acquired.record, None))
    try:
        yield
    finally:
        working_on.reset(work)


@contextmanager
def giving_back_on_error(acquired: Acquired, runtime: Runtime) -> Iterator[None]:
    """Give the saga back with a failed attempt if the block raises what is no fault of the saga's.

    An observer that fails, say, or a process that can start no thread. Nothing is done to a saga that was given back.
    """
    try:
        yield
    except (LeaseLost, StorageUnavailable):
        raise
    except Exception as error:
        with suppress(Exception):  # it must not hide what happened
            runtime.storage.apply(acquired.lease, failed_outside(acquired, runtime, error))
        raise


def failed_outside(acquired: Acquired, runtime: Runtime, error: Exception) -> FailedAttempt:
    """Return the transition for an error around the loop; what its saga had in flight then is unknown."""
    event = holder_failed(error, None)
    last_error = f"{event.error_type}: {event.message}"
    return failed_attempt(runtime, acquired.record.recovery_attempts, event, last_error=last_error)


class Driver:
    """What a driver of either kind has: the saga that it runs, and its steps.

    Args:
        acquired: the saga's lease and record.
        runtime: its storage, resolver and observer are used.
        kept: the lease, which the keeper renews; None if it is not renewed.
    """

    def __init__(self, acquired: Acquired, runtime: Runtime, kept: KeptLease | None) -> None:
        self._acquired = acquired
        self._runtime = runtime
        self._kept = kept
        self._parts: dict[type[Part], Part] = {}
        # The transactional steps whose actions run, and the one whose action has ended and whose checkpoint follows.
        self._open: dict[str, OpenStep] = {}
        self._ended: OpenStep | None = None
        # The transaction that has begun with the last checkpoint, for the step of this name.
        self._ahead: tuple[str, StepTransaction] | None = None

    def _open_step(self, begin: Begin, *, own_thread: bool) -> OpenStep:
        """Return an attempt at a transactional step, which has not begun."""
        runtime, move, kind = self._runtime, begin.move, begin.part
        action = action_of(self._part(kind), begin)

        def act(*session: Any) -> Any:
            self._show_work(move)
            with runtime.observer.acting(self._acquired.record, move):
                return action(*session)

        name, lease = move.node.name, self._acquired.lease
        assert issubclass(kind, StepInTransaction)
        thread = SerialThread(runtime.framework.thread_ends) if own_thread else None
        begins = self._begun_ahead(name) or partial(runtime.storage.begin_step, lease, name, kind.session_kind)
        opened = OpenStep(begins, act, thread)
        self._open[name] = opened
        return opened

    def _note_ahead(self, following: NextStep | None, begun: StepTransaction | None) -> None:
        """Keep the transaction that has begun for the step that follows."""
        self._ahead = None if following is None or begun is None else (following[0], begun)

    def _begun_ahead(self, step: str | None) -> Callable[[], StepTransaction] | None:
        """Return what gives the transaction that has begun for this step; one for another step is rolled back."""
        ahead, self._ahead = self._ahead, None
        if ahead is None:
            return None
        name, begun = ahead
        if name != step:
            begun.roll_back()
            return None
        return lambda: begun

    def _noted(self, done: Done) -> Done:
        """Note that an action has ended: its transaction waits for the checkpoint, or is rolled back after an error."""
        opened = self._open.pop(done.move.node.name, None)
        if opened is not None and done.error is None:
            self._ended = opened
        elif opened is not None:
            opened.roll_back()  # once its action has ended, if that still runs
        return done

    def _take_ended(self) -> OpenStep | None:
        """Return the step whose checkpoint follows; it is to be committed or rolled back now."""
        ended, self._ended = self._ended, None
        return ended

    def _roll_back_all(self) -> None:
        """Roll back whatever is open: the loop has ended, and no checkpoint follows."""
        self._begun_ahead(None)
        for opened in (self._take_ended(), *self._open.values()):
            if opened is not None:
                opened.roll_back()

    def _part(self, kind: type[Part]) -> Part:
        """Return the part, built once. Call it outside of the action: a resolver's error is no failure of the step."""
        if kind not in self._parts:
            # A wait has no collaborators that a resolver would have to find.
            self._parts[kind] = self._runtime.resolve(kind) if issubclass(kind, Step) else kind()
        return self._parts[kind]

    def _show_work(self, move: Move) -> None:
        """Let log lines, and whoever reads the lease, name the saga and the step that is run now."""
        work = (self._acquired.record, move)
        working_on.set(work)
        if self._kept is not None:
            self._kept.work = work


class ThreadDriver(Driver):
    """Executes the commands that a saga's loop yields, in the thread that drives it.

    A single action is performed in this very thread, where the caller's connections and context are. If several run
    at once, each has a thread. The arguments are those of `Driver`.
    """

    def __init__(self, acquired: Acquired, runtime: Runtime, kept: KeptLease | None) -> None:
        super().__init__(acquired, runtime, kept)
        self._running: dict[Future[Any], Move] = {}

    def drive(self, loop: Loop) -> Report:
        """Run a loop to its end, and return its report."""
        try:
            command = next(loop)
            while True:
                try:
                    answer = self._do(command)
                except BaseException as error:
                    command = loop.throw(error)
                else:
                    command = loop.send(answer)
        except StopIteration as stop:
            report: Report = stop.value
            return report
        finally:
            self._roll_back_all()

    def _do(self, command: Command) -> Any:
        runtime, lease = self._runtime, self._acquired.lease
        if not isinstance(command, Interrupted | SendTasks | Perform):
            self._begun_ahead(None)  # something came between
        ended = self._take_ended()
        if ended is not None:
            if isinstance(command, Apply) and command.commits:
                return self._commit(ended, command)
            ended.roll_back().result()
        match command:
            case Interrupted():
                return interruption(runtime, self._kept)
            case Apply(transition, ahead=None):
                return runtime.storage.apply(lease, transition)
            case Apply(transition, ahead=(name, session) as following):
                applied, begun = runtime.storage.apply_and_begin(lease, transition, name, session)
                self._note_ahead(following, begun)
                return applied
            case Perform(begin):
                return self._perform(begin)
            case Load():
                return runtime.storage.load(lease.saga_id)
            case Delay(seconds, interruptible):
                return self._wait(seconds, interruptible=interruptible)
            case Send(claim):
                return runtime.send(claim)
            case ReadSignals():
                return runtime.storage.signals(lease.saga_id)
            case SendTasks(tasks):
                return runtime.send_tasks(tasks)

    def _commit(self, ended: OpenStep, command: Apply) -> Applied:
        outcome = ended.apply(command.transition, command.then, command.ahead)
        try:
            applied = outcome.result()
        except BaseException:
            # What has begun with the commit is nobody's now; and if this was interrupted, it may begin only later.
            outcome.add_done_callback(lambda _: ended.drop_following())
            raise
        self._note_ahead(command.ahead, ended.following)
        return applied

    def _perform(self, begin: tuple[Begin, ...]) -> Done:
        if len(begin) == 1 and not self._running:
            (only,) = begin
            if is_transactional(only):
                return self._perform_in_transaction(only)
            part = self._part(only.part)
            try:
                return Done(only.move, self._act(only, part))
            except BaseException as error:
                return Done(only.move, error=error)
        for each in begin:
            if is_transactional(each):
                self._running[self._open_step(each, own_thread=True).perform()] = each.move
                continue
            outcome: Future[Any] = Future()
            act = partial(self._act, each, self._part(each.part))
            start_thread(partial(copy_context().run, act), outcome, name="sagas-step")
            self._running[outcome] = each.move
        ended = next(iter(wait(self._running, return_when=FIRST_COMPLETED).done))
        return self._noted(Done(self._running.pop(ended), *_settled(ended)))

    def _perform_in_transaction(self, begin: Begin) -> Done:
        timeout = timeout_of(begin)
        opened = self._open_step(begin, own_thread=timeout is not None)
        try:
            outcome = opened.perform()
            ended, _ = wait([outcome], timeout)
            if not ended:
                raise timed_out(timeout)
            done = Done(begin.move, *_settled(outcome))
        except BaseException as error:
            done = Done(begin.move, error=error)
        return self._noted(done)

    def _act(self, begin: Begin, part: Part) -> Any:
        runtime, move = self._runtime, begin.move
        action = runtime.framework.around(action_of(part, begin))
        self._show_work(move)
        with runtime.observer.acting(self._acquired.record, move):
            return perform(action, timeout=timeout_of(begin))

    def _wait(self, seconds: float, *, interruptible: bool) -> None:
        if not interruptible:
            self._runtime.sleep(seconds)
            return
        left = seconds
        while left > 0 and interruption(self._runtime, self._kept) is None:
            self._runtime.sleep(min(left, CHECK_SECONDS))
            left -= CHECK_SECONDS


def action_of(part: Part, begin: Begin) -> partial[Any]:
    """Return the call of the method that does what a move says."""
    if isinstance(part, Wait):
        return partial(part.received, begin.context, begin.signal)
    assert isinstance(part, Step)
    method = part.act if begin.move.action is Action.ACT else part.compensate
    return partial(method, begin.context, begin.call)


def timeout_of(begin: Begin) -> float | None:
    """Return how many seconds an action may take."""
    return begin.part.timeout if issubclass(begin.part, Step) else None


def is_transactional(begin: Begin) -> bool:
    """Whether an action shares a transaction with its checkpoint."""
    return begin.move.node.transactional


def interruption(runtime: Runtime, kept: KeptLease | None) -> Interruption | None:
    """Return why a saga is to be put down, if there is a reason."""
    if runtime.stopping():
        return Interruption.STOPPING
    if kept is not None and kept.lost:
        return Interruption.LOST
    if kept is not None and kept.yield_requested:
        return Interruption.YIELD
    return None


def _settled(outcome: Future[Any]) -> tuple[Any, BaseException | None]:
    error = outcome.exception()
    return (None, error) if error is not None else (outcome.result(), None)

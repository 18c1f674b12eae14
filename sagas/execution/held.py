"""A saga under one lease: what its holder knows of it, and how it writes."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Generator
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import count
from typing import Any

from sagas.context import Stored
from sagas.definition import AnySaga, backoff
from sagas.errors import InboxMoved, LeaseLost, StorageUnavailable
from sagas.execution.commands import Apply, Command, Delay, Interrupted, Interruption, Load, SendTasks
from sagas.execution.entries import is_row_of
from sagas.execution.report import Outcome, Report
from sagas.graph import Graph
from sagas.inbox import Inbox
from sagas.outbox import EnqueuedTask
from sagas.plan import Plan, plan_for
from sagas.progress import Action, EntryStatus, Frontier, Move, Progress
from sagas.runtime import Runtime
from sagas.storage.answers import Acquired, Applied
from sagas.storage.records import SagaRecord, SagaState
from sagas.storage.step_transaction import NextStep
from sagas.storage.transitions import Ended, Progressed, Suspended, Transition
from sagas.telemetry.logs import saga_logger
from sagas.telemetry.observer import NullObserver

logger = saga_logger("sagas.execution")


def database_backoff(failures: int) -> float:
    """Return how many seconds to wait for a database that did not answer so many times in a row."""
    return backoff(failures, first=0.1, factor=2, cap=2.0)


@dataclass(frozen=True, slots=True)
class Result:
    """What a completed action leaves: the context, tasks for the outbox, and perhaps an open transaction."""

    stored: Stored[Any]
    tasks: tuple[EnqueuedTask, ...] = ()
    commits: bool = False


class NotCommitted(Exception):
    """The transaction of a step was rolled back, and the step is performed again."""


class EndedBefore(Exception):
    """An earlier COMMIT, whose answer was lost, has come late and ended the saga."""


class Held:
    """One lease of one saga, from acquiring it to giving it back.

    Attributes:
        plan, progress, stored: what its class, its log and its context say, once `open` has read them.
        status, attempts: as the last write left them.
        frontier: what can be done after the last event, once it is known.
        running: the actions in flight, by the name of their node.
        inbox: what was sent to the saga, as far as it was read.
        again: how often each transactional step was performed again in a row.
        events: what was done, for the report.
    """

    plan: Plan
    progress: Progress
    stored: Stored[Any]

    def __init__(self, saga: AnySaga, graph: Graph, acquired: Acquired, runtime: Runtime) -> None:
        self.saga = saga
        self.graph = graph
        self.acquired = acquired
        self.lease = acquired.lease
        self.record: SagaRecord = acquired.record
        self.runtime = runtime
        self.observer = runtime.observer
        self.status = acquired.record.status
        self.attempts = acquired.record.recovery_attempts
        self.inbox = Inbox(acquired.record.inbox, acquired.record.log)
        self.frontier: Frontier | None = None
        self.running: dict[str, Move] = {}
        self.again: Counter[str] = Counter()
        self.events: list[str] = []
        # What the last write did: its rows have the newest time that is known.
        self._applied: Applied | None = None

    def open(self) -> None:
        """Read the log and the context.

        Raises:
            LogDoesNotFit, ContextError: this process's code does not fit the saga.
        """
        self.plan = plan_for(self.saga, self.graph)
        self._read(self.record)
        lost = (e.status is EntryStatus.LOST and e.version == self.lease.version - 1 for e in self.record.log[-1:])
        if any(lost):
            self.observer.taken_over(self.record)

    def _read(self, record: SagaRecord) -> None:
        self.progress = Progress(self.plan.graph, record.log, past_failures=self.plan.past_failures)
        self.stored = self.saga.codec.reopen(record.context)
        self.frontier = None

    def read_again(self) -> Generator[Command, Any, None]:
        """Continue with the saga as it is stored, once the database answers.

        Raises:
            LeaseLost: another worker has it.
            EndedBefore: it has ended.
        """
        record: SagaRecord = yield from self.until_answered(Load())
        if record.version == self.lease.version and record.status.finished:
            self.status = record.status
            raise EndedBefore
        if (record.version, record.lease_token) != (self.lease.version, self.lease.token):
            raise self.lost()
        self._read(record)

    @property
    def now(self) -> datetime:
        """The newest time by the database's clock that is known: that of the last write, or of acquiring the saga."""
        rows = () if self._applied is None else self._applied.log
        return (rows[-1].created_at if rows else None) or self.record.updated_at

    # -- writing ----------------------------------------------------------------------------------------------

    def write(
        self,
        transition: Transition,
        result: Result | None = None,
        then: Suspended | Ended | None = None,
        *,
        ahead: NextStep | None = None,
    ) -> Generator[Command, Any, Applied]:
        """Write a transition, until the database answers.

        The fence rejects it if the lease was lost meanwhile. After a failure whose effect is unknown, look first
        whether it was applied. A transaction that was not is gone, and with it the effect.

        Args:
            transition: what is written.
            result: of the action that ended.
            then, ahead: as in `Apply`.

        Raises:
            InboxMoved: something was delivered that the holder has not read; the inbox knows of it.
            NotCommitted: that transaction.
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
                    raise NotCommitted
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
        self._applied, self.inbox.delivered = applied, applied.inbox
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

    def until_answered(self, command: Command) -> Generator[Command, Any, Any]:
        """Yield a command that reads, until the database answers."""
        for failures in count(1):
            try:
                return (yield command)
            except StorageUnavailable as error:
                yield from self._wait_for_database(error, failures)

    def _wait_for_database(self, error: StorageUnavailable, failures: int) -> Generator[Command, Any, None]:
        """Wait before the database is asked again.

        Raises:
            StorageUnavailable: this process is to stop.
        """
        if (yield Interrupted()) is Interruption.STOPPING:
            raise error
        self.log(logging.WARNING, "waiting for the database: %s", error)
        yield Delay(database_backoff(failures) * (1 - 0.5 * self.runtime.random()), interruptible=False)

    def _find_applied(
        self, transition: Transition, then: Suspended | Ended | None
    ) -> Generator[Command, Any, Applied | None]:
        """Return what a transition did whose answer was lost, or None if it was not applied."""
        record: SagaRecord = yield Load()
        ours = (record.version, record.lease_token) == (self.lease.version, self.lease.token)
        holds = record.state is SagaState.RUNNING and ours
        written = [e for e in record.log if e.version == self.lease.version and e.worker == self.lease.owner]
        rows = tuple(e for e in written if any(is_row_of(e, event) for event in transition.events))
        if len(rows) < len(transition.events):
            return None
        if not transition.events and holds:
            return None
        last = transition if then is None or holds else then
        ended = not isinstance(last, Ended) or record.state is SagaState.FINISHED
        continues = not isinstance(last, Progressed) or holds
        if not ended or not continues or ((then or not transition.events) and record.version != self.lease.version):
            raise self.lost(" while the database was away")
        return Applied(
            status=record.status,
            state=record.state,
            recovery_attempts=record.recovery_attempts,
            available_at=record.available_at,
            log=rows,
            inbox=record.inbox,
        )

    def lost(self, how: str = "; nothing more was done") -> LeaseLost:
        """Return the error that says that another worker has the saga."""
        return LeaseLost(f"saga {self.record.id}: the lease was lost to another worker{how}.")

    # -- telling ----------------------------------------------------------------------------------------------

    def log(self, level: int, text: str, *values: Any) -> None:
        """Write a line about the saga to the process's log."""
        logger.log(level, f"saga %s (%s): {text}", self.record.id, self.record.name, *values)

    def report(self, outcome: Outcome, message: str, *, level: int = logging.INFO) -> Report:
        """Return what became of the saga, and notify whoever observes."""
        self.log(level, "%s: %s", outcome, message)
        self.observer.given_back(self.record, outcome)
        return Report.of(self.record, outcome, message, status=self.status, events=tuple(self.events))

    def report_end(self) -> Report:
        """Return that the saga has ended."""
        return self.report(Outcome(self.status.lower()), f"the saga is {self.status}.")

"""What an operator does to a saga: it is acquired and written as by a worker, in one transaction, with who and why."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Final
from uuid import UUID

from sagas.engine import SagaEngine
from sagas.errors import ActionRefused
from sagas.plan import plan_for
from sagas.progress import EntryStatus, Move, Progress, SagaStatus, Verdict, aborted
from sagas.storable import require_storable
from sagas.storage.contract import not_found
from sagas.storage.records import Applied, LogEntry, NotAcquired, Refusal, SagaFilter, SagaRecord, SagaState, note
from sagas.storage.transitions import Ended, GaveBack, Transition

#: How often an operator who waits for a saga tries to take it.
_LOOK_SECONDS: Final = 0.25
#: How long an ask is remembered after its operator's last look: no longer than that, should the operator die.
_ASK_SECONDS: Final = 5.0
_PAGE: Final = 500

#: What an action writes for a saga as it stands: a row for the log, and the status from then on.
_Decision = Callable[[SagaRecord], tuple[LogEntry, SagaStatus]]


class Operator:
    """Acts on sagas for a person; nothing here can break what the engine guarantees.

    A worker that holds the saga is requested to yield: it gives the saga back at its next step's boundary.

    Args:
        engine: whose storage, settings and sagas are meant.
        by: who acts, for the log.
        wait_seconds: how long to wait for a saga that a worker holds.
    """

    def __init__(self, engine: SagaEngine, *, by: str, wait_seconds: float = 0.0) -> None:
        self._engine = engine
        self._storage = engine.storage
        self._by = by
        self._wait_seconds = wait_seconds

    def compensate(self, saga_id: UUID, *, because: str) -> SagaRecord:
        """Abort a saga: what was done is undone from now on, by whoever recovers it next.

        Raises:
            ActionRefused: it has ended, unwinds already, is past its pivot, or is held by a worker all the time.
            UnknownSaga, LogDoesNotFit: this process's code does not fit the saga.
        """

        def decide(record: SagaRecord) -> tuple[LogEntry, SagaStatus]:
            progress, move = self._next(record)
            if progress.aborted:
                raise ActionRefused(f"saga {record.id} unwinds already: `sagas recover {record.id}` speeds it up.")
            if progress.past_pivot:
                raise ActionRefused(
                    f"saga {record.id} is past its pivot and can only go forward: skip the step that cannot be done "
                    "(`sagas skip`), or settle it by hand (`sagas resolve`)."
                )
            entry = LogEntry(
                step=move.node.name,
                action=move.action,
                status=EntryStatus.FAILED,
                attempt=move.attempt,
                verdict=Verdict.ABORT,
                error_type="Aborted",
                message=f"{because} ({self._by})",
                actor=self._by,
                reason=because,
            )
            return entry, _status_after(progress, entry)

        return self._act(saga_id, decide)

    def skip(self, saga_id: UUID, step: str, *, because: str) -> SagaRecord:
        """Have the next step of a saga, in whichever direction it goes, count as done without running it.

        A skipped step is the operator's: code neither acts nor compensates it from then on.

        Raises:
            ActionRefused: the step is not the next one, or as for `compensate`.
            UnknownSaga, LogDoesNotFit: this process's code does not fit the saga.
        """

        def decide(record: SagaRecord) -> tuple[LogEntry, SagaStatus]:
            progress, move = self._next(record)
            if move.node.name != step:
                raise ActionRefused(
                    f"saga {record.id} does {move.node.name!r} ({move.action}) next, not {step!r}: only the next step "
                    "can be skipped, so name that one."
                )
            entry = LogEntry(
                step=step,
                action=move.action,
                status=EntryStatus.SKIPPED,
                attempt=move.attempt,
                actor=self._by,
                reason=because,
            )
            return entry, _status_after(progress, entry)

        return self._act(saga_id, decide)

    def resolve(self, saga_id: UUID, status: SagaStatus, *, because: str) -> SagaRecord:
        """End a saga as it was settled by other means; none of its code runs, and none needs to be known here.

        Args:
            saga_id: which.
            status: COMPLETED or COMPENSATED.
            because: how it was settled.

        Raises:
            ActionRefused: it has ended, or is held by a worker all the time.
            ValueError: the status is no end.
        """
        if not status.finished:
            raise ValueError(f"a saga cannot be resolved as {status}: choose COMPLETED or COMPENSATED.")
        command = f"resolve as {status.lower()}"
        return self._act(saga_id, lambda _: (note(command, actor=self._by, reason=because), status))

    def retry(self, saga_id: UUID, *, because: str) -> SagaRecord:
        """Make a saga due at once, with all its attempts: the next scan sends it to a worker.

        Raises:
            ActionRefused: it has ended, or is held by a worker all the time.
        """

        def decide(record: SagaRecord) -> tuple[LogEntry, SagaStatus]:
            status = SagaStatus.COMPENSATING if aborted(record.log) else SagaStatus.RUNNING
            return note("retry", actor=self._by, reason=because), status

        return self._act(saga_id, decide)

    def dead(self, name: str | None = None) -> Iterator[SagaRecord]:
        """Yield the dead sagas, of this name only if one is given; each once, whatever becomes of it meanwhile."""
        seen: set[UUID] = set()
        while True:
            page = self._storage.find(SagaFilter(states=(SagaState.DEAD,), name=name, limit=_PAGE + len(seen)))
            new = [record for record in page if record.id not in seen]
            if not new:
                return
            seen.update(record.id for record in new)
            yield from new

    # -- details ----------------------------------------------------------------------------------------------

    def _next(self, record: SagaRecord) -> tuple[Progress, Move]:
        saga, graph = self._engine.definitions.fitting(record)
        plan = plan_for(saga, graph)
        progress = Progress(plan.graph, record.log, past_failures=plan.past_failures)
        frontier = progress.frontier()
        if frontier.end is not None:
            raise ActionRefused(
                f"saga {record.id} has nothing left to do but to end as {frontier.end}: `sagas recover {record.id}`."
            )
        return progress, frontier.ready[0]

    def _act(self, saga_id: UUID, decide: _Decision) -> SagaRecord:
        def judged(record: SagaRecord) -> Transition:
            entry, status = decide(record)
            require_storable(actor=entry.actor, reason=entry.reason)
            if status.finished:
                return Ended(events=(entry,), status=status)
            return GaveBack(events=(entry,), status=status)

        record = self._storage.load(saga_id)
        if not record.status.finished:
            judged(record)  # what would be refused is refused without waiting for the saga
        deadline = time.monotonic() + self._wait_seconds
        asked = False
        try:
            while isinstance(refused := self._operate(saga_id, judged), NotAcquired):
                if refused.why is Refusal.NOT_FOUND or refused.record is None:
                    raise not_found(saga_id)
                if refused.why is not Refusal.HELD:
                    raise ActionRefused(
                        f"saga {saga_id} is {refused.record.status} already: nothing is left to act on."
                    )
                if (left := deadline - time.monotonic()) <= 0:
                    raise ActionRefused(
                        f"saga {saga_id} is held by {refused.record.lease_owner}, which works on it and renews its "
                        "lease: give it more time with --wait, in which it is asked to give the saga back after the "
                        "step it is at."
                    )
                # Again at every look: another operator's ask ends with that one's action.
                self._storage.request_yield(saga_id, by=self._by, for_seconds=_ASK_SECONDS)
                asked = True
                time.sleep(min(left, _LOOK_SECONDS))
        finally:
            if asked:
                self._storage.request_yield(saga_id, by=self._by, for_seconds=0)
        return self._storage.load(saga_id)

    def _operate(self, saga_id: UUID, decide: Callable[[SagaRecord], Transition]) -> Applied | NotAcquired:
        return self._storage.operate(
            saga_id,
            decide,
            owner=self._engine.runtime().owner,
            max_recovery_attempts=self._engine.settings.max_recovery_attempts,
        )


def _status_after(progress: Progress, entry: LogEntry) -> SagaStatus:
    progress.add(entry)
    return progress.frontier().end or progress.status

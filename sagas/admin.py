"""Operator actions on sagas. Each acquires and writes its saga in one transaction, and logs actor and reason."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Final
from uuid import UUID

from sagas.engine import SagaEngine
from sagas.errors import ActionRefused, SagaHeld, UnknownSaga
from sagas.plan import plan_for
from sagas.progress import EntryStatus, Move, Progress, SagaStatus, Verdict, aborted
from sagas.storable import require_storable
from sagas.storage.answers import Applied, NotAcquired, Refusal
from sagas.storage.errors import not_found
from sagas.storage.records import LogEntry, SagaRecord, SagaState, note
from sagas.storage.saga_filter import SagaFilter
from sagas.storage.transitions import Ended, GaveBack, Transition

#: How often an operator who waits for a saga tries to acquire it.
_RETRY_SECONDS: Final = 0.25
#: How long a request to yield lasts after the operator's last try, so that it ends if the operator's process dies.
_REQUEST_SECONDS: Final = 5.0
_PAGE: Final = 500

#: Returns what an action writes for this record: a row for the log, and the saga's new status.
_Decision = Callable[[SagaRecord], tuple[LogEntry, SagaStatus]]


class Operator:
    """Acts on sagas for a person. Its actions keep every guarantee of the engine.

    It requests a worker that holds the saga to yield. The worker then gives the saga back at its next step's boundary.

    A process without the saga's class acts by the graph that the saga was started with. It then leaves the end of the
    saga to a worker, whose code may have more compensations than that graph.

    Args:
        engine: its storage, settings and sagas are used.
        actor: the person, for the log.
        wait_seconds: how long to wait for a saga that a worker holds.
        require: called with the saga, under its lease, before anything is written; it raises what refuses the action.
        without_code: whether to act on a saga whose class this process lacks.
    """

    def __init__(
        self,
        engine: SagaEngine,
        *,
        actor: str,
        wait_seconds: float = 0.0,
        require: Callable[[SagaRecord], None] = lambda _: None,
        without_code: bool = False,
    ) -> None:
        self._require = require
        self._without_code = without_code
        self._engine = engine
        self._storage = engine.storage
        self._actor = actor
        self._wait_seconds = wait_seconds

    def compensate(self, saga_id: UUID, *, reason: str) -> SagaRecord:
        """Abort a saga: the worker that acquires it next compensates its steps.

        Raises:
            ActionRefused: it has ended, unwinds already, is past its pivot, or a worker holds it during the whole wait.
            UnknownSaga, LogDoesNotFit: this process's code does not fit the saga.
        """

        def decide(record: SagaRecord) -> tuple[LogEntry, SagaStatus]:
            progress, move, ends_here = self._next(record)
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
                message=f"{reason} ({self._actor})",
                actor=self._actor,
                reason=reason,
            )
            return entry, _status_after(progress, entry, ends_here=ends_here)

        return self._act(saga_id, decide)

    def skip(self, saga_id: UUID, step: str, *, reason: str) -> SagaRecord:
        """Count the next action of a saga, `act` or `compensate`, as done without running it.

        The operator answers for a skipped step: code neither acts nor compensates it from then on.

        Raises:
            ActionRefused: the step is not the next one, or as for `compensate`.
            UnknownSaga, LogDoesNotFit: this process's code does not fit the saga.
        """

        def decide(record: SagaRecord) -> tuple[LogEntry, SagaStatus]:
            progress, move, ends_here = self._next(record)
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
                actor=self._actor,
                reason=reason,
            )
            return entry, _status_after(progress, entry, ends_here=ends_here)

        return self._act(saga_id, decide)

    def resolve(self, saga_id: UUID, status: SagaStatus, *, reason: str) -> SagaRecord:
        """End a saga that was settled by other means. None of its code runs, and this process need not have its class.

        Args:
            saga_id: the saga to end.
            status: COMPLETED or COMPENSATED.
            reason: how it was settled.

        Raises:
            ActionRefused: it has ended, or a worker holds it during the whole wait.
            ValueError: the status is not COMPLETED or COMPENSATED.
        """
        if not status.finished:
            raise ValueError(f"a saga cannot be resolved as {status}: choose COMPLETED or COMPENSATED.")
        command = f"resolve as {status.lower()}"
        return self._act(saga_id, lambda _: (note(command, actor=self._actor, reason=reason), status))

    def retry(self, saga_id: UUID, *, reason: str) -> SagaRecord:
        """Make a saga due at once and reset its failed attempts to 0. The next scan sends it to a worker.

        Raises:
            ActionRefused: it has ended, or a worker holds it during the whole wait.
        """

        def decide(record: SagaRecord) -> tuple[LogEntry, SagaStatus]:
            status = SagaStatus.COMPENSATING if aborted(record.log) else SagaStatus.RUNNING
            return note("retry", actor=self._actor, reason=reason), status

        return self._act(saga_id, decide)

    def dead(self, name: str | None = None) -> Iterator[SagaRecord]:
        """Yield the dead sagas, of this name if one is given. Each is yielded once, even if it changes meanwhile."""
        seen: set[UUID] = set()
        while True:
            page = self._storage.find(SagaFilter(states=(SagaState.DEAD,), name=name, limit=_PAGE + len(seen)))
            new = [record for record in page if record.id not in seen]
            if not new:
                return
            seen.update(record.id for record in new)
            yield from new

    # -- details ----------------------------------------------------------------------------------------------

    def _next(self, record: SagaRecord) -> tuple[Progress, Move, bool]:
        """Return how far a saga is, what it does next, and whether this process knows enough to end it."""
        try:
            plan = plan_for(*self._engine.definitions.fitting(record))
            progress, has_code = Progress(plan.graph, record.log, past_failures=plan.past_failures), True
        except UnknownSaga:
            if not self._without_code or record.definition is None:
                raise
            progress, has_code = Progress(self._engine.definitions.graph_of(record), record.log), False
        frontier = progress.frontier()
        if frontier.end is not None:
            raise ActionRefused(
                f"saga {record.id} has nothing left to do but to end as {frontier.end}: `sagas recover {record.id}`."
            )
        return progress, (*frontier.ready, *frontier.awaiting)[0], has_code

    def _act(self, saga_id: UUID, decide: _Decision) -> SagaRecord:
        def judged(record: SagaRecord) -> Transition:
            self._require(record)
            entry, status = decide(record)
            require_storable(actor=entry.actor, reason=entry.reason)
            if status.finished:
                return Ended(events=(entry,), status=status)
            return GaveBack(events=(entry,), status=status)

        record = self._storage.load(saga_id)
        if not record.status.finished:
            judged(record)  # refuse an impossible action before waiting for the saga
        deadline = time.monotonic() + self._wait_seconds
        requested = False
        try:
            while isinstance(refused := self._operate(saga_id, judged), NotAcquired):
                if refused.why is Refusal.NOT_FOUND or refused.record is None:
                    raise not_found(saga_id)
                if refused.why is not Refusal.HELD:
                    raise ActionRefused(
                        f"saga {saga_id} is {refused.record.status} already: nothing is left to act on."
                    )
                if (left := deadline - time.monotonic()) <= 0:
                    raise SagaHeld(
                        f"saga {saga_id} is held by {refused.record.lease_owner}, which renews its lease: give it more "
                        "time with --wait. The worker is requested to yield the saga after its present step.",
                        refused.record.lease_owner or "",
                    )
                # Request again at every try: another operator's action withdraws the request when it ends.
                self._storage.request_yield(saga_id, actor=self._actor, for_seconds=_REQUEST_SECONDS)
                requested = True
                time.sleep(min(left, _RETRY_SECONDS))
        finally:
            if requested:
                self._storage.request_yield(saga_id, actor=self._actor, for_seconds=0)
        return self._storage.load(saga_id)

    def _operate(self, saga_id: UUID, decide: Callable[[SagaRecord], Transition]) -> Applied | NotAcquired:
        return self._storage.operate(
            saga_id,
            decide,
            owner=self._engine.runtime().owner,
            max_recovery_attempts=self._engine.settings.max_recovery_attempts,
        )


def _status_after(progress: Progress, entry: LogEntry, *, ends_here: bool) -> SagaStatus:
    progress.add(entry)
    return (progress.frontier().end if ends_here else None) or progress.status

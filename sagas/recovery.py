"""Recovers sagas that no worker holds: acquires one of them, and scans for those that are due."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import Any, Final, Protocol, TypeVar
from uuid import UUID

from sagas.async_driver import execute_async
from sagas.definition import AnySaga
from sagas.definitions import Definitions
from sagas.drivers import decline_now, execute, giving_back_on_error
from sagas.errors import DefinitionNotFound, InvalidSagaId, LeaseLost, LogDoesNotFit, StorageUnavailable, UnknownSaga
from sagas.execution import Outcome, Report, database_backoff
from sagas.graph import Graph
from sagas.group_commit import GroupWriter
from sagas.loops import call_in_thread
from sagas.outbox import OutboxTask
from sagas.runtime import Runtime
from sagas.settings import Settings
from sagas.storage.answers import Acquired, NotAcquired, Refusal
from sagas.storage.contract import ISagaStorage
from sagas.storage.errors import not_found
from sagas.storage.records import Claim, LogEntry, SagaRecord, SagaState
from sagas.storage.transitions import Progressed
from sagas.telemetry.logs import about, saga_logger
from sagas.telemetry.observer import NullObserver, Observer

logger = saga_logger(__name__)

_T = TypeVar("_T")

#: How long a scan publishes its claims. Shorter than `lost_messages.OVERTAKING_SECONDS`, or sent messages look lost.
_SENDING_SECONDS: Final = 3.0
#: A signal that is older than this and not delivered is left to the scan.
_FORGOTTEN_SECONDS: Final = 1.0
#: How long a task stays in the outbox before a scan sends it: its worker sends it right after the commit.
_OUTBOX_SECONDS: Final = 5.0
#: How many messages are published before a scan looks at the clock.
_BATCH: Final = 20


class Dispatcher(Protocol):
    """Sends sagas to workers. `sagas.celery` has the dispatcher for Celery."""

    def send(self, claims: Sequence[Claim]) -> int:
        """Publish a message for each claim, in order; return how many were published before the broker failed."""

    def enqueue(self, tasks: Sequence[OutboxTask]) -> Sequence[int]:
        """Send tasks that steps asked for, in order; return the ids of those that were sent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScanReport:
    """What one scan did.

    Attributes:
        dispatched: ids for which a message was sent.
        died: ids of sagas that are dead now, because the crash of their worker spent their last attempt.
        missing: how many sagas were sent again because their message is lost, or may be.
        unsent: how many claims were released because the broker failed or was slow.
        scheduled: ids of sagas that schedules started.
        schedules_failed: names of schedules that are due, but whose sagas could not be started; the log says why.
        tasks: how many tasks of the outbox were sent, which their own worker had not sent.
    """

    dispatched: tuple[UUID, ...] = ()
    died: tuple[UUID, ...] = ()
    missing: int = 0
    unsent: int = 0
    scheduled: tuple[UUID, ...] = ()
    schedules_failed: tuple[str, ...] = ()
    tasks: int = 0

    def as_json(self) -> dict[str, Any]:
        """Return it as plain data, which reads well in Flower."""
        return {
            "dispatched": len(self.dispatched),
            "died": [str(saga_id) for saga_id in self.died],
            "missing": self.missing,
            "unsent": self.unsent,
            "scheduled": len(self.scheduled),
            "schedules_failed": list(self.schedules_failed),
            **({"tasks": self.tasks} if self.tasks else {}),
        }


def recover(
    saga_id: UUID,
    *,
    runtime: Runtime,
    definitions: Definitions,
    version: int | None = None,
    by_hand: bool = False,
    note: LogEntry | None = None,
) -> Report:
    """Acquire a saga and run it until it ends or has to wait.

    Args:
        saga_id: the saga.
        version: acquire the saga only at this version, for which the message was sent.
        by_hand: an operator asks, so the saga is also acquired while it backs off, is dead or paused. It is never
            acquired while another worker holds it.
        note: the operator's row for the saga's log.

    Raises:
        SagaNotFound: no saga has this id.
        StorageUnavailable: the database does not answer.
    """
    found = acquire(saga_id, runtime=runtime, definitions=definitions, version=version, by_hand=by_hand, note=note)
    return found if isinstance(found, Report) else execute(found.saga, found.graph, found.acquired, runtime)


async def recover_async(
    saga_id: UUID, *, runtime: Runtime, definitions: Definitions, writer: GroupWriter, by_hand: bool = False
) -> Report:
    """Do as `recover` does, on this event loop; writes go through `writer`."""
    find = partial(acquire, saga_id, runtime=runtime, definitions=definitions, by_hand=by_hand)
    found = await call_in_thread(find)
    if isinstance(found, Report):
        return found
    return await execute_async(found.saga, found.graph, found.acquired, runtime, writer)


@dataclass(frozen=True, slots=True)
class Found:
    """An acquired saga, the class that continues it, and the graph that it was started with."""

    acquired: Acquired
    saga: AnySaga
    graph: Graph


def acquire(
    saga_id: UUID,
    *,
    runtime: Runtime,
    definitions: Definitions,
    version: int | None = None,
    by_hand: bool = False,
    note: LogEntry | None = None,
) -> Found | Report:
    """Acquire a saga and find its code, or report why not; arguments and errors are those of `recover`."""
    acquired = runtime.storage.acquire(
        saga_id,
        runtime.request(),
        max_recovery_attempts=runtime.settings.max_recovery_attempts,
        version=version,
        by_hand=by_hand,
    )
    if isinstance(acquired, NotAcquired):
        return _skipped(saga_id, acquired)
    try:
        with giving_back_on_error(acquired, runtime):
            return _find(acquired, runtime, definitions, note)
    except LeaseLost as error:
        return Report.of(acquired.record, Outcome.LOST, str(error))


def _find(acquired: Acquired, runtime: Runtime, definitions: Definitions, note: LogEntry | None) -> Found | Report:
    if note is not None:
        runtime.storage.apply(acquired.lease, Progressed(events=(note,), status=acquired.record.status))
    try:
        saga, graph = _until_answered(runtime, lambda: definitions.fitting(acquired.record))
        if acquired.record.definition is None:
            _until_answered(runtime, lambda: _define(acquired, runtime, definitions.register(graph)))
    except (UnknownSaga, LogDoesNotFit, DefinitionNotFound) as error:
        return decline_now(acquired, runtime, str(error))
    return Found(acquired, saga, graph)


def _define(acquired: Acquired, runtime: Runtime, definition_hash: str) -> None:
    runtime.storage.set_definition(acquired.lease, definition_hash)


def _until_answered(runtime: Runtime, ask: Callable[[], _T]) -> _T:
    """Ask until the database answers. This worker holds the saga, and an expired lease would count as a crash."""
    for failures in count(1):
        try:
            return ask()
        except StorageUnavailable as error:
            if runtime.stopping():
                raise
            logger.warning("waiting for the database: %s", error)
            runtime.sleep(database_backoff(failures))
    raise AssertionError("unreachable")


def scan(
    storage: ISagaStorage, dispatcher: Dispatcher, settings: Settings, observer: Observer | None = None
) -> ScanReport:
    """Claim sagas that are due, both those that never ran and recoverable ones, and send each to a worker.

    Raises:
        StorageUnavailable: the database does not answer.
    """
    observer = observer or NullObserver()
    with observer.scanning():
        report = _scan(storage, dispatcher, settings)
        dispatched, died = len(report.dispatched), len(report.died)
        observer.scanned({"dispatched": dispatched, "died": died, "missing": report.missing, "unsent": report.unsent})
    return report


def _scan(storage: ISagaStorage, dispatcher: Dispatcher, settings: Settings) -> ScanReport:
    dispatched: list[UUID] = []
    died: list[UUID] = []
    missing = unsent = 0
    for pending in (False, True):
        result = storage.claim_sagas(
            pending=pending,
            limit=settings.scan_limit,
            max_recovery_attempts=settings.max_recovery_attempts,
        )
        for saga_id in result.died:
            logger.error(
                "saga %s is dead: the crash of its worker spent its last attempt; see `sagas show %s`",
                *(saga_id, saga_id),
                extra=about(saga_id),
            )
        sent = _send_in_time(storage, dispatcher, result.claims)
        dispatched += (claim.saga_id for claim in result.claims[:sent])
        died += result.died
        missing += result.lost
        unsent += len(result.claims) - sent
    _deliver_forgotten(storage, dispatcher, settings)
    return ScanReport(dispatched=tuple(dispatched), died=tuple(died), missing=missing, unsent=unsent)


def _deliver_forgotten(storage: ISagaStorage, dispatcher: Dispatcher, settings: Settings) -> None:
    """Deliver signals whose sender died before it did, or was not told of its commit."""
    forgotten = storage.undelivered(older_than_seconds=_FORGOTTEN_SECONDS, limit=settings.scan_limit)
    if forgotten:
        send(storage, dispatcher, storage.deliver(forgotten))


def _send_in_time(storage: ISagaStorage, dispatcher: Dispatcher, claims: Sequence[Claim]) -> int:
    """Publish messages for a limited time, and release the claims that are left. A later scan sends those.

    If a message were published long after its saga was queued, a scan would take it for lost and send it twice.
    """
    late = time.monotonic() + _SENDING_SECONDS
    for sent in range(0, len(claims), _BATCH):
        if time.monotonic() > late:
            logger.warning("the broker is slow; %d sagas stay due, and a later scan sends them", len(claims) - sent)
            storage.release_claims(claims[sent:])
            return sent
        batch = claims[sent : sent + _BATCH]
        published = send(storage, dispatcher, batch)
        if published < len(batch):
            storage.release_claims(claims[sent + len(batch) :])
            return sent + published
    return len(claims)


def send(storage: ISagaStorage, dispatcher: Dispatcher, claims: Sequence[Claim]) -> int:
    """Publish the messages of claims, and release the claims that could not be sent. Return how many were sent."""
    sent = dispatcher.send(claims) if claims else 0
    if sent < len(claims):
        logger.warning("the broker failed; %d sagas stay due, and a later scan sends them", len(claims) - sent)
        storage.release_claims(claims[sent:])
    return sent


def send_tasks(storage: ISagaStorage, dispatcher: Dispatcher, tasks: Sequence[OutboxTask]) -> int:
    """Send tasks of the outbox, and delete those that were sent. Return how many."""
    enqueue = getattr(dispatcher, "enqueue", None)  # a dispatcher of an earlier release has none
    if not tasks or enqueue is None:
        return 0
    sent = enqueue(tasks)
    if sent:
        storage.delete_from_outbox(sent)
    return len(sent)


def send_outbox(storage: ISagaStorage, dispatcher: Dispatcher) -> int:
    """Send tasks that have waited in the outbox, because their worker died or the broker failed. Return how many.

    Raises:
        StorageUnavailable: the database does not answer.
    """
    late = time.monotonic() + _SENDING_SECONDS
    sent = 0
    while time.monotonic() < late:
        tasks = storage.claim_outbox(older_than_seconds=_OUTBOX_SECONDS, limit=_BATCH)
        here = send_tasks(storage, dispatcher, tasks)
        sent += here
        if here < len(tasks) or len(tasks) < _BATCH:
            break
    return sent


def parse_saga_id(text: object) -> UUID:
    """Return the id that the text names.

    Raises:
        InvalidSagaId: it is not a UUID.
    """
    try:
        return text if isinstance(text, UUID) else UUID(str(text).strip())
    except ValueError:
        raise InvalidSagaId(
            f"{str(text)[:100]!r} is not a saga's id, which is a UUID such as 01890a5d-ac96-774b-bcce-b302099a8057: "
            "copy it from `sagas list`."
        ) from None


def _waits(record: SagaRecord, until: str) -> str:
    if record.state is not SagaState.WAITING:
        return f"it waits until {until}: let the scan take it then, or invoke it by hand."
    if record.available_at is None:
        return "it waits for a signal, without a limit: leave it until somebody sends one (`sagas signal`)."
    return f"it waits for a signal or a time, until {until}: a signal wakes it, or else the scan takes it then."


def _skipped(saga_id: UUID, refused: NotAcquired) -> Report:
    record = refused.record
    if record is None:
        raise not_found(saga_id)
    until = f"{record.available_at:%Y-%m-%d %H:%M:%S %Z}" if record.available_at else "an operator acts"
    message = {
        Refusal.FINISHED: f"nothing to do: the saga is {record.status} already.",
        Refusal.HELD: f"{record.lease_owner} holds the lease until {until} and renews it: leave the saga to it.",
        Refusal.OUTDATED: "nothing to do: the message was for an earlier version; the saga has moved on since.",
        Refusal.WAITING: _waits(record, until),
        Refusal.PAUSED: f"sagas named {record.name} are paused (`sagas stats` tells by whom and why): `sagas resume "
        f"{record.name}` lets it go on, or invoke it by hand.",
        Refusal.DEAD: f"it is dead after {record.recovery_attempts} failed attempts ({record.last_error}): "
        "see to the cause, then run `sagas recover` or invoke it by hand.",
        Refusal.DIED: f"its worker died, which was failed attempt {record.recovery_attempts}, so it is dead now: "
        "invoke it by hand once more to run it all the same.",
        Refusal.SUSPECT: "its worker crashed while it held other sagas too: it runs alone, in a process of its own.",
    }[refused.why]
    return Report.of(record, Outcome.SKIPPED, message, refusal=refused.why)

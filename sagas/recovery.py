"""Bringing sagas on that nobody is working on: taking one, and the scan that finds and dispatches them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol
from uuid import UUID

from sagas.errors import InvalidSagaId, UnknownSaga
from sagas.execution import MARK_SECONDS, Report, Runtime, decline, execute, giving_back_on_error
from sagas.registry import Registry
from sagas.settings import Settings
from sagas.storage.base import Claim, ISagaStorage, LogEntry, Refusal, Refused, not_found
from sagas.telemetry.logs import about, saga_logger
from sagas.telemetry.observer import NOBODY, Observer

logger = saga_logger(__name__)


class Dispatcher(Protocol):
    """What carries sagas to workers; `sagas.celery` has the one for Celery."""

    def send(self, claims: Sequence[Claim]) -> int:
        """Publish a message for each claim, in order; return how many were published before the broker failed."""

    def waiting(self, *, pending: bool) -> int:
        """Return how many messages for sagas that never ran, or for recoverable ones, wait in the broker.

        Raises:
            BrokerUnavailable: the broker does not answer.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class ScanReport:
    """What one scan did.

    Attributes:
        dispatched: ids for which a message was sent.
        died: ids whose worker crashed once too often: dead now.
        missing: sagas whose message the broker lost; the next scans dispatch them again.
        unsent: claims freed again because the broker failed.
    """

    dispatched: tuple[UUID, ...] = ()
    died: tuple[UUID, ...] = ()
    missing: int = 0
    unsent: int = 0

    def as_json(self) -> dict[str, Any]:
        """Return it as plain data, which reads well in Flower."""
        return {
            "dispatched": len(self.dispatched),
            "died": [str(saga_id) for saga_id in self.died],
            "missing": self.missing,
            "unsent": self.unsent,
        }


def recover(
    saga_id: UUID,
    *,
    runtime: Runtime,
    registry: Registry,
    version: int | None = None,
    by_hand: bool = False,
    told: LogEntry | None = None,
) -> Report:
    """Take a saga and bring it as far as it goes now.

    Args:
        saga_id: which.
        version: only at this version: the one that the message was sent for.
        by_hand: an operator asks: also while it backs off, is dead or paused, never while another worker holds it.
        told: the operator's note, for the saga's log.

    Raises:
        SagaNotFound: no saga has this id.
        StorageUnavailable: the database does not answer.
    """
    settings = runtime.settings
    taken = runtime.storage.take(
        saga_id,
        owner=runtime.owner,
        lease_seconds=settings.lease_seconds,
        max_recovery_attempts=settings.max_recovery_attempts,
        version=version,
        by_hand=by_hand,
    )
    if isinstance(taken, Refused):
        return _skipped(saga_id, taken)
    with giving_back_on_error(taken, runtime):
        if told is not None:
            runtime.storage.checkpoint(taken.hold, told, status=taken.record.status)
        try:
            saga = registry.fitting(taken.record.name, taken.record.definition_version)
        except UnknownSaga as error:
            return decline(taken, runtime, str(error))
    return execute(saga, taken, runtime)


def scan(storage: ISagaStorage, dispatcher: Dispatcher, settings: Settings, observer: Observer = NOBODY) -> ScanReport:
    """Claim what is due and send each to a worker, sagas that never ran and recoverable ones alike.

    Raises:
        BrokerUnavailable: the broker does not answer; no saga is left claimed then without its message.
        StorageUnavailable: the database does not answer.
    """
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
            mark_seconds=MARK_SECONDS,
            # Asked before the claim looks at its marks: too many at worst, and then nothing counts as missing.
            messages_waiting=dispatcher.waiting(pending=pending),
        )
        for saga_id in result.died:
            logger.error(
                "saga %s is dead: it crashed its worker once too often; see `sagas show %s`",
                *(saga_id, saga_id),
                extra=about(saga_id),
            )
        # Sent before the broker is asked again: should it fail by then, these are on their way or free.
        sent = send(storage, dispatcher, result.claims)
        dispatched += (claim.saga_id for claim in result.claims[:sent])
        died += result.died
        missing += result.missing
        unsent += len(result.claims) - sent
    return ScanReport(dispatched=tuple(dispatched), died=tuple(died), missing=missing, unsent=unsent)


def send(storage: ISagaStorage, dispatcher: Dispatcher, claims: Sequence[Claim]) -> int:
    """Publish the claims' messages, free the claims that could not be sent, and return how many were."""
    sent = dispatcher.send(claims) if claims else 0
    if sent < len(claims):
        logger.warning("the broker failed; %d sagas stay due, and a later scan sends them", len(claims) - sent)
        storage.unclaim(claims[sent:])
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


def _skipped(saga_id: UUID, refused: Refused) -> Report:
    record = refused.record
    if record is None:
        raise not_found(saga_id)
    until = f"{record.available_at:%Y-%m-%d %H:%M:%S %Z}" if record.available_at else "an operator acts"
    message = {
        Refusal.FINISHED: f"nothing to do: the saga is {record.status} already.",
        Refusal.HELD: f"{record.lease_owner} holds the lease until {until} and renews it: leave the saga to it.",
        Refusal.OUTDATED: "nothing to do: the message was for an earlier version; the saga has moved on since.",
        Refusal.WAITING: f"it waits until {until}: let the scan take it then, or invoke it by hand.",
        Refusal.PAUSED: f"sagas named {record.name} are paused (`sagas stats` tells by whom and why): `sagas resume "
        f"{record.name}` lets it go on, or invoke it by hand.",
        Refusal.DEAD: f"it is dead after {record.recovery_attempts} failed attempts ({record.last_error}): "
        "see to the cause, then run `sagas recover` or invoke it by hand.",
        Refusal.DIED: f"its worker died, which was failed attempt {record.recovery_attempts}, so it is dead now: "
        "invoke it by hand once more to run it all the same.",
    }[refused.why]
    return Report(saga_id=saga_id, name=record.name, status=record.status, outcome="skipped", message=message)

"""Makes new sagas of what a program passes to `start` or `run`, and refuses what none can be made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from sagas.context import ContextT
from sagas.definition import MAX_NAME_LENGTH, Saga
from sagas.definitions import Definitions
from sagas.execution import Outcome, Report
from sagas.ids import new_saga_id
from sagas.progress import SagaStatus
from sagas.registry import Registry
from sagas.storable import is_storable, require_storable
from sagas.storage.answers import Acquired
from sagas.storage.contract import ISagaStorage
from sagas.storage.leases import Lease, LeaseRequest
from sagas.storage.records import NewSaga, SagaRecord, utc_now


def new_sagas(
    saga: type[Saga[ContextT]],
    contexts: Sequence[ContextT],
    keys: Sequence[str] | None,
    tags: Mapping[str, str] | None,
    *,
    registry: Registry,
    definitions: Definitions,
) -> list[NewSaga]:
    """Return new sagas of these contexts, once the class is registered and its definition is stored.

    Raises:
        TypeError, ValueError: an argument has a value that it cannot have.
        ContextError: a context cannot be stored and read back as it is.
        StorageUnavailable, SchemaBehind: as from the storage.
    """
    if not (isinstance(saga, type) and issubclass(saga, Saga)):
        raise TypeError(f"{saga!r:.60} is no Saga class: give the class itself, as start(PlaceOrder, ...).")
    registry.add(saga)
    if keys is not None and len(keys) != len(contexts):
        raise ValueError(f"{len(keys)} idempotency keys for {len(contexts)} contexts: give one for each.")
    for key in keys or ():
        check_idempotency_key(key)
    check_tags(tags)
    if not contexts:
        return []
    documents = [saga.codec.dump_checked(context) for context in contexts]
    definition = definitions.register(saga.graph)
    return [
        NewSaga(
            id=new_saga_id(),
            name=saga.stored_name(),
            definition=definition,
            context=document,
            idempotency_key=keys[index] if keys is not None else None,
            tags=tags or None,
            deadline_seconds=None if saga.deadline is None else saga.deadline.total_seconds(),
        )
        for index, document in enumerate(documents)
    ]


def traced(new: list[NewSaga], traceparent: str | None) -> list[NewSaga]:
    """Return new sagas in this trace context, if there is one."""
    return new if traceparent is None else [replace(saga, traceparent=traceparent) for saga in new]


def just_started(storage: ISagaStorage, new: NewSaga, request: LeaseRequest) -> Acquired:
    """Return a new saga under its first lease, as the storage has stored it."""
    lease = Lease(new.id, 1, request.owner, request.token)
    # A deadline is judged by the clock of the storage. Nothing else of a new saga depends on a time.
    if new.deadline_seconds is not None:
        record = storage.load(new.id)
    else:
        record = new.as_record(now=utc_now(), lease=request)
    return Acquired(lease, record, SagaStatus.PENDING)


def started_before(record: SagaRecord) -> Report:
    """Return the report of a run that found a saga with its idempotency key."""
    message = f"a saga with this idempotency key was started before and is {record.status}."
    return Report.of(record, Outcome.SKIPPED, message)


def start_time(at: datetime | timedelta | None) -> dict[str, Any]:
    """Return the arguments of the storage for a start at this time.

    Raises:
        ValueError: the time has no time zone, or the duration is negative.
    """
    match at:
        case None:
            return {}
        case timedelta() if at >= timedelta(0):
            return {"after_seconds": at.total_seconds()}
        case datetime() if at.tzinfo is not None:
            return {"at": at}
    raise ValueError(
        f"at is {at!r}: give a datetime with a time zone, as datetime.now(UTC) + timedelta(hours=2), or a timedelta."
    )


def check_tags(tags: object) -> None:
    """Refuse what cannot be tags.

    Raises:
        ValueError: the message shows them and says what they may be.
    """
    if tags is None:
        return
    if not isinstance(tags, Mapping) or not all(isinstance(text, str) for pair in tags.items() for text in pair):
        raise ValueError(f"tags are {tags!r:.100}: give a mapping of text to text, as {{'customer': 'c-7'}}.")
    require_storable(**{f"tag {name!r}": f"{name}{value}" for name, value in tags.items()})


def check_idempotency_key(key: str) -> None:
    """Refuse a value that cannot be an idempotency key.

    Raises:
        ValueError: the message shows the key and says what one may be.
    """
    if not isinstance(key, str) or not 0 < len(key) <= MAX_NAME_LENGTH or not is_storable(key):
        raise ValueError(
            f"idempotency key {key!r:.60}: give text of 1 to {MAX_NAME_LENGTH} characters without NUL, "
            "and without halves of surrogate pairs."
        )

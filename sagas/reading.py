"""Reads sagas for programs: one of them, those that a filter wants, or one when it has ended."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, TypeAlias, TypedDict, TypeVar, Unpack
from uuid import UUID

from sagas.context import ContextCodec
from sagas.definition import AnySaga, Saga
from sagas.definitions import Definitions
from sagas.errors import DefinitionNotFound, LogDoesNotFit, SagaNotFound, StorageUnavailable, UnknownSaga
from sagas.inspection.view import SagaSummary, SagaView, is_over, summary_of, view_of
from sagas.loops import call_in_thread, refuse_within_async_step
from sagas.progress import SagaStatus
from sagas.recovery import parse_saga_id
from sagas.registry import Registry
from sagas.storage.arguments import require_seconds
from sagas.storage.contract import ISagaStorage
from sagas.storage.records import SagaRecord, SagaState
from sagas.storage.saga_filter import SagaFilter
from sagas.waiting import Patience

#: Names one saga: its id, or its class or name with its idempotency key.
SagaReference: TypeAlias = "UUID | str | tuple[AnySaga | str, str]"


class Filters(TypedDict, total=False):
    """The filters of `find`. None does not apply."""

    name: AnySaga | str | None
    status: SagaStatus | Sequence[SagaStatus] | None
    state: SagaState | Sequence[SagaState] | None
    key: str | None
    tags: Mapping[str, str] | None
    created_after: datetime | None
    created_before: datetime | None
    updated_after: datetime | None
    updated_before: datetime | None
    after: UUID | str | None
    limit: int


_Word = TypeVar("_Word", SagaStatus, SagaState)


class Reader:
    """Reads the sagas of a storage.

    Args:
        storage: where they are.
        registry: the classes whose context types are known.
        definitions: what sagas were started with.
    """

    def __init__(self, storage: ISagaStorage, registry: Registry, definitions: Definitions) -> None:
        self._storage = storage
        self._registry = registry
        self._definitions = definitions

    def get(self, saga: SagaReference) -> SagaView:
        """Return one saga. `SagaEngine.get` describes the arguments and errors."""
        return self._view(self._storage.load(self.id_of(saga)))

    def find(self, **filters: Unpack[Filters]) -> list[SagaSummary]:
        """Return sagas, the newest first. `SagaEngine.find` describes the arguments and errors."""
        unknown = filters.keys() - Filters.__annotations__.keys()
        if unknown:
            raise TypeError(f"find() has no filter {min(unknown)!r}: it has {', '.join(Filters.__annotations__)}.")
        rest: dict[str, Any] = dict(filters)
        name, after = rest.pop("name", None), rest.pop("after", None)
        wanted = SagaFilter(
            name=None if name is None else self._stored_name(name),
            statuses=_words(SagaStatus, rest.pop("status", None)),
            states=_words(SagaState, rest.pop("state", None)),
            after=None if after is None else parse_saga_id(after),
            **rest,
        )
        return [summary_of(record, self._codec(record)) for record in self._storage.find(wanted)]

    def wait(self, saga: SagaReference, timeout: float | None) -> SagaView:
        """Return a saga once it is over. `SagaEngine.wait` describes the arguments and errors."""
        refuse_within_async_step("wait", "wait_async")
        look, patience = self._looking_at(saga), _patience(saga, timeout)
        while not isinstance(seen := look(), SagaView):
            time.sleep(patience.pause_after(seen))
        return seen

    async def wait_async(self, saga: SagaReference, timeout: float | None) -> SagaView:
        """Do as `wait` does, from a coroutine."""
        look, patience = self._looking_at(saga), _patience(saga, timeout)
        while not isinstance(seen := await call_in_thread(look), SagaView):
            await asyncio.sleep(patience.pause_after(seen))
        return seen

    # -- details ----------------------------------------------------------------------------------------------

    def _looking_at(self, saga: SagaReference) -> Callable[[], SagaView | tuple[UUID, SagaStatus] | StorageUnavailable]:
        """Return a function that looks at a saga once.

        It returns a saga that is over, the id and the status of one that is not, or why the saga could not be read.
        """
        saga_id: UUID | None = None

        def look() -> SagaView | tuple[UUID, SagaStatus] | StorageUnavailable:
            nonlocal saga_id
            try:
                if saga_id is None:
                    saga_id = self.id_of(saga)
                seen = self._storage.head(saga_id)
                if not is_over(seen.status, seen.state):
                    return saga_id, seen.status
                view = self.get(saga_id)
            except StorageUnavailable as error:
                return error
            # An operator may have made a dead saga go on meanwhile.
            return view if view.over else (saga_id, view.status)

        return look

    def id_of(self, saga: SagaReference) -> UUID:
        """Return the id of a saga.

        Raises:
            SagaNotFound: no saga of this name has this key.
            InvalidSagaId: the text is no id.
        """
        if not isinstance(saga, tuple):
            return parse_saga_id(saga)
        name, key = saga
        stored = self._stored_name(name)
        found = self._storage.find_id(stored, key)
        if found is None:
            raise SagaNotFound(
                f"no saga named {stored!r} has the idempotency key {key!r}: check both, or see whether the saga was "
                "pruned."
            )
        return found

    def _stored_name(self, saga: AnySaga | str) -> str:
        if isinstance(saga, type) and issubclass(saga, Saga):
            self._registry.add(saga)
            return saga.stored_name()
        if not isinstance(saga, str):
            raise TypeError(f"{saga!r:.60} is no saga: give its class, or its name.")
        try:
            return self._registry.get(saga).stored_name()
        except UnknownSaga:
            return saga

    def _view(self, record: SagaRecord) -> SagaView:
        return view_of(record, self._codec(record))

    def _codec(self, record: SagaRecord) -> ContextCodec[Any] | None:
        """Return what reads the context, if this process has the class that the saga was started with."""
        try:
            self._registry.get(record.name)  # or else its definition need not be loaded
            saga, _ = self._definitions.fitting(record)
        except (UnknownSaga, DefinitionNotFound, LogDoesNotFit):
            return None
        return saga.codec


def _patience(saga: SagaReference, timeout: float | None) -> Patience:
    if timeout is not None:
        require_seconds(timeout=timeout)
    named = saga if not isinstance(saga, tuple) else f"with the idempotency key {saga[1]!r}"
    return Patience(named, timeout)


def _words(kind: type[_Word], given: _Word | Sequence[_Word] | None) -> Sequence[_Word]:
    if given is None:
        return ()
    return [kind(word) for word in ([given] if isinstance(given, str) else given)]

"""Functions for most programs: they call the methods of this process's engine."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Unpack
from uuid import UUID

from sagas.context import ContextT
from sagas.definition import Saga
from sagas.engine import SagaEngine
from sagas.execution import Report
from sagas.framework import set_up_framework
from sagas.inspection.view import SagaSummary, SagaView
from sagas.reading import Filters, SagaReference
from sagas.settings import Settings
from sagas.storage.records import OnConflict
from sagas.storage.transactions import AsyncTransactionOwner, TransactionOwner

_engine: SagaEngine | None = None
#: Whether `current_engine` made the engine. Such an engine is replaced when the settings change.
_made_here = False
#: Arguments for `new_engine` from the frameworks that this process uses.
_defaults: dict[str, Any] = {}
_lock = threading.RLock()


def configure(engine: SagaEngine | None) -> None:
    """Make this the engine of the process. None goes back to the engine that the environment describes."""
    global _engine, _made_here
    with _lock:
        _engine, _made_here = engine, False


def current_engine() -> SagaEngine:
    """Return the engine of the process: the one given to `configure`, or else `new_engine()`, made on first use.

    A new engine is made when an integration's settings have changed, as in tests that have databases of their own.

    Raises:
        ConfigurationError: a setting cannot work.
    """
    global _engine, _made_here
    engine = _engine
    # Take no lock once there is an engine: a child that is forked while the lock is held would inherit it locked.
    if engine is None or (_made_here and callable(_defaults.get("settings")) and engine.settings != settings()):
        with _lock:
            if _engine is engine:
                _engine, _made_here = new_engine(), True
            engine = _engine
    assert engine is not None
    return engine


def set_defaults(**options: Any) -> None:
    """Set arguments for the engine of this process. The integrations with Celery and Django call this.

    Args:
        options: arguments of `SagaEngine.from_environment`, including `settings`. Each replaces an earlier one.
            `settings` may be a function of the environment, which is called whenever settings are needed.
    """
    global _engine, _made_here
    with _lock:
        _defaults.update(options)
        if _made_here:
            # The engine was made with other options, before the integration that calls this was imported.
            _engine, _made_here = None, False


def settings(environment: Mapping[str, str] = os.environ) -> Settings:
    """Return the settings of this process: an integration's, or else those of the `SAGAS_...` variables.

    Args:
        environment: the variables.

    Raises:
        ConfigurationError: a setting cannot work.
    """
    set_up_framework()
    given: Settings | Callable[[Mapping[str, str]], Settings] | None = _defaults.get("settings")
    if isinstance(given, Settings):
        return given
    return Settings.from_environment(environment) if given is None else given(environment)


def new_engine(**options: Any) -> SagaEngine:
    """Return an engine with the settings of this process.

    Args:
        options: arguments of `SagaEngine.from_environment`; they override those of integrations.

    Raises:
        ConfigurationError: a setting cannot work.
    """
    return SagaEngine.from_environment(**{**_defaults, "settings": settings(), **options})


def start(
    saga: type[Saga[ContextT]],
    context: ContextT,
    *,
    idempotency_key: str | None = None,
    on_conflict: OnConflict = "return",
    connection: TransactionOwner | None = None,
    at: datetime | timedelta | None = None,
    tags: Mapping[str, str] | None = None,
) -> UUID:
    """Store a saga and send it to a worker; return its id. See `SagaEngine.start`."""
    return current_engine().start(
        saga,
        context,
        idempotency_key=idempotency_key,
        on_conflict=on_conflict,
        connection=connection,
        at=at,
        tags=tags,
    )


def start_many(
    saga: type[Saga[ContextT]],
    contexts: Sequence[ContextT],
    *,
    idempotency_keys: Sequence[str] | None = None,
    on_conflict: OnConflict = "return",
    connection: TransactionOwner | None = None,
    at: datetime | timedelta | None = None,
    tags: Mapping[str, str] | None = None,
) -> list[UUID]:
    """Store many sagas in one statement and send them; return their ids in order. See `SagaEngine.start_many`."""
    return current_engine().start_many(
        saga,
        contexts,
        idempotency_keys=idempotency_keys,
        on_conflict=on_conflict,
        connection=connection,
        at=at,
        tags=tags,
    )


async def start_async(
    saga: type[Saga[ContextT]],
    context: ContextT,
    *,
    idempotency_key: str | None = None,
    on_conflict: OnConflict = "return",
    connection: AsyncTransactionOwner | None = None,
    at: datetime | timedelta | None = None,
    tags: Mapping[str, str] | None = None,
) -> UUID:
    """Do as `start` does, from a coroutine."""
    return await current_engine().start_async(
        saga,
        context,
        idempotency_key=idempotency_key,
        on_conflict=on_conflict,
        connection=connection,
        at=at,
        tags=tags,
    )


def send(*saga_ids: UUID | str) -> None:
    """Send sagas to workers after the commit of a connection that they were started on. See `SagaEngine.send`."""
    current_engine().send(*saga_ids)


async def send_async(*saga_ids: UUID | str) -> None:
    """Do as `send` does, from a coroutine."""
    await current_engine().send_async(*saga_ids)


def signal(
    saga: SagaReference,
    name: str,
    payload: object = None,
    *,
    signal_id: str | None = None,
    actor: str | None = None,
    connection: TransactionOwner | None = None,
) -> bool:
    """Send a signal to a saga, for one of its waits. See `SagaEngine.signal`."""
    return current_engine().signal(saga, name, payload, signal_id=signal_id, actor=actor, connection=connection)


async def signal_async(
    saga: SagaReference,
    name: str,
    payload: object = None,
    *,
    signal_id: str | None = None,
    actor: str | None = None,
    connection: AsyncTransactionOwner | None = None,
) -> bool:
    """Do as `signal` does, from a coroutine."""
    return await current_engine().signal_async(
        saga, name, payload, signal_id=signal_id, actor=actor, connection=connection
    )


def cancel(
    saga: SagaReference, reason: str, *, actor: str | None = None, connection: TransactionOwner | None = None
) -> None:
    """Ask for a saga to be aborted. See `SagaEngine.cancel`."""
    current_engine().cancel(saga, reason, actor=actor, connection=connection)


async def cancel_async(
    saga: SagaReference, reason: str, *, actor: str | None = None, connection: AsyncTransactionOwner | None = None
) -> None:
    """Do as `cancel` does, from a coroutine."""
    await current_engine().cancel_async(saga, reason, actor=actor, connection=connection)


def run(saga: type[Saga[ContextT]], context: ContextT, *, idempotency_key: str | None = None) -> Report:
    """Start a saga and run it here and now, without the broker. See `SagaEngine.run`."""
    return current_engine().run(saga, context, idempotency_key=idempotency_key)


async def run_async(saga: type[Saga[ContextT]], context: ContextT, *, idempotency_key: str | None = None) -> Report:
    """Do as `run` does, from a coroutine. See `SagaEngine.run_async`."""
    return await current_engine().run_async(saga, context, idempotency_key=idempotency_key)


def recover_saga(saga_id: UUID | str, *, by_hand: bool = False) -> Report:
    """Resume a saga from its log, forward or backward. See `SagaEngine.recover`."""
    return current_engine().recover(saga_id, by_hand=by_hand)


async def recover_saga_async(saga_id: UUID | str, *, by_hand: bool = False) -> Report:
    """Do as `recover_saga` does, from a coroutine. See `SagaEngine.recover_async`."""
    return await current_engine().recover_async(saga_id, by_hand=by_hand)


def get(saga: SagaReference) -> SagaView:
    """Return one saga as it is now, by its id or by its class and idempotency key. See `SagaEngine.get`."""
    return current_engine().get(saga)


async def get_async(saga: SagaReference) -> SagaView:
    """Do as `get` does, from a coroutine."""
    return await current_engine().get_async(saga)


def find(**filters: Unpack[Filters]) -> list[SagaSummary]:
    """Return the sagas that all given filters want, the newest first. See `SagaEngine.find`."""
    return current_engine().find(**filters)


async def find_async(**filters: Unpack[Filters]) -> list[SagaSummary]:
    """Do as `find` does, from a coroutine."""
    return await current_engine().find_async(**filters)


def wait(saga: SagaReference, timeout: float | None = None) -> SagaView:
    """Return one saga once it is COMPLETED, COMPENSATED or dead. See `SagaEngine.wait`."""
    return current_engine().wait(saga, timeout)


async def wait_async(saga: SagaReference, timeout: float | None = None) -> SagaView:
    """Do as `wait` does, from a coroutine."""
    return await current_engine().wait_async(saga, timeout)

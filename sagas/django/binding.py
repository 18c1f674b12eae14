"""Bind the engine to Django: to its transactions, its threads and its connections to databases."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Awaitable, Callable
from typing import Any, ParamSpec, TypeVar

from asgiref.sync import sync_to_async
from django.core import mail
from django.db import close_old_connections, connections

from sagas.django.configuration import database_alias
from sagas.django.transactions import open_transaction
from sagas.framework import Framework
from sagas.settings import Settings
from sagas.storage.contract import ISagaStorage
from sagas.storage.postgres.dsn import make_engine
from sagas.storage.postgres.storage import PostgresSagaStorage
from sagas.storage.transactions import CallersTransaction

ResultT = TypeVar("ResultT")
ParamsT = ParamSpec("ParamsT")


class DjangoFramework(Framework):
    """Has sagas join `transaction.atomic`, and closes Django's connections in the threads that run steps."""

    def transaction(self) -> CallersTransaction | None:
        """Return this thread's open transaction on the database of the sagas."""
        return open_transaction(database_alias())

    async def in_thread(
        self, function: Callable[ParamsT, ResultT], /, *args: ParamsT.args, **kwargs: ParamsT.kwargs
    ) -> ResultT:
        """Call the function in the thread of `sync_to_async`, and so in the transaction that is open in this thread."""
        result: ResultT = await sync_to_async(function, thread_sensitive=True)(*args, **kwargs)
        return result

    def around(self, action: Callable[[], Any]) -> Callable[[], Any]:
        """Close Django's connections after a step that ran in a thread or on an event loop of the engine.

        In the caller's thread the connections belong to the caller: Celery closes them after each task, Django after
        each request.
        """
        caller = threading.get_ident()

        def around() -> Any:
            if threading.get_ident() == caller:
                result = action()
            else:
                try:
                    result = action()
                finally:
                    self.thread_ends()
            return _awaited(result) if inspect.isawaitable(result) else result

        return around

    def thread_ends(self) -> None:
        """Close this thread's connections."""
        connections.close_all()


async def _awaited(result: Awaitable[Any]) -> Any:
    # The thread of sync_to_async lives as long as the process, so a broken connection there would stay broken.
    close = sync_to_async(connections.close_all if in_tests() else close_old_connections, thread_sensitive=True)
    await close()
    try:
        return await result
    finally:
        await close()


def in_tests() -> bool:
    """Whether a test runner has prepared Django for tests."""
    return hasattr(mail, "outbox")


def make_storage(settings: Settings) -> ISagaStorage:
    """Return the storage; in tests it keeps no connection open, so that Django can drop the test database."""
    if in_tests():
        return PostgresSagaStorage(make_engine(settings.database_url))
    return PostgresSagaStorage(settings.database_url, pool_size=settings.database_pool_size)

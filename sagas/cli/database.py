"""The database that the settings name, and what commands ask of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from typing import Final

from sagas import api
from sagas.inspection import Inspector
from sagas.storage import PostgresSagaStorage

_opened: Final[ContextVar[ExitStack | None]] = ContextVar("opened", default=None)


@contextmanager
def closed_afterwards() -> Iterator[None]:
    """Close every storage that is opened meanwhile: a command may run within a program that goes on."""
    with ExitStack() as opened:
        _opened.set(opened)
        try:
            yield
        finally:
            _opened.set(None)


def storage() -> PostgresSagaStorage:
    """Return the storage of SAGAS_DATABASE_URL.

    Raises:
        ConfigurationError: a setting cannot work.
    """
    opened = PostgresSagaStorage(api.settings().database_url)
    if (stack := _opened.get()) is not None:
        stack.callback(opened.close)
    return opened


def inspector() -> Inspector:
    """Return what answers questions about that database.

    Raises:
        ConfigurationError: a setting cannot work.
    """
    return Inspector(storage())

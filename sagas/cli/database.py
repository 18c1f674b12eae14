"""The database that the settings name, and what commands ask of it."""

from __future__ import annotations

from sagas import api
from sagas.storage import PostgresSagaStorage
from sagas.storage.operations import Operations


def storage() -> PostgresSagaStorage:
    """Return the storage of SAGAS_DATABASE_URL.

    Raises:
        ConfigurationError: a setting cannot work.
    """
    return PostgresSagaStorage(api.settings().database_url)


def operations() -> Operations:
    """Return what answers questions about that database.

    Raises:
        ConfigurationError: a setting cannot work.
    """
    return Operations(storage())

"""The database that the settings name, and what commands ask of it."""

from __future__ import annotations

from sagas import api
from sagas.inspection import Inspector
from sagas.storage import PostgresSagaStorage


def storage() -> PostgresSagaStorage:
    """Return the storage of SAGAS_DATABASE_URL.

    Raises:
        ConfigurationError: a setting cannot work.
    """
    return PostgresSagaStorage(api.settings().database_url)


def inspector() -> Inspector:
    """Return what answers questions about that database.

    Raises:
        ConfigurationError: a setting cannot work.
    """
    return Inspector(storage())

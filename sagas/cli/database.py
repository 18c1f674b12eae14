"""The database that the settings name, and what commands ask of it."""

from __future__ import annotations

from sagas import api
from sagas.storage import SqlAlchemySagaStorage
from sagas.storage.operations import Operations


def storage() -> SqlAlchemySagaStorage:
    """Return the storage of SAGAS_DATABASE_URL.

    Raises:
        ConfigurationError: a setting cannot work.
    """
    return SqlAlchemySagaStorage(api.settings().database_url)


def operations() -> Operations:
    """Return what answers questions about that database.

    Raises:
        ConfigurationError: a setting cannot work.
    """
    return Operations(storage())

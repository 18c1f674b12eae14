"""An inspector of the module's database, and sagas in whatever state a test writes into it."""

from __future__ import annotations

from collections.abc import Callable
from uuid import UUID

import pytest
import sqlalchemy as sa

from sagas.ids import new_saga_id
from sagas.inspection import Inspector
from sagas.storage import PostgresSagaStorage

#: Inserts a saga with these SQL expressions for its columns.
Insert = Callable[..., UUID]


@pytest.fixture
def inspector(emptied_storage: PostgresSagaStorage) -> Inspector:
    """An inspector of the module's database, which holds no saga."""
    return Inspector(emptied_storage)


@pytest.fixture
def insert(emptied_storage: PostgresSagaStorage, module_database: sa.Engine) -> Insert:
    """Inserts a saga, RUNNING, ready and at version 1 unless its columns say otherwise."""

    def insert(**columns: str) -> UUID:
        saga_id = new_saga_id()
        row = {
            "id": f"'{saga_id}'",
            "name": "'order'",
            "status": "'RUNNING'",
            "state": "'ready'",
            "context": "'{}'",
            "version": "1",
        } | columns
        with module_database.begin() as connection:
            connection.exec_driver_sql(
                f"INSERT INTO saga_executions ({', '.join(row)}) VALUES ({', '.join(row.values())})"
            )
        return saga_id

    return insert

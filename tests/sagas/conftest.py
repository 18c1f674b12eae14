"""What most tests of the engine need; a database for a whole module, emptied between its tests, is among it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import sqlalchemy as sa

from sagas.storage import SqlAlchemySagaStorage
from tests.sagas.callers import Shop
from tests.sagas.samples import Clock, Stage
from tests.sagas.storage.databases import database, empty


@pytest.fixture
def stage() -> Stage:
    """Makes steps and sagas, and sees every call of their actions."""
    return Stage()


@pytest.fixture
def clock() -> Clock:
    """A storage's clock, which a test sets forward."""
    return Clock()


@pytest.fixture(scope="module")
def module_database(server_url: sa.URL, template: str) -> Iterator[sa.Engine]:
    """A migrated database of the module's own."""
    with database(server_url, f"TEMPLATE {template}") as engine:
        yield engine


@pytest.fixture
def emptied_url(module_database: sa.Engine) -> str:
    """The URL of the module's database, which holds no saga."""
    with module_database.begin() as connection:
        empty(connection)
    return module_database.url.render_as_string(hide_password=False)


@pytest.fixture
def emptied_storage(emptied_url: str) -> Iterator[SqlAlchemySagaStorage]:
    """A storage on the module's database, which holds no saga."""
    storage = SqlAlchemySagaStorage(emptied_url)
    yield storage
    storage.close()


@pytest.fixture
def shop(emptied_storage: SqlAlchemySagaStorage, emptied_url: str) -> Iterator[Shop]:
    """A caller on the module's database, which holds no saga."""
    shop = Shop(emptied_storage, emptied_url)
    yield shop
    shop.database.dispose()

"""A table of the user's in the sagas' database, and what each kind of session writes to it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import sqlalchemy as sa

from tests.calls import wait_until
from tests.integration.transactional.accounts import TABLES, Accounts


@pytest.fixture(scope="module")
def accounts_database(module_database: sa.Engine) -> sa.Engine:
    """The module's database, with the user's tables."""
    with module_database.begin() as connection:
        for statement in TABLES:
            connection.exec_driver_sql(statement)
    return module_database


@pytest.fixture
def accounts(accounts_database: sa.Engine, emptied_url: str) -> Iterator[Accounts]:
    """The accounts, with a balance of 0 each. Afterwards no transaction of a step may be left open."""
    accounts = Accounts(accounts_database, emptied_url)
    yield accounts
    wait_until(lambda: accounts.open_steps() == [])

"""What is examined: an environment, what the checks have read from it, and the database, read-only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa

from sagas.registry import Registry
from sagas.settings import Settings
from sagas.storage.postgres.dsn import make_engine

if TYPE_CHECKING:
    from sagas.doctor.check import Check

#: Shorter than a check may take, so that a slow statement is told as what it is, and ends on the server, too.
_STATEMENT_TIMEOUT: Final = "SET LOCAL statement_timeout = '4s'"


@dataclass(slots=True)
class Installation:
    """One installation, as this process's environment describes it.

    Attributes:
        environment: the variables.
        settings: what they give; the defaults until the check of settings has read them.
        registry: the sagas that this environment's code knows; empty until the check of code has loaded them.
        celery_checks: what examines the Celery side; empty until its code was loaded.
    """

    environment: Mapping[str, str]
    settings: Settings = field(default_factory=Settings)
    registry: Registry = field(default_factory=Registry)
    celery_checks: tuple[Check, ...] = ()

    def rows(self, statement: str, parameters: Mapping[str, Any] | None = None) -> list[Mapping[str, Any]]:
        """Return what a statement reads, in a read-only transaction and a bounded time.

        On a connection of its own: a check that hangs must not keep one from the checks that follow.

        Raises:
            ConfigurationError: the URL cannot be used.
            DBAPIError: the database does not answer, or refuses.
        """
        # Drivers begin a transaction by themselves at this level.
        engine = make_engine(self.settings.database_url).execution_options(isolation_level="READ COMMITTED")
        with engine.connect() as connection:
            connection.execute(sa.text("SET TRANSACTION READ ONLY"))
            connection.execute(sa.text(_STATEMENT_TIMEOUT))
            return [dict(row) for row in connection.exec_driver_sql(statement, dict(parameters or {})).mappings()]

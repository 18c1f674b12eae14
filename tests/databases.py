"""Databases that several tests share."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager

import sqlalchemy as sa

from sagas.storage.tables import metadata


@contextmanager
def database(server_url: sa.URL, clause: str = "") -> Iterator[sa.Engine]:
    """Make a database on this server, and drop it afterwards."""
    name = f"sagas_test_{secrets.token_hex(6)}"
    _run(server_url, f"CREATE DATABASE {name} {clause}")
    engine = sa.create_engine(server_url.set(database=name), max_overflow=-1)
    try:
        yield engine
    finally:
        engine.dispose()
        _run(server_url, f"DROP DATABASE {name} WITH (FORCE)")


def empty(connection: sa.Connection) -> None:
    """Delete every row in the tables of sagas."""
    connection.exec_driver_sql("; ".join(f"DELETE FROM {table}" for table in metadata.tables))


def _run(server_url: sa.URL, statement: str) -> None:
    engine = sa.create_engine(server_url, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
    with engine.connect() as connection:
        connection.exec_driver_sql(statement)

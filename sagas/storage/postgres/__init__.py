"""Sagas in PostgreSQL."""

from sagas.storage.postgres.storage import PostgresSagaStorage

__all__ = ["PostgresSagaStorage"]

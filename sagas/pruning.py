"""Deletes old finished sagas in small batches, so that no live saga waits for one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from sagas.storage.arguments import require_positive
from sagas.storage.contract import ISagaStorage

#: Sagas deleted in one statement.
BATCH: Final = 1000


def prune(storage: ISagaStorage, *, older_than_seconds: float) -> Iterator[int]:
    """Delete finished sagas that ended longer ago than this, with their logs. Yield the size of each batch.

    Raises:
        ValueError: the age is not above 0.
    """
    require_positive(older_than_seconds=older_than_seconds)
    while batch := storage.prune(older_than_seconds=older_than_seconds, limit=BATCH):
        yield batch

"""The errors that every storage raises, in the same words."""

from __future__ import annotations

from uuid import UUID

from sagas.errors import LeaseLost, SagaExists, SagaNotFound
from sagas.storage.leases import Lease


def not_found(saga_id: UUID) -> SagaNotFound:
    """The error for an id that no saga has."""
    return SagaNotFound(f"no saga has the id {saga_id}: check it, or see whether the saga was pruned.")


def lease_lost(lease: Lease) -> LeaseLost:
    """The error for a write under a lease that is no longer valid."""
    return LeaseLost(
        f"saga {lease.saga_id} is no longer held by {lease.owner} at version {lease.version}: another worker may have "
        "it by now, so nothing was written; stop here."
    )


def exists(saga_id: UUID | str) -> SagaExists:
    """The error for a new saga whose id is that of another."""
    return SagaExists(f"a saga with the id {saga_id} exists already, so nothing was stored: give each saga a new id.")

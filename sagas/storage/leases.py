"""Leases: the right to write to a saga, for a time."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final
from uuid import UUID, uuid4

#: Ends the name of a lease owner that may hold several sagas at once. Its crash does not count against any one of them.
_SHARED: Final = "/shared"


def shared_owner(owner: str) -> str:
    """Return the name for a lease owner that may hold several sagas at once."""
    return owner if is_shared(owner) else owner + _SHARED


def is_shared(owner: str | None) -> bool:
    """Whether this lease owner may hold several sagas at once."""
    return owner is not None and owner.endswith(_SHARED)


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseRequest:
    """A request for a lease.

    Attributes:
        owner: the worker's name.
        seconds: how long the lease lasts unless it is renewed.
        token: random for each request, so that two threads of one worker cannot both hold a saga.
    """

    owner: str
    seconds: float
    token: UUID = field(default_factory=uuid4)


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to write to a saga; `version` and `token` are its fence.

    Attributes:
        saga_id: the saga.
        version: the saga's fencing token; every acquire increments it.
        owner: the worker's name.
        token: the token of the request.
    """

    saga_id: UUID
    version: int
    owner: str
    token: UUID

"""Saga ids: UUIDs of version 7, so that the newest are together in the index and sort by age."""

from uuid import UUID

from uuid_utils.compat import uuid7


def new_saga_id() -> UUID:
    """Return a new id, greater than every earlier one of this process, also within a millisecond (RFC 9562, 6.2).

    Ids of several processes sort by their clocks, to the millisecond.
    """
    made: UUID = uuid7()
    return made

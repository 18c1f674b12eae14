"""Saga ids are UUIDs of version 7: they sort by age, and the newest are next to each other in the index."""

from uuid import UUID

from uuid_utils.compat import uuid7


def new_saga_id() -> UUID:
    """Return a new id. It is greater than every earlier one of this process, even within a millisecond.

    RFC 9562, section 6.2, defines this order. Ids of several processes sort by their clocks, to the millisecond.
    """
    made: UUID = uuid7()
    return made

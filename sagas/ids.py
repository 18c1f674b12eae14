"""Saga ids: UUIDs of version 7, so that the newest are together in the index and sort by age."""

import os
import time
from uuid import UUID


def new_saga_id() -> UUID:
    """Return a new id: 48 bits of Unix milliseconds, then version, variant and 74 random bits (RFC 9562, 5.7)."""
    milliseconds = time.time_ns() // 1_000_000
    random = int.from_bytes(os.urandom(10), "big")
    value = (milliseconds & (1 << 48) - 1) << 80 | random
    value = value & ~(0xF << 76) | 0x7 << 76
    value = value & ~(0b11 << 62) | 0b10 << 62
    return UUID(int=value)

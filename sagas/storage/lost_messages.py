"""Lost messages: which queued sagas have lost theirs, and how that is found out.

Messages are first in, first out. So a message that reached a worker shows that those queued much earlier are lost.
While none reaches a worker, a scan *probes*: it sends one saga's message a second time, and waits for either.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final

from sagas.storage.records import SagaRecord, SagaState
from sagas.storage.transitions import MOST_PROBE_SECONDS, PROBE_SECONDS

#: Seconds by which messages may overtake each other. A message counts as lost only if it was queued this much earlier.
OVERTAKING_SECONDS: Final = 5.0
#: The largest number of sagas that a scan probes: it sends a second message, in case the first is lost. One probe is
#: enough: once it reaches a worker, every message that was queued before it is known to be lost.
PROBES: Final = 1


def lost_message(record: SagaRecord, delivered: datetime | None) -> bool:
    """Whether a queued saga has lost its message: a message queued later, at `delivered`, has reached a worker."""
    if delivered is None or record.state is not SagaState.QUEUED or record.available_at is None:
        return False
    # `available_at` is PROBE_SECONDS after it was queued; after a probe it is later, and the next probe decides.
    return record.available_at < delivered + timedelta(seconds=PROBE_SECONDS - OVERTAKING_SECONDS)


def probe(record: SagaRecord, now: datetime) -> SagaRecord:
    """Return a queued saga for which a second message is about to be sent; the next one waits twice as long."""
    waited = (record.available_at or now) - record.updated_at
    # Wait at least the first interval: another update of the saga makes `waited` shorter.
    seconds = max(min(2 * waited.total_seconds(), MOST_PROBE_SECONDS), PROBE_SECONDS)
    return replace(record, available_at=now + timedelta(seconds=seconds), updated_at=now)


def probed_lately(record: SagaRecord, now: datetime) -> bool:
    """Whether a queued saga was probed, and its remaining wait is still longer than that of a first message.

    While there is such a saga, a scan probes no other. So workers that are busy for hours find few void messages.
    """
    due = record.available_at
    return record.state is SagaState.QUEUED and due is not None and due > now + timedelta(seconds=PROBE_SECONDS)

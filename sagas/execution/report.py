"""What came of one call that ran a saga."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from enum import StrEnum
from typing import Any
from uuid import UUID

from sagas.progress import SagaStatus
from sagas.storage.answers import Refusal
from sagas.storage.records import SagaRecord
from sagas.text import printable


class Outcome(StrEnum):
    """What became of a saga in one call.

    WAITING: it is put down until it is due. FAILED: this attempt failed, and another follows. DECLINED: this process's
    code does not fit. HANDED_OVER: given back, because this process stops or an operator asked. LOST: another worker
    has it. SKIPPED: it was not acquired.
    """

    COMPLETED = "completed"
    COMPENSATED = "compensated"
    WAITING = "waiting"
    FAILED = "failed"
    DEAD = "dead"
    DECLINED = "declined"
    HANDED_OVER = "handed over"
    LOST = "lost"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What one call did for a saga.

    Attributes:
        saga_id: which saga.
        name: its name.
        status: how it stands now.
        outcome: what became of it.
        events: what was done, in order.
        message: the same in a sentence.
        refusal: why it was not acquired, if it was not.
    """

    saga_id: UUID
    name: str
    status: SagaStatus
    outcome: Outcome
    events: tuple[str, ...] = ()
    message: str = ""
    refusal: Refusal | None = None

    @classmethod
    def of(cls, saga: SagaRecord, outcome: Outcome, message: str, **more: Any) -> Report:
        """Return a report on this saga as it was last seen; `more` are other attributes."""
        more.setdefault("status", saga.status)
        return cls(saga_id=saga.id, name=saga.name, outcome=outcome, message=message, **more)

    def __post_init__(self) -> None:
        # They quote errors and names, and are read in terminals and logs.
        object.__setattr__(self, "events", tuple(map(printable, self.events)))
        object.__setattr__(self, "message", printable(self.message))

    @property
    def did(self) -> tuple[str, ...]:
        """The former name of `events`."""
        warnings.warn(
            "Report.did is now called Report.events: read that instead, before the next release.",
            DeprecationWarning,
            stacklevel=2,
        )
        return self.events

    def as_json(self) -> dict[str, Any]:
        """Return it as plain data, which reads well in Flower: what a reader wants first, what may be long last."""
        return {
            "name": self.name,
            "outcome": str(self.outcome),
            "message": self.message,
            "status": str(self.status),
            "saga_id": str(self.saga_id),
            "events": list(self.events),
        }

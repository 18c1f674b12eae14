"""The places of a run at which its process can crash."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import NamedTuple

from sagas.progress import Action


class Moment(StrEnum):
    """When a process crashes; nothing happens between the second and the third, or between the fourth and the first."""

    BEFORE = "before"
    AFTER = "after"
    BEFORE_CHECKPOINT = "before the checkpoint of"
    AFTER_CHECKPOINT = "after the checkpoint of"


class Waiting(StrEnum):
    """What a wait or a sleep does at a place. With the checkpoint with which it begins, the saga is suspended."""

    BEGINS = "begins"
    RECEIVES = "receives its signal"
    ENDS = "is over"


class Place(NamedTuple):
    """A point of a run at which its process may crash.

    Attributes:
        step: the name of the step, wait or sleep.
        action: its action.
        moment: the moment of the crash.
        attempt: the number of the attempt at this action, as the engine counts them.
        process: 1 for the process that started the saga, 2 for the first one that continued it, and so on.
        waiting: what a wait or a sleep does here; None for a step.
    """

    step: str
    action: Action
    moment: Moment
    attempt: int = 1
    process: int = 1
    waiting: Waiting | None = None

    @property
    def repeats(self) -> bool:
        """Whether a crash at this place makes an action run again although it has run."""
        runs_code = self.waiting in (None, Waiting.RECEIVES)
        return runs_code and self.moment in (Moment.AFTER, Moment.BEFORE_CHECKPOINT)

    def __str__(self) -> str:
        where = f" in process {self.process}" if self.process > 1 else ""
        if self.waiting in (Waiting.BEGINS, Waiting.ENDS):
            side = "before" if self.moment is Moment.BEFORE_CHECKPOINT else "after"
            return f"{side} the checkpoint with which {self.step} {self.waiting}{where}"
        nth = f" (attempt {self.attempt})" if self.attempt > 1 else ""
        unsaved = ", before its checkpoint" if self.moment is Moment.AFTER else ""
        action = "received" if self.waiting else self.action
        return f"{self.moment} {action} of {self.step}{nth}{unsaved}{where}"


def places_to_crash(trace: Sequence[Place]) -> list[int]:
    """Return the positions in a run's trace at which to crash the run.

    Attempts between the second and the last are left out, because they add nothing new.
    """
    last = {(place.step, place.action): place.attempt for place in trace}
    return [i for i, place in enumerate(trace) if not 2 < place.attempt < last[place.step, place.action]]


def places_that_differ(trace: Sequence[Place]) -> list[int]:
    """Return one of each group of positions between which nothing happens, without the end of a finished saga."""
    return [
        index
        for index in places_to_crash(trace)
        if trace[index].moment is Moment.AFTER
        or (trace[index].moment is Moment.AFTER_CHECKPOINT and index + 1 < len(trace))
        or (trace[index].moment is Moment.BEFORE and trace[index].process != trace[index - 1].process)
        or index == 0
    ]

"""What a saga's loop wants done: it yields a command, and is sent the answer."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, TypeAlias

from sagas.definition import Call, Part
from sagas.execution.report import Report
from sagas.outbox import OutboxTask
from sagas.progress import Move
from sagas.storage.records import Claim
from sagas.storage.step_transaction import NextStep
from sagas.storage.transitions import Ended, Suspended, Transition


class Interruption(StrEnum):
    """Why a holder puts its saga down at the next boundary."""

    STOPPING = "stopping"
    LOST = "lost"
    YIELD = "yield"


@dataclass(frozen=True, slots=True)
class Interrupted:
    """Is there a reason to put the saga down? Answer: an `Interruption`, or None."""


@dataclass(frozen=True, slots=True)
class Begin:
    """One action to begin: of this part's class, with this call and context; a wait gets what the signal brought."""

    move: Move
    part: type[Part]
    call: Call
    context: Any
    signal: Any = None


@dataclass(frozen=True, slots=True)
class Perform:
    """Begin these actions, and wait for the first to end of all that are in flight. Answer: `Done`."""

    begin: tuple[Begin, ...]


@dataclass(frozen=True, slots=True)
class Done:
    """How an action ended: with what it returned, or an error."""

    move: Move
    returned: Any = None
    error: BaseException | None = None


@dataclass(frozen=True, slots=True)
class Apply:
    """Write this transition under the lease. Answer: `Applied`; raises what the storage raises.

    With `commits`, write it in the transaction of the transactional step that ended last, and commit that; `then` is
    written there too, unless something was delivered that the holder has not read. Before any other command, that
    transaction is rolled back. `ahead` is the transactional step that follows: its transaction may begin with this.
    """

    transition: Transition
    commits: bool = False
    then: Suspended | Ended | None = None
    ahead: NextStep | None = None


@dataclass(frozen=True, slots=True)
class Load:
    """Read the saga. Answer: its record."""


@dataclass(frozen=True, slots=True)
class Delay:
    """Wait so many seconds; with `interruptible`, until there is a reason to put the saga down. Answer: None."""

    seconds: float
    interruptible: bool = True


@dataclass(frozen=True, slots=True)
class Send:
    """Publish the message of a saga that was given back. Answer: None."""

    claim: Claim


@dataclass(frozen=True, slots=True)
class ReadSignals:
    """Read what was sent to the saga. Answer: a list of `Signal`."""


@dataclass(frozen=True, slots=True)
class SendTasks:
    """Send tasks of the outbox. Answer: None; a later scan sends those that could not be sent."""

    tasks: tuple[OutboxTask, ...]


Command: TypeAlias = Interrupted | Perform | Apply | Load | Delay | Send | ReadSignals | SendTasks
Loop: TypeAlias = Generator[Command, Any, Report]

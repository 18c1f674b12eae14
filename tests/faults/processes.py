"""A process as a value: engine code that runs with its answers so far, up to the first request without an answer."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime, timedelta
from functools import cache
from itertools import count
from typing import Any, Final, NamedTuple
from unittest.mock import patch
from uuid import UUID

from sagas import Call, ISagaStorage, OutcomeUnknown, RetryPolicy, SagaEngine, SagaStatus, Settings
from sagas.admin import Operator
from sagas.definition import ONCE, AnySaga, Part, Sleep, Step, Wait
from sagas.errors import SagaError, StorageUnavailable
from sagas.lease import KeptLease, LeaseKeeper
from sagas.runtime import Runtime
from sagas.storage.answers import Acquired, Applied, ClaimResult, NotAcquired
from sagas.storage.leases import Lease, LeaseRequest, is_shared, shared_owner
from sagas.storage.records import Claim, SagaRecord, Signal, SignalKind
from sagas.storage.transitions import PROBE_SECONDS, FailedAttempt, Transition
from tests.samples import Trip

MAXIMUM: Final = 2
SETTINGS: Final = Settings(max_recovery_attempts=MAXIMUM, scan_limit=1)
STEPS: Final = ("hotel", "car")
#: The wait or the sleep between the two steps, in scenarios that have one.
WAIT: Final = "courier"
#: The fallback of the second step, in scenarios that have it.
FALLBACK: Final = "bus"
SAGA_ID: Final = UUID("01890a5d-ac96-774b-bcce-b302099a8057")
NOW: Final = datetime(2031, 5, 1, tzinfo=UTC)
#: A time that is not over yet.
LATER: Final = NOW + timedelta(seconds=PROBE_SECONDS)


# -- scenarios ----------------------------------------------------------------------------------------------------


class Outcome(NamedTuple):
    """One way in which a call of a step's action ends."""

    told: str
    takes_effect: bool = False
    error: type[BaseException] | None = None


class Declined(Exception):
    """The service refused, perhaps because it has undone this effect already."""


DONE: Final = Outcome("done", True)
FAILS: Final = Outcome("fails", False, Declined)
UNKNOWN: Final = (Outcome("done, unknown", True, OutcomeUnknown), Outcome("not done, unknown", False, OutcomeUnknown))
EXITS: Final = Outcome("done, then the process exits", True, SystemExit)


class Left(NamedTuple):
    """How often each event may still happen; `faults` limits the sum of all events that are not in `_FREE`."""

    faults: int = 0
    crashes: int = 0
    expiries: int = 0
    cuts: int = 0
    losses: int = 0
    repeats: int = 0
    stops: int = 0
    hands: int = 0
    scans: int = 0
    failures: int = 0
    operations: int = 0
    arrivals: int = 0
    failovers: int = 0
    signals: int = 0


FAULTS: Final = ("crashes", "expiries", "cuts", "losses", "repeats", "stops", "hands")
_FREE: Final = ("scans", "failures", "operations", "arrivals", "signals")


@cache
def spend(left: Left, what: str) -> Left:
    """Return the bounds after one more event of this kind."""
    after = left._replace(**{what: getattr(left, what) - 1})
    if what in _FREE:
        return after
    # Worlds are equal if they differ only in bounds of events that can no longer happen.
    faults = left.faults - 1
    kinds = (*FAULTS, "failovers")
    return after._replace(faults=faults, **{kind: min(getattr(after, kind), faults) for kind in kinds})


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """One saga and the events that may happen to it.

    Attributes:
        outcomes: those of an action such as "act car"; all but the first count as failures. Default: done.
        retry: policy of the second step's act.
        first_retry: policy of the first step's act.
        compensate_retry: policy of both steps' compensations.
        fallback: whether the second step has a fallback.
        past_failures: whether the first step is compensated while the second's compensation fails.
        pivot: whether the first step is the point of no return.
        left: the bounds of the events.
        owners: owner names of the two workers; an equal name means two threads of one process.
        fits: whether each worker's code knows the saga.
        scanners: number of scans that may run at the same time.
        in_place: the saga begins with `run`, held by the first worker, instead of with `start`.
        forgets: the service forgets the effects that it has undone, so that a late request takes effect.
        operators: number of operators that may act at the same time.
        commands: the operators' commands, such as "pause" or "skip car".
        of_old: whether version 0.1.0 started the saga, and so without a definition.
        wait: what is between the two steps. "for ever": a wait without end; "abort" or "go on": a wait that does this
            after a time; "sleep": a sleep; None: nothing.
        deadline: whether the saga has a deadline.
        sent: what may be sent to the saga, such as "signal 1", whose id is 1, or "cancel 1".
        senders: number of processes that may send at the same time.
    """

    left: Left
    outcomes: Mapping[str, tuple[Outcome, ...]] = field(default_factory=dict)
    retry: RetryPolicy = ONCE
    first_retry: RetryPolicy = ONCE
    compensate_retry: RetryPolicy = ONCE
    fallback: bool = False
    past_failures: bool = False
    pivot: bool = False
    owners: tuple[str, str] = ("A", "B")
    fits: tuple[bool, bool] = (True, True)
    scanners: int = 1
    in_place: bool = False
    forgets: bool = False
    operators: int = 1
    commands: tuple[str, ...] = ()
    of_old: bool = False
    wait: str | None = None
    deadline: bool = False
    sent: tuple[str, ...] = ()
    senders: int = 1

    @property
    def names(self) -> tuple[str, ...]:
        """The steps, and the fallback if there is one."""
        return (*STEPS, FALLBACK) if self.fallback else STEPS


class Request:
    """One call to the outside."""

    def __init__(self, name: str, *args: Any, **kwargs: Any) -> None:
        self.name, self.args, self.kwargs = name, args, kwargs

    def __str__(self) -> str:
        match self.name, self.args:
            case "apply", (_, transition):
                return f"apply({_shown(transition)})"
            case "act" | "compensate", (call, *_):
                return f"{self.name} {call.step_name}"
            case "add_signal", (signal,):
                return f"add_signal({signal.kind} {signal.signal_id})"
            case "request_yield", _:
                return "request_yield()" if self.kwargs["for_seconds"] else "request_yield(no more)"
            case "note_delivery", (claim,):
                return "note_delivery()" if claim.saga_id == SAGA_ID else "note_delivery(another's)"
            case _:
                shown = {k: v for k, v in self.kwargs.items() if k in ("version", "pending")}
                return f"{self.name}({', '.join(f'{k}={v}' for k, v in shown.items())})"


def _shown(transition: Transition) -> str:
    told = [type(transition).__name__]
    told += [f"{entry.action} {entry.step} {entry.verdict or entry.status}" for entry in transition.events]
    if not isinstance(transition, FailedAttempt):
        told.append(transition.status)
    return ", ".join(told)


class Answer(NamedTuple):
    """The value or the exception of a request."""

    value: Any = None
    error: type[BaseException] | None = None

    def __str__(self) -> str:
        match self.value:
            case _ if self.error:
                return self.error.__name__
            case tuple(several):
                return f"{len(several)} {'signals' if several and isinstance(several[0], Signal) else 'claims'}"
            case Acquired(lease=lease, record=record):
                return f"acquired at version {lease.version}, {record.status}"
            case NotAcquired(why=why):
                return f"refused, {why}"
            case Applied():
                return "ok"
            case ClaimResult(claims=claims, died=died, lost=lost):
                return f"{len(claims)} claimed, {len(died)} died, {lost} lost"
            case SagaRecord():
                return f"{self.value.status} at version {self.value.version}"
            case _:
                return "ok" if self.value is None else str(self.value)


CUT: Final = Answer(error=StorageUnavailable)
#: Requests of a process to itself.
QUESTIONS: Final = ("stopping?", "lost?", "yield_requested?")


class _CutOff(BaseException):
    """Raised from the first request without an answer and from all later ones: a killed process writes nothing more."""


class Process:
    """Answers the requests of engine code from a list."""

    def __init__(self, answers: tuple[Answer, ...]) -> None:
        self._answers = iter(answers)
        self.request: Request | None = None

    def ask(self, name: str, /, *args: Any, **kwargs: Any) -> Any:
        answer = None if self.request else next(self._answers, None)
        if answer is None:
            self.request = self.request or Request(name, *args, **kwargs)
            raise _CutOff
        if answer.error is not None:
            raise answer.error("injected" if answer.value is None else answer.value)
        return answer.value


def _asking(name: str) -> Callable[..., Any]:
    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        return self.process.ask(name, *map(frozen, args), **kwargs)

    return method


def frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


class _Asking:
    def __init__(self, process: Process) -> None:
        self.process = process


_Calls: Any = type("_Calls", (_Asking, ISagaStorage), {n: _asking(n) for n in ISagaStorage.__abstractmethods__})


class Storage(_Calls):  # type: ignore[misc]
    """A storage whose every call is a request; calls with several transactions in PostgreSQL are several requests."""

    def pause(self, name: str, *, actor: str, reason: str) -> int:
        self.process.ask("_begin_pause", name, actor=actor, reason=reason)
        return int(self.process.ask("_pause_due", name))

    def resume(self, name: str) -> int:
        self.process.ask("_begin_resume", name)
        return int(self.process.ask("_free_resumed"))


_Broker: Any = type("_Broker", (_Asking,), {"send": _asking("send")})


class _Kept(KeptLease):
    """A lease whose loss is read by a request."""

    def __init__(self, lease: Lease, process: Process) -> None:
        self.process = process
        super().__init__(lease)

    lost = property(lambda self: self.process.ask("lost?"), lambda self, value: None)  # type: ignore[assignment]


class KeptForOperators(_Kept):
    """A lease whose flags are read by requests: whether it was lost, and whether an operator requests a yield."""

    yield_requested = property(  # type: ignore[assignment]
        lambda self: self.process.ask("yield_requested?"), lambda self, value: None
    )


class _Keeper(LeaseKeeper):
    """A lease keeper without a thread: renewals are events of the exploration."""

    def __init__(self, process: Process, kept: type[_Kept]) -> None:
        super().__init__(Storage(process), SETTINGS.lease_seconds)
        self.process = process
        self._kind = kept

    @contextmanager
    def keep(self, lease: Lease) -> Iterator[KeptLease]:
        yield self._kind(lease, self.process)


@dataclass(frozen=True, kw_only=True)
class _Runtime(Runtime):
    """Requests leases with the same token, so that a process can run again with the same answers."""

    token: UUID

    def request(self) -> LeaseRequest:
        return LeaseRequest(owner=self.owner, seconds=self.settings.lease_seconds, token=self.token)


class Engine(SagaEngine):
    """A real engine, whose every call to the outside is a request."""

    def __init__(self, process: Process, activity: Activity, saga: AnySaga | None, *, operated: bool = False) -> None:
        super().__init__(Storage(process), dispatcher=_Broker(process), settings=SETTINGS, sagas=[saga] if saga else [])
        self._owner = (os.getpid(), activity.owner)
        self._given: dict[str, Any] = {
            "keeper": _Keeper(process, KeptForOperators if operated else _Kept),
            "resolve": lambda step: step(process),
            "stopping": lambda: process.ask("stopping?"),
            "sleep": lambda _: None,
            "random": lambda: 0.0,
            "token": activity.token,
        }

    def runtime(self) -> Runtime:
        usual = super().runtime()
        return _Runtime(**{each.name: getattr(usual, each.name) for each in fields(usual)} | self._given)


class _Watch:
    """An operator's clock: each read advances it by a second."""

    def __init__(self) -> None:
        self._seconds = count()

    def monotonic(self) -> float:
        return float(next(self._seconds))

    def sleep(self, seconds: float) -> None:
        pass


def operate(engine: Engine, command: str) -> None:
    """Run this command as an operator's process; it tries twice to get the saga."""
    operator = Operator(engine, actor="ann", wait_seconds=2.0)
    with patch("sagas.admin.time", _Watch()):
        match command.split():
            case ["pause"]:
                engine.storage.pause("trip", actor="ann", reason="why")
            case ["resume"]:
                engine.storage.resume("trip")
            case ["abort"]:  # a scheduler that recovers sagas by other means, and no operator
                engine.storage.increment_recovery_attempts(SAGA_ID, SagaStatus.COMPENSATING)
            case ["compensate"]:
                operator.compensate(SAGA_ID, reason="why")
            case ["retry"]:
                operator.retry(SAGA_ID, reason="why")
            case ["skip", step]:
                operator.skip(SAGA_ID, step, reason="why")
            case ["resolve", status]:
                operator.resolve(SAGA_ID, SagaStatus(status), reason="why")


def post(engine: Engine, what: str) -> None:
    """Send this to the saga as a program does that has checked that the saga takes it."""
    kind, signal_id = what.split()
    if kind == SignalKind.CANCEL:
        sent = Signal(saga_id=SAGA_ID, kind=SignalKind.CANCEL, signal_id=signal_id, actor="ann", reason="why")
    else:
        sent = Signal(saga_id=SAGA_ID, name=WAIT, signal_id=signal_id, payload=signal_id)
    engine._post(sent, None)


def steps(scenario: Scenario) -> list[type[Part]]:
    def act(self: Any, context: Trip, call: Call) -> None:
        self.process.ask("act", call)
        context.booked.append(call.step_name)

    def compensate(self: Any, context: Trip, call: Call) -> None:
        self.process.ask("compensate", call)

    undo = {"compensate": compensate, "compensate_retry": scenario.compensate_retry}
    hotel = {"name": "hotel", "act": act, "retry": scenario.first_retry, "pivot": scenario.pivot} | undo
    car = {"name": "car", "act": act, "retry": scenario.retry} | ({} if scenario.pivot else undo)
    if scenario.fallback:
        car["fallback"] = type("Bus", (_Asking, Step), car | {"name": FALLBACK})
    made: list[type[Part]] = [type(step["name"].title(), (_Asking, Step), step) for step in (hotel, car)]
    return made if scenario.wait is None else [made[0], _wait(scenario.wait), made[1]]


def _wait(kind: str) -> type[Part]:
    class Courier(Wait[int]):
        name = WAIT
        timeout = None if kind == "for ever" else _WAITS
        on_timeout = "go on" if kind == "go on" else "abort"

        def received(self, context: Trip, signal: int) -> None:
            context.note = signal

    class Rest(Sleep):
        name = WAIT
        duration = _WAITS

    return Rest if kind == "sleep" else Courier


_WAITS: Final = timedelta(minutes=1)


class Message(NamedTuple):
    """A message in the broker: a dispatch for a version, or an operator's call."""

    version: int | None
    pending: bool = False
    by_hand: bool = False

    def __str__(self) -> str:
        return "an operator's call" if self.version is None else f"the message for version {self.version}"

    @property
    def claim(self) -> Claim | None:
        """Return the dispatch of the message; no other saga's message has the same time."""
        return None if self.version is None else Claim(SAGA_ID, self.version, self.pending)


class Activity(NamedTuple):
    """The activity of a process: scan, send, operate, post to the saga, or run it.

    Attributes:
        number: the actor's number.
        message: the message for which the process runs the saga; None if it holds the saga from the beginning.
        fits: whether the process's code knows the saga.
        command: the operator's command, or what is posted.
    """

    kind: str
    owner: str = ""
    number: int = 0
    message: Message | None = None
    fits: bool = True
    command: str = ""

    @property
    def token(self) -> UUID:
        """The token of its lease requests; two threads of one owner have different tokens."""
        return UUID(int=self.number)


class Point:
    """A process that waits for the answer to its request; `request` is None after the process has ended.

    Attributes:
        answers: the answers so far.
        lease: its last lease.
        outcomes: the possible outcomes of its request, if it calls a step's service.
    """

    def __init__(
        self, activity: Activity, run: Callable[[Activity, Process], object], parent: Point | None, *last: Answer
    ) -> None:
        self.activity, self.parent = activity, parent
        self.answers: tuple[Answer, ...] = (*(parent.answers if parent else ()), *last)
        self.following: dict[Answer, Point] = {}
        # A process that runs a saga in place holds it from the beginning.
        first = Lease(SAGA_ID, 1, activity.owner, activity.token) if activity.kind == "run" else None
        self.lease = next((a.value.lease for a in reversed(self.answers) if isinstance(a.value, Acquired)), first)
        self.outcomes: tuple[Outcome | None, ...] = (None,)
        self.error: BaseException | None = None
        process = Process(self.answers)
        try:
            run(activity, process)
        except _CutOff:
            pass
        except (SagaError, SystemExit) as error:
            self.error = error
        self.request = process.request

    def asked(self, question: str) -> Point | None:
        """Return the position of this request of the process to itself, if no other request came since."""
        point = self.parent
        while point is not None and point.request.name in QUESTIONS and point.request.name != question:
            point = point.parent
        return point if point is not None and point.request.name == question else None

    def readings(self, question: str) -> tuple[bool, ...]:
        """Return the possible orders: the process read the flag before it was set (False), or after (True)."""
        return (False, True) if self.asked(question) else (False,)


def next_process(owner: str) -> str:
    """Return the name of the process that replaces one of this name and, like it, holds one saga or several."""
    return shared_owner(f"{owner.removesuffix('/shared')}'") if is_shared(owner) else f"{owner}'"

"""Explore every order in which two workers, scans and faults can act on one saga, world by world.

The engine reaches the outside only through its storage, the broker and the steps. Each such call is a *request*. The
engine's behaviour between two requests is a function of the answers that it got so far. So real engine code runs from
the start of its activity with those answers, and is cut off at the first request without an answer, as by SIGKILL. A
process is therefore a value, and so is the whole world. A breadth-first search visits every world once, so the first
violation that it finds has the shortest schedule.

Covered: one saga of two steps; two workers, which accept any message that waits; as many scans and operators, one at a
time or at once, as the bounds allow; and the sending of `start`. Operators pause and resume the saga's name, abort the
saga, skip a step, resolve the saga or retry it. They request a yield once while a worker holds the saga. Programs send
signals and requests to cancel, each stored by one request and delivered by another. The saga may have a wait or a sleep
between its steps, and a deadline.

These events may happen between any two requests, within the bounds: a process is killed (its message is lost or
delivered again, its leases expire or its parent releases them); the time of a lease runs out, and its keeper renews the
lease in time, too late, or notices the loss; the connection to the database breaks before or after a statement, or that
to the broker before a message; a replica takes over that lacks the last acquire; a message is lost or delivered twice;
a message of another saga reaches a worker, and it may or cannot have overtaken this saga's; a worker is asked to stop;
an operator calls. These events have no bounds: time passes until a message counts as late, no message moves, a backoff,
a wait, a sleep or a deadline is over, or a request to yield is forgotten.

Two questions are asked in every world: does the saga end if all actors go on in turn, and does it end if all processes
and messages are lost at once? If the saga's name is paused, it is resumed first.

Not covered: several sagas, and so a scan's limit above one; steps that run at once; lengths of time (each time is
running or over, and a holder learns that a wait or a deadline is over when it acquires the saga); overlapping
statements of PostgreSQL, because each is atomic here; faults beyond the bounds; new events after the saga has ended,
while running processes do go on.
"""

from __future__ import annotations

import gc
import time
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, Final, NamedTuple, Protocol
from uuid import UUID

from sagas import MemorySagaStorage, SagaStatus
from sagas.drivers import execute
from sagas.errors import ActionRefused, IllegalStatusChange, InboxMoved, LeaseLost, StorageUnavailable
from sagas.progress import EntryStatus, aborted
from sagas.storage.answers import Acquired, Applied
from sagas.storage.leases import Lease, LeaseRequest, is_shared
from sagas.storage.lost_messages import OVERTAKING_SECONDS
from sagas.storage.records import Claim, Definition, LogEntry, NewSaga, Pause, SagaRecord, SagaState, Signal
from sagas.storage.transitions import PROBE_SECONDS
from tests.faults.processes import (
    CUT,
    DONE,
    LATER,
    MAXIMUM,
    NOW,
    QUESTIONS,
    SAGA_ID,
    SETTINGS,
    WAIT,
    Activity,
    Answer,
    Declined,
    Engine,
    Left,
    Message,
    Outcome,
    Point,
    Process,
    Request,
    Scenario,
    frozen,
    next_process,
    operate,
    post,
    spend,
    steps,
)
from tests.samples import Trip, saga_of

# -- the world ----------------------------------------------------------------------------------------------------


class Actor(NamedTuple):
    """A process, at work on its activity or idle."""

    owner: str
    point: Point | None = None
    stopping: bool = False
    lost: bool = False
    yield_requested: bool = False


class Sent(NamedTuple):
    """What was sent to the saga, and how much of it is still to be delivered: of the newest, so many."""

    signals: tuple[Signal, ...] = ()
    new: int = 0

    @property
    def delivered(self) -> tuple[Signal, ...]:
        """What was delivered."""
        return self.signals[: len(self.signals) - self.new]


class After(NamedTuple):
    """The result of a request."""

    record: SagaRecord
    effects: tuple[str, ...]
    sent: Sent


class Operated(NamedTuple):
    """Whether the saga's name is paused, and whether a yield of the saga is requested."""

    paused: bool = False
    asked: bool = False


class Delivered(NamedTuple):
    """The messages that have reached workers since the saga was queued.

    Attributes:
        later: whether one was queued after this saga's message. 0: none; 1: one that may have overtaken it; 2: one that
            cannot have overtaken it.
        moving: whether any message reached a worker a moment ago.
    """

    later: int = 0
    moving: bool = False


class Stored:
    """The content of the database. Equal contents share one object, so that worlds are compared fast."""

    def __init__(self, record: SagaRecord, operated: Operated, delivered: Delivered, sent: Sent) -> None:
        self.record, self.operated, self.delivered, self.sent = record, operated, delivered, sent

    def parts(self) -> tuple[SagaRecord, Operated, Delivered, Sent]:
        return self.record, self.operated, self.delivered, self.sent

    @property
    def queued_at(self) -> Any:
        """The time when the saga was queued; None if it is not queued."""
        return None if self.record.state is not SagaState.QUEUED else self.record.available_at - _PROBE


class World(NamedTuple):
    """The whole state at one moment. Where millions are made, they are built anew: `_replace` takes twice as long."""

    stored: Stored
    queue: tuple[Message, ...]
    effects: tuple[str, ...]
    actors: tuple[Actor, ...]
    left: Left
    judge: Judge

    def having_spent(self, what: str) -> World:
        """Return the same world with lower bounds."""
        return World(self.stored, self.queue, self.effects, self.actors, spend(self.left, what), self.judge)


class Judge(Protocol):
    """The rules of a test, and the part of the past that they need; a value, like the rest of the world."""

    def saw(self, world: World, number: int | None, request: Request, answer: Answer, after: After) -> Judge:
        """Return the judge after this request of this actor; None if the request is of no actor.

        Args:
            world: the world before the request. Only its database, its effects and this actor may matter.
            after: the record and the effects after the request.

        Raises:
            Violation: the request must not have this result.
        """

    def without(self, number: int) -> Judge:
        """Return the judge after this actor's activity ended, or its process died."""

    def when_expired(self) -> Judge:
        """Return the judge after the time of the lease was over."""


class Violation(Exception):
    """A rule was violated."""

    then: tuple[tuple[World, Event], ...] = ()


class Event(NamedTuple):
    """The next event, its actor, and its variant."""

    kind: str
    number: int = -1
    how: Any = None


_CALL: Final = Event("by hand", how=Message(None, by_hand=True))
_NOTHING: Final = Left()
_PAUSE: Final = Pause(name="trip", actor="ann", reason="why", since=NOW)
_PROBE: Final = timedelta(seconds=PROBE_SECONDS)
#: More events than any saga takes to its end if nothing fails.
_LONGEST_WAY: Final = 300
#: How much later than this saga the other sagas were queued whose messages reach workers.
_LATER: Final = (timedelta(0), timedelta(seconds=OVERTAKING_SECONDS / 2), timedelta(seconds=OVERTAKING_SECONDS + 1))
#: Exceptions that may end an activity.
_EXPECTED: Final = (StorageUnavailable, SystemExit, ActionRefused, IllegalStatusChange)
_OTHERS: Final = tuple(map(UUID, ("00" * 16, "01" * 16, "02" * 16)))
#: Another saga, whose message cannot have overtaken this saga's message.
MUCH_LATER: Final = _OTHERS[2]


@dataclass(frozen=True, kw_only=True)
class Exploration:
    """The result of an exploration.

    Attributes:
        worlds: number of distinct worlds.
        steps: number of steps from one world to another.
        schedules: number of ways from the beginning to an end; 0 if a violation ended the search.
        violation: the first violation and the shortest schedule to it, line by line; or None.
    """

    worlds: int
    steps: int
    schedules: int
    seconds: float
    violation: str | None


class Explorer:
    """Explores one scenario.

    Args:
        scenario: the events that may happen.
        judge: it has the rules.
        storage: the class to test, which stores only records.
    """

    def __init__(self, scenario: Scenario, judge: Judge, storage: type[MemorySagaStorage] = MemorySagaStorage) -> None:
        self._scenario, self._judge = scenario, judge
        self._senders = len(scenario.owners) + scenario.scanners + 1  # the number of the first of them
        self._operators = self._senders + (scenario.senders if scenario.sent else 0)
        self._storage = storage(lambda: NOW)
        deadline = _PROBE if scenario.deadline else None
        self._saga = saga_of(steps(scenario), compensate_past_failures=scenario.past_failures, deadline=deadline)
        graph = self._saga.graph
        self._storage.register_definition(Definition(hash=graph.hash, name=graph.saga, graph=graph.text))
        self._stored: dict[tuple[SagaRecord, Operated, Delivered, Sent], Stored] = {}
        started = NewSaga(id=_OTHERS[0], name="another", context="{}").as_record(now=NOW)
        self._other = replace(started, status=SagaStatus.COMPLETED, state=SagaState.FINISHED, finished_at=NOW)
        self._calls: dict[tuple[Request, Stored], tuple[Stored, Answer]] = {}
        self._first: dict[Activity, Point] = {}
        self._requests: dict[tuple[str, object], Request] = {}
        self._cut_off: dict[tuple[tuple[Actor, ...], Judge], tuple[tuple[Actor, ...], Judge]] = {}
        self._ends: dict[bool, set[World]] = {True: set(), False: set()}
        self._judges: dict[tuple[Any, ...], Judge] = {}
        self._telling, self._last = False, ""

    def explore(self) -> Exploration:
        """Visit every world, nearest first; stop at the first violation."""
        # All worlds are kept to the end: the garbage collector would go through them again and again.
        gc.disable()
        try:
            return self._explore()
        finally:
            gc.enable()

    def _explore(self) -> Exploration:
        began = time.process_time()
        worlds = [self._beginning()]
        numbers = {worlds[0]: 0}
        came: list[tuple[int, Event]] = [(0, Event("begin"))]
        follow: list[list[int]] = []
        violation = None
        for number, world in enumerate(worlds):
            follow.append([])
            event = None
            try:
                self._ends_well(world)
                self._ends_well(world, Event("power cut"))
                for event, spent in self._events(world):
                    following = self._after(world if spent is None else world.having_spent(spent), event)
                    known = numbers.setdefault(following, len(worlds))
                    if known == len(worlds):
                        worlds.append(following)
                        came.append((number, event))
                    if known != number:
                        follow[number].append(known)
            except Violation as found:
                last = [(world, event)] if event else []
                while number:
                    number, event = came[number]
                    last.insert(0, (worlds[number], event))
                violation = self._tell([*last, *found.then], found)
                break
        return Exploration(
            worlds=len(worlds),
            steps=sum(map(len, follow)),
            schedules=0 if violation else _count_ways(follow),
            seconds=time.process_time() - began,
            violation=violation,
        )

    def _beginning(self) -> World:
        owners, in_place = self._scenario.owners, self._scenario.in_place
        actors = [Actor(owner) for owner in owners]
        actors += [Actor(f"scan {number}") for number in range(1, self._scenario.scanners + 1)]
        actors.append(Actor("start"))
        start = len(actors) - 1
        if self._scenario.sent:
            actors += [Actor(f"sender {number}") for number in range(1, self._scenario.senders + 1)]
        if self._scenario.commands:
            actors += [Actor(f"operator {number}") for number in range(1, self._scenario.operators + 1)]
        stored = self._store(self._started(), Operated(), Delivered(), Sent())
        world = World(stored, (), ("",) * len(self._scenario.names), tuple(actors), self._scenario.left, self._judge)
        if in_place:
            return self._begin(world, 0, Activity("run", owners[0], 0))
        return self._begin(world, start, Activity("send"))

    def _started(self) -> SagaRecord:
        """Return the saga as `start` stores it, before its message is sent; or as `run` stores it, with a lease."""
        new = NewSaga(
            id=SAGA_ID,
            name=self._saga.name,
            context=self._saga.codec.dump(Trip()),
            definition=None if self._scenario.of_old else self._saga.graph.hash,
            deadline_seconds=PROBE_SECONDS if self._scenario.deadline else None,
        )
        lease = None
        if self._scenario.in_place:
            owner, token = self._scenario.owners[0], Activity("run").token
            lease = LeaseRequest(owner=owner, seconds=SETTINGS.lease_seconds, token=token)
        return replace(new.as_record(now=NOW, lease=lease, state=SagaState.QUEUED), available_at=LATER)

    # -- possible events ------------------------------------------------------------------------------------------

    def _events(self, world: World) -> Iterator[tuple[Event, str | None]]:
        """Return every possible next event, and the bound that it uses up."""
        left, record = world.left, world.stored.record
        finished = record.status.finished  # after the end, only running processes go on
        idle = [number for number in (0, 1) if world.actors[number].point is None]
        for number, actor in enumerate(world.actors):
            point = actor.point
            if point is not None:
                yield Event("go on", number, point.outcomes[0]), None
                if left.failures:
                    yield from ((Event("go on", number, outcome), "failures") for outcome in point.outcomes[1:])
                if point.lease is not None and not actor.lost:
                    yield from ((Event("renew", number, at_once), None) for at_once in point.readings("lost?"))
                if left.faults and not finished:
                    yield from self._faults_of(world, number, actor)
            elif left.scans and not finished and actor.owner.startswith("scan"):
                yield Event("scan", number), "scans"
            elif left.operations and not finished and actor.owner.startswith("operator"):
                for command in self._scenario.commands:
                    yield Event("operate", number, command), "operations"
            elif left.signals and not finished and actor.owner.startswith("sender"):
                for what in self._scenario.sent:
                    yield Event("post", number, what), "signals"
        # Idle workers are equal, so the first one represents both, unless their code differs.
        for number in idle if self._scenario.fits != (True, True) else idle[:1]:
            yield from ((Event("receive", number, message), None) for message in dict.fromkeys(world.queue))
        if finished:
            return
        held = record.state is SagaState.RUNNING
        if world.stored.operated.asked and all(actor.point is None for actor in world.actors[self._operators :]):
            yield Event("forget"), None  # a process that still waits asks again before this event
        timers = _timers(record)
        yield from ((Event("over", how=timer), None) for timer in timers)
        waits = record.state is SagaState.WAITING and timers  # it is due when the first of them is over
        if record.available_at == LATER and not waits and (not held or left.expiries):
            yield Event("expire"), "expiries" if held else None
        if held and record.lease_owner not in [actor.owner for actor in world.actors]:
            yield Event("reclaim"), None
        if record.state is SagaState.QUEUED:
            yield from self._deliveries(world)
        if left.losses:
            yield from ((Event("lose", how=message), "losses") for message in dict.fromkeys(world.queue))
        if left.repeats:
            yield from ((Event("repeat", how=message), "repeats") for message in dict.fromkeys(world.queue))
        if left.hands:
            yield _CALL, "hands"

    def _deliveries(self, world: World) -> Iterator[tuple[Event, str | None]]:
        """Return the messages that may reach other workers while this saga is queued."""
        later, moving = world.stored.delivered
        if moving and world.stored.record.available_at == NOW:
            yield Event("rest"), None
        if world.left.arrivals:
            if not later or not moving:
                yield Event("arrive", how=1), "arrivals"
            if later < 2 and not self._waits(world):
                yield Event("arrive", how=2), "arrivals"

    def _waits(self, world: World) -> bool:
        """Whether a message for the saga's current version waits in the broker; a later message cannot pass it."""
        return any(message.version == world.stored.record.version for message in world.queue)

    def _faults_of(self, world: World, number: int, actor: Actor) -> Iterator[tuple[Event, str]]:
        """Return the events that may happen to this process now."""
        left, point = world.left, actor.point
        if left.cuts and point.request.name not in ("act", "compensate"):
            yield from ((Event("cut", number, when), "cuts") for when in ("before", "after"))
        if left.failovers and point.request.name == "acquire":
            yield Event("failover", number), "failovers"
        if left.crashes:
            yield Event("crash", number, False), "crashes"
            if point.activity.message is not None:
                yield Event("crash", number, True), "crashes"
        if left.stops and not actor.stopping and point.activity.message is not None:
            yield from ((Event("stop", number, at_once), "stops") for at_once in point.readings("stopping?"))

    # -- results of events ----------------------------------------------------------------------------------------

    def _after(self, world: World, event: Event) -> World:
        kind, number, how = event
        match kind:
            case "go on":
                return self._go_on(world, number, how)
            case "cut":
                return self._cut(world, number, how)
            case "failover":
                _, _, answer = self._call(world, number, world.actors[number].point.request, judged=False)
                return self._resume(world, number, answer)
            case "receive":
                fits = self._scenario.fits[number]
                activity = Activity("recover", world.actors[number].owner, number, how, fits)
                return self._begin(world._replace(queue=_less(world.queue, how)), number, activity)
            case "scan":
                return self._begin(world, number, Activity("scan"))
            case "operate":
                activity = Activity("operate", world.actors[number].owner, command=how)
                return self._begin(world, number, activity)
            case "post":
                return self._begin(world, number, Activity("post", world.actors[number].owner, command=how))
            case "forget":
                record, operated, delivered, sent = world.stored.parts()
                return world._replace(stored=self._store(record, operated._replace(asked=False), delivered, sent))
            case "expire":
                record, *others = world.stored.parts()
                stored = self._store(replace(record, available_at=NOW), *others)
                return world._replace(stored=stored, judge=world.judge.when_expired())
            case "over":
                record, *others = world.stored.parts()
                return world._replace(stored=self._store(_over(record, how), *others))
            case "rest":
                record, operated, delivered, sent = world.stored.parts()
                return world._replace(stored=self._store(record, operated, delivered._replace(moving=False), sent))
            case "arrive":
                return self._arrive(world, how)
            case "renew":
                return self._renew(world, number, at_once=how)
            case "stop":
                return self._raise_flag(world, number, "stopping", at_once=how)
            case "crash":
                return self._crash(world, number, redelivered=how)
            case "reclaim":
                owner = world.stored.record.lease_owner
                request = self._request("reclaim", owner, max_recovery_attempts=MAXIMUM)
                stored, judge, _ = self._call(world, None, request)
                return world._replace(stored=stored, judge=judge)
            case "power cut":
                actors, judge = self._without_processes(world.actors, world.judge)
                return World(world.stored, (), world.effects, actors, world.left, judge)
            case "lose":
                return world._replace(queue=_less(world.queue, how))
            case _:
                return world._replace(queue=_more(world.queue, how))

    def _go_on(self, world: World, number: int, outcome: Outcome | None) -> World:
        request = world.actors[number].point.request
        match request.name:
            case "act" | "compensate":
                effects, answer = self._serve(world, request, outcome)
                after = After(world.stored.record, effects, world.stored.sent)
                judge = self._judged(world, number, request, answer, after, outcome)
                world = World(world.stored, world.queue, effects, world.actors, world.left, judge)
                return self._resume(world, number, answer)
            case "send":
                (claims,) = request.args
                queue = _more(world.queue, *(Message(claim.version, claim.pending) for claim in claims))
                return self._resume(world._replace(queue=queue), number, Answer(len(claims)))
            case _:
                stored, judge, answer = self._call(world, number, request)
                world = World(stored, world.queue, world.effects, world.actors, world.left, judge)
                return self._resume(world, number, answer)

    def _cut(self, world: World, number: int, when: str) -> World:
        """Break the connection before or after the request takes effect; only the broker's error says which."""
        request = world.actors[number].point.request
        if request.name == "send":
            return self._resume(world, number, Answer(0))
        if when == "before":
            return self._resume(world, number, CUT)
        stored, judge, _ = self._call(world, number, request)
        return self._resume(world._replace(stored=stored, judge=judge), number, CUT)

    def _arrive(self, world: World, later: int) -> World:
        """Let a message of another saga reach a worker; a message of `start` has no time."""
        pending = world.stored.record.status is SagaStatus.PENDING
        queued_at = world.stored.queued_at + _LATER[later]
        claim = Claim(_OTHERS[later], 0, pending, None if pending else queued_at)
        # Claims are compared without their times.
        request = self._requests.setdefault(("note_delivery", (claim, queued_at)), Request("note_delivery", claim))
        stored, judge, _ = self._call(world, None, request)
        return world._replace(stored=stored, judge=judge)

    def _serve(self, world: World, request: Request, outcome: Outcome) -> tuple[tuple[str, ...], Answer]:
        """The service that a step calls: each effect happens once, and never after it was undone."""
        place = self._scenario.names.index(request.args[0].step_name)
        effects = list(world.effects)
        if outcome.takes_effect and request.name == "act" and effects[place] == "undone" and not self._scenario.forgets:
            return world.effects, Answer(error=Declined)
        if outcome.takes_effect:
            effects[place] = "done" if request.name == "act" else "undone"
        return tuple(effects), Answer(error=outcome.error)

    def _renew(self, world: World, number: int, *, at_once: bool) -> World:
        """Let the lease keeper renew this actor's lease."""
        request = self._request("renew", world.actors[number].point.lease, SETTINGS.lease_seconds)
        stored, judge, answer = self._call(world, number, request)
        world = world._replace(stored=stored, judge=judge)
        if answer.error is not None:
            return self._raise_flag(world, number, "lost", at_once=at_once)
        asked = world.actors[number].point.asked("yield_requested?") is not None
        if not self._scenario.commands or (asked and not at_once):
            return world  # reading the flag next time has the same result as a renewal then
        return self._raise_flag(world, number, "yield_requested", answer.value, at_once=at_once)

    def _crash(self, world: World, number: int, *, redelivered: bool) -> World:
        killed = world.actors[number]
        message = killed.point.activity.message
        actors, judge = list(world.actors), world.judge
        for other, actor in enumerate(actors):
            if actor.owner == killed.owner:
                actors[other] = Actor(next_process(actor.owner))
                judge = judge.without(other)
        queue = _more(world.queue, message._replace(by_hand=False)) if redelivered else world.queue
        return world._replace(actors=tuple(actors), judge=judge, queue=queue)

    def _without_processes(self, actors: tuple[Actor, ...], judge: Judge) -> tuple[tuple[Actor, ...], Judge]:
        """Return the actors and the judge after every process has died."""
        cut_off = self._cut_off.get((actors, judge))
        if cut_off is None:
            following = judge
            for number in range(len(actors)):
                following = following.without(number)
            new = tuple(actor if actor.point is None else Actor(next_process(actor.owner)) for actor in actors)
            cut_off = self._cut_off[actors, judge] = new, following
        return cut_off

    # -- processes ------------------------------------------------------------------------------------------------

    def _begin(self, world: World, number: int, activity: Activity) -> World:
        if activity not in self._first:
            self._first[activity] = Point(activity, self._run, None)
        return self._settle(world, number, world.actors[number], self._first[activity])

    def _resume(self, world: World, number: int, answer: Answer) -> World:
        actor = world.actors[number]
        return self._settle(world, number, actor, self._following(actor.point, answer))

    def _raise_flag(self, world: World, number: int, flag: str, value: bool = True, *, at_once: bool) -> World:
        before = world.actors[number]
        actor = before._replace(**{flag: value})
        at_once = at_once and actor != before
        return self._settle(world, number, actor, actor.point.asked(f"{flag}?") if at_once else actor.point)

    def _settle(self, world: World, number: int, actor: Actor, point: Point) -> World:
        """Answer what the actor asks itself, and put it where it has something to ask of others, or to rest."""
        stored, queue, effects, actors, left, judge = world
        while (request := point.request) is not None:
            if request.name in QUESTIONS:
                answer = Answer(getattr(actor, request.name[:-1]))
            elif self._at_once(actor, point):
                told = self._last
                asked = World(stored, queue, effects, actors, left, judge)
                stored, judge, answer = self._call(asked, number, request)
                self._last = told
            else:
                actor = Actor(actor.owner, point, actor.stopping, actor.lost, actor.yield_requested)
                break
            point = self._following(point, answer)
        else:
            if point.error is not None and not isinstance(point.error, _EXPECTED):
                raise Violation(f"{actor.owner} failed: {point.error!r}")
            exits = actor.stopping or isinstance(point.error, SystemExit)
            actor = Actor(next_process(actor.owner) if exits else actor.owner)
            judge = judge.without(number)
        return World(stored, queue, effects, (*actors[:number], actor, *actors[number + 1 :]), left, judge)

    def _at_once(self, actor: Actor, point: Point) -> bool:
        """Whether a request is answered together with the one before it, because no event in between could matter.

        An operator's read of the saga decides nothing, because the write decides again. The arrival of a message does
        not matter unless messages of other sagas arrive, too.
        """
        name = point.request.name
        return (
            (name == "load" and actor.owner.startswith("operator"))
            or (name in ("note_delivery", "load_definition") and not self._scenario.left.arrivals)
            or name == "undelivered"  # what is found is delivered by the next request
        )

    def _following(self, point: Point, answer: Answer) -> Point:
        following = point.following.get(answer)
        if following is None:
            following = point.following[answer] = Point(point.activity, self._run, point, answer)
            if following.request is not None and following.request.name in ("act", "compensate"):
                following.outcomes = self._scenario.outcomes.get(str(following.request), (DONE,))
        return following

    def _run(self, activity: Activity, process: Process) -> None:
        operated = bool(self._scenario.commands)
        engine = Engine(process, activity, self._saga if activity.fits else None, operated=operated)
        match activity:
            case Activity("scan"):
                engine.scan()
            case Activity("operate"):
                operate(engine, activity.command)
            case Activity("post"):
                post(engine, activity.command)
            case Activity("send"):
                engine._sender.send([Claim(SAGA_ID, 0, pending=True)])
            case Activity("run"):
                lease = Lease(SAGA_ID, 1, activity.owner, activity.token)
                acquired = Acquired(lease, self._started(), SagaStatus.PENDING)
                execute(self._saga, self._saga.graph, acquired, engine.runtime())
            case Activity(message=message):
                engine.recover(SAGA_ID, version=message.version, by_hand=message.by_hand, delivered=message.claim)

    # -- the storage ----------------------------------------------------------------------------------------------

    def _call(
        self, world: World, number: int | None, request: Request, *, judged: bool = True
    ) -> tuple[Stored, Judge, Answer]:
        """Make this call on the real storage in this state, or reuse its earlier result, and let the judge check it."""
        stored = world.stored
        if (request, stored) not in self._calls:
            self._restore(stored)
            try:
                answer = Answer(_hashable(getattr(self._storage, request.name)(*request.args, **request.kwargs)))
            except InboxMoved as moved:
                answer = Answer(moved.inbox, type(moved))
            except (ActionRefused, LeaseLost, IllegalStatusChange) as error:
                answer = Answer(error=type(error))
            record = self._storage._sagas[SAGA_ID]
            operated = Operated(paused=bool(self._storage._pauses), asked=self._storage._yields.get(SAGA_ID, NOW) > NOW)
            requeued = request.name == "claim_sagas" and answer.value.claims
            delivered = Delivered() if requeued or stored.queued_at is None else self._delivered(stored)
            signals = tuple(self._storage._signals.get(SAGA_ID, ()))
            sent = Sent(signals, len(self._storage._undelivered))
            self._calls[request, stored] = self._store(record, operated, delivered, sent), answer
        after, answer = self._calls[request, stored]
        if not judged:
            return after, world.judge, answer
        result = After(after.record, world.effects, after.sent)
        return after, self._judged(world, number, request, answer, result), answer

    def _judged(
        self,
        world: World,
        number: int | None,
        request: Request,
        answer: Answer,
        after: After,
        outcome: Outcome | None = None,
    ) -> Judge:
        self._last = f"{request} -> {answer}" if self._telling else ""
        # The answer and what follows are functions of the rest of this.
        point = None if number is None else world.actors[number].point
        seen = world.judge, world.stored, world.effects, number, point, request, outcome
        judge = self._judges.get(seen)
        if judge is None:
            judge = self._judges[seen] = world.judge.saw(world, number, request, answer, after)
        return judge

    def _restore(self, stored: Stored) -> None:
        record, (paused, asked), (later, moving), sent = stored.parts()
        self._storage._sagas = {SAGA_ID: record}
        if stored.queued_at is not None:
            self._storage._sagas |= {
                other: replace(self._other, id=other, created_at=stored.queued_at + later)
                for other, later in zip(_OTHERS, _LATER, strict=True)
            }
        self._storage._log_ids = len(record.log)
        self._storage._pauses = {record.name: _PAUSE} if paused else {}
        self._storage._yields = {SAGA_ID: LATER} if asked else {}
        long_ago = [replace(each, id=place, sent_at=NOW - _PROBE) for place, each in enumerate(sent.signals, 1)]
        self._storage._signals = {SAGA_ID: long_ago}
        self._storage._undelivered = long_ago[len(long_ago) - sent.new :]
        self._storage._signal_ids = len(long_ago)
        self._storage._deliveries = {}
        if later or moving:
            queued_at = stored.queued_at + _LATER[later] if later else None
            at = NOW if moving else NOW - 2 * _PROBE
            self._storage._deliveries[record.status is SagaStatus.PENDING] = queued_at, at

    def _delivered(self, stored: Stored) -> Delivered:
        """Return the messages that, by the storage's records, have reached workers since this saga was queued."""
        none = None, NOW - 2 * _PROBE
        queued_at, at = self._storage._deliveries.get(stored.record.status is SagaStatus.PENDING, none)
        later = 0 if queued_at is None else max(n for n, by in enumerate(_LATER) if queued_at >= stored.queued_at + by)
        return Delivered(later, at > NOW - _PROBE)

    def _store(self, record: SagaRecord, operated: Operated, delivered: Delivered, sent: Sent) -> Stored:
        if record.available_at not in (None, NOW, LATER):
            record = replace(record, available_at=NOW if record.available_at <= NOW else LATER)
        if record.status.finished:
            operated = operated._replace(asked=False)  # no process receives the result
        if record.state is not SagaState.QUEUED:
            delivered = Delivered()  # the message arrived before the saga was queued again, so it shows nothing
        if record.log and record.log[-1].signal is not None:
            record = replace(record, log=_hashable_log(record.log))
        parts = record, operated, delivered, sent
        return self._stored.setdefault(parts, Stored(*parts))

    def _request(self, name: str, about: object, *args: Any, **kwargs: Any) -> Request:
        return self._requests.setdefault((name, about), Request(name, about, *args, **kwargs))

    # -- the end --------------------------------------------------------------------------------------------------

    def _ends_well(self, world: World, first: Event | None = None, *, called: bool = False) -> None:
        """Let all actors go on in turn without a fault: the saga must end, or be dead and end after an operator's call.

        Args:
            first: the event before that.
            called: whether the operator has called already.
        """
        ends, way, been = self._ends[called], [], set()
        world = world._replace(left=_NOTHING)
        if first is None and world in ends:
            return
        event = first or self._fair_event(world)
        try:
            while event is not None and (event is first or world not in ends):
                way.append((world, event))
                world = self._after(world, event)
                if world in been or len(way) > _LONGEST_WAY:
                    raise Violation("the saga never ends")
                been.add(world)
                event = self._fair_event(world)
            if world not in ends and not world.stored.record.status.finished:
                if called:
                    raise Violation("the saga is dead again, although nothing fails any more")
                self._ends_well(world, _CALL, called=True)
        except Violation as found:
            found.then = (*way, *found.then)
            raise
        ends |= been

    def _fair_event(self, world: World) -> Event | None:
        record = world.stored.record
        for number, actor in enumerate(world.actors):
            if actor.point is not None:
                return Event("go on", number, actor.point.outcomes[0])
        if world.queue:
            return Event("receive", self._fair_worker(world), world.queue[0])
        if record.status.finished or record.dead:
            return None
        if world.stored.operated.paused:
            return Event("operate", len(world.actors) - 1, "resume")
        if record.state is SagaState.WAITING and not world.stored.sent.new:
            if timers := _timers(record):
                return Event("over", how=timers[0])
            if record.available_at is None:
                return Event("post", self._senders, "signal 1")
        elif record.state is SagaState.WAITING:
            return Event("scan", len(self._scenario.owners))
        later, moving = world.stored.delivered
        if record.state is SagaState.QUEUED and self._scenario.left.arrivals:
            # So many other sagas run that some message always moves.
            if later < 2:
                return Event("arrive", how=2)
        elif record.available_at == LATER:
            return Event("expire")
        elif moving:
            return Event("rest")
        return Event("scan", len(self._scenario.owners))

    def _fair_worker(self, world: World) -> int:
        """Return an event that continues the saga."""
        fit = [number for number in (0, 1) if self._scenario.fits[number]]
        alone = [number for number in fit if not is_shared(world.actors[number].owner)]
        return (alone if world.stored.record.suspect else fit)[0]

    # -- describing schedules -------------------------------------------------------------------------------------

    def _tell(self, way: list[tuple[World, Event]], violation: Violation) -> str:
        self._telling = True
        lines = [f"{number:3}. {self._line(world, event)}" for number, (world, event) in enumerate(way, 1)]
        return "\n".join([*lines, f"     {violation}"])

    def _line(self, world: World, event: Event) -> str:
        kind, number, how = event
        who, request = "", None
        if number >= 0:
            actor = world.actors[number]
            threads = number < 2 and len(set(self._scenario.owners)) == 1
            who = f"{actor.owner}, thread {number + 1}" if threads else actor.owner
            request = actor.point and actor.point.request
        self._last = str(request)
        with suppress(Violation):
            self._after(world, event)
        told = {
            "go on": f"{who}: {self._last}",
            "cut": f"{who}: {self._last}; the connection breaks {how} it takes effect",
            "failover": f"{who}: {self._last}; a replica takes over that lacks it",
            "renew": f"{who}, its keeper: {self._last}{', which it sees at once' if how else ''}",
            "reclaim": f"the parent of {world.stored.record.lease_owner}: {self._last}",
            "expire": f"time passes, and what {world.stored.record.lease_owner or 'nobody'} holds is over",
            "crash": f"{who} is killed before {request}{', and its message comes again' if how else ''}",
            "stop": f"{who} is asked to stop{', which it sees at once' if how else ''}",
            "scan": f"{who} begins",
            "operate": f"{who} types {how}",
            "post": f"{who} sends {how}",
            "over": f"time passes, and the {how} is over",
            "forget": "time passes, and the request to yield is forgotten",
            "rest": "time passes, and no message moves any more",
            "arrive": f"a message that was queued {'a little' if how == 1 else 'much'} later reaches another worker",
            "receive": f"{who} receives {how}",
            "lose": f"the broker loses {how}",
            "repeat": f"the broker delivers {how} twice",
            "by hand": "an operator calls",
            "power cut": "all processes and messages are gone",
        }
        return told[kind]


class _Told(dict[str, object]):
    """What the log says of a signal; a value, like the rest of the world."""

    def __hash__(self) -> int:  # type: ignore[override]
        return hash(tuple(self.items()))


def _hashable(value: Any) -> Any:
    """Return what a storage returned as a value that can be compared and hashed."""
    return replace(value, log=_hashable_log(value.log)) if isinstance(value, Applied) else frozen(value)


def _hashable_log(log: tuple[LogEntry, ...]) -> tuple[LogEntry, ...]:
    return tuple(e if e.signal is None else replace(e, signal=_Told(e.signal)) for e in log)


def armed(record: SagaRecord) -> LogEntry | None:
    """Return the row with which the saga's wait began, unless the wait has ended or the saga has aborted."""
    if aborted(record.log) or any(e.step == WAIT and e.status is not EntryStatus.ARMED for e in record.log):
        return None
    return next((e for e in record.log if e.step == WAIT), None)


def _timers(record: SagaRecord) -> list[str]:
    """Return what will be over some time: the wait, the deadline."""
    begun = armed(record)
    timers = ["wait"] if begun is not None and begun.seconds is not None and begun.created_at == NOW else []
    deadline = record.deadline_at == LATER and not aborted(record.log)
    return [*timers, "deadline"] if deadline else timers


def _over(record: SagaRecord, timer: str) -> SagaRecord:
    """Return the record after the time of the wait or the deadline has passed."""
    if timer == "deadline":
        record = replace(record, deadline_at=NOW)
    else:
        begun = armed(record)
        assert begun is not None
        assert begun.seconds is not None
        earlier = replace(begun, created_at=NOW - timedelta(seconds=begun.seconds))
        record = replace(record, log=tuple(earlier if e is begun else e for e in record.log))
    return replace(record, available_at=NOW) if record.state is SagaState.WAITING else record


def _less(queue: tuple[Message, ...], message: Message) -> tuple[Message, ...]:
    left = list(queue)
    left.remove(message)
    return tuple(left)


def _more(queue: tuple[Message, ...], *messages: Message) -> tuple[Message, ...]:
    return tuple(sorted((*queue, *messages), key=repr))


def _count_ways(follow: list[list[int]]) -> int:
    """Return the number of ways from world 0 to a world without a next event; no way may contain a circle."""
    before = Counter(number for following in follow for number in following)
    ways = Counter({0: 1})
    ready, total = deque([0]), 0
    while ready:
        number = ready.popleft()
        total += 0 if follow[number] else ways[number]
        for following in follow[number]:
            ways[following] += ways[number]
            before[following] -= 1
            if not before[following]:
                ready.append(following)
    assert not +before, "the exploration goes round in circles"
    return total

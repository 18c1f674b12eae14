"""Sagas in every state, made by version 0.1.0 and brought to their ends by any version: a program for both.

    python journeys.py prepare|finish|hold|live

It uses only what every version has. What steps do is written to the table `effects`.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import psycopg
import sqlalchemy as sa

from sagas import Call, RetryPolicy, Saga, SagaEngine, SagaError, Settings, Step

URL = os.environ["SAGAS_DATABASE_URL"]
PREPARING = sys.argv[1:] == ["prepare"]
LEASE_SECONDS = 0.6


@dataclass
class Trip:
    """How one saga fares: each field names an action, such as "charge act"."""

    fails: str = ""
    fails_at_first: str = ""
    fails_before_the_upgrade: str = ""
    crashes: str = ""
    waits: str = ""


class Recorded(Step[Trip]):
    retry = RetryPolicy(max_attempts=3, first_delay=30, jitter=0, retry_on=(ConnectionError,))

    def act(self, trip: Trip, call: Call) -> None:
        perform("act", trip, call)

    def compensate(self, trip: Trip, call: Call) -> None:
        perform("compensate", trip, call)


class Book(Recorded):
    pass


class Charge(Recorded):
    pass


class Decide(Recorded):
    pivot = True


class Ship(Recorded):
    pass


class Deliver(Step[Trip]):
    def act(self, trip: Trip, call: Call) -> None:
        perform("act", trip, call)


class Journey(Saga[Trip]):
    steps = [Book, Charge, Ship]


class Parked(Saga[Trip]):
    steps = [Book, Charge, Ship]


class Resumed(Saga[Trip]):
    steps = [Book, Charge, Ship]


class Pivoted(Saga[Trip]):
    steps = [Book, Decide, Deliver]


class Long(Saga[Trip]):
    steps = [type(f"Stage{number}", (Recorded,), {}) for number in range(20)]


def perform(action: str, trip: Trip, call: Call) -> None:
    what = f"{call.step_name} {action}"
    with connect() as connection:
        connection.execute(
            "INSERT INTO effects (saga_id, what, attempt, key) VALUES (%s, %s, %s, %s)",
            (call.saga_id, what, call.attempt, call.idempotency_key),
        )
    if trip.waits == what:
        print("waiting", flush=True)
        sys.stdin.readline()
    if trip.fails_at_first == what and call.attempt == 1:
        raise ConnectionError("not now")
    if trip.crashes == what and PREPARING:
        os.kill(os.getpid(), signal.SIGKILL)
    if trip.fails == what or (trip.fails_before_the_upgrade == what and PREPARING):
        raise ValueError("never")


class Broker:
    """Messages that were sent and not delivered yet."""

    def __init__(self) -> None:
        self.messages: list[tuple[UUID, int]] = []

    def send(self, claims: Sequence[Any]) -> int:
        self.messages += ((claim.saga_id, claim.version) for claim in claims)
        return len(claims)

    def waiting(self, *, pending: bool) -> int:
        """Asked by version 0.1.0."""
        return len(self.messages)


def connect() -> psycopg.Connection[Any]:
    return psycopg.connect(URL.replace("+psycopg", ""), autocommit=True)


def new_engine(broker: Broker | None, **options: Any) -> SagaEngine:
    settings = Settings(
        database_url=URL,
        lease_seconds=LEASE_SECONDS,
        max_recovery_attempts=3,
        backoff_seconds=60,
        max_backoff_seconds=60,
    )
    engine = SagaEngine.from_environment(settings, dispatcher=broker, **options)
    for saga in (Journey, Parked, Resumed, Pivoted, Long):
        engine.registry.add(saga)
    return engine


def hasten() -> None:
    """Make due what waits for a time to come."""
    with connect() as connection:
        connection.execute("""
            UPDATE saga_executions SET available_at = clock_timestamp()
            WHERE lease_owner IS NULL AND available_at > clock_timestamp() AND available_at < 'infinity'
                AND to_jsonb(saga_executions) ->> 'state' IS DISTINCT FROM 'queued'""")


# -- before the upgrade ---------------------------------------------------------------------------------------


def prepare() -> None:
    """Leave a saga in every state, and print their ids by case and the messages that are left in the broker."""
    from sagas.operating import Operator

    broker = Broker()
    engine, quiet = new_engine(broker), new_engine(None)
    stopping = new_engine(broker, stopping=lambda: True)
    operator = Operator(quiet, by="an operator")
    cases: dict[str, UUID] = {}

    def start(case: str, saga: type[Saga[Trip]], **trip: str) -> UUID:
        cases[case] = quiet.start(saga, Trip(**trip))
        return cases[case]

    def recover(saga_id: UUID, times: int = 1) -> None:
        for _ in range(times):
            in_a_child(lambda: quiet.recover(saga_id, by_hand=True))

    def crash(case: str, saga: type[Saga[Trip]], **trip: str) -> UUID:
        recover(start(case, saga, **trip))
        return cases[case]

    crash("held, first step begun", Journey, crashes="book act")
    crash("held, second step begun", Journey, crashes="charge act")
    crash("held, the step begun fails", Journey, crashes="charge act", fails="charge act")
    crash("held, undoing begun", Journey, crashes="charge compensate", fails="ship act")
    crash("held, second attempt begun", Journey, fails_at_first="charge act", crashes="ship act")
    recover(cases["held, second attempt begun"])
    twice = crash("held, crashed twice", Journey, crashes="charge act")
    spent = crash("dead by crashes", Journey, crashes="charge act")
    spent_and_fails = crash("dead by crashes, the step begun fails", Journey, crashes="charge act", fails="charge act")
    crash("long, held", Long, crashes="stage9 act")
    old = crash("no definition written down", Journey, crashes="charge act", fails="charge act")
    turned = crash("turned back by an operator", Journey, crashes="charge act")
    start("long, pending", Long)
    start("pending", Journey)
    start("parked, pending", Parked)
    crash("parked, step begun", Parked, crashes="charge act")
    crash("parked, the step begun fails", Parked, crashes="charge act", fails="charge act")
    start("resume cut off", Resumed)
    for case, saga, trip in (
        ("queued, step begun", Journey, {"crashes": "charge act"}),
        ("queued, the step begun fails", Journey, {"crashes": "charge act", "fails": "charge act"}),
        ("queued, undoing begun", Journey, {"crashes": "book compensate", "fails": "ship act"}),
    ):
        crash(case, saga, **trip)
    recover(start("completed", Journey))
    recover(start("compensated", Journey, fails="ship act"))
    recover(start("retry is backing off", Journey, fails_at_first="charge act"))
    recover(start("attempt failed, backing off", Pivoted, fails_before_the_upgrade="deliver act"))
    recover(start("undoing failed, backing off", Journey, fails="ship act", fails_before_the_upgrade="book compensate"))
    recover(start("dead", Pivoted, fails_before_the_upgrade="deliver act"), times=3)
    recover(start("skipped by an operator", Pivoted, fails_before_the_upgrade="deliver act"), times=3)
    operator.skip(cases["skipped by an operator"], "deliver", because="delivered by hand")
    stopping.recover(start("handed over, queued", Journey), by_hand=True)
    cases["with a key"] = quiet.start(Journey, Trip(), idempotency_key="the key")

    lease_runs_out()
    recover(twice)
    for _ in range(3):
        for saga_id in (spent, spent_and_fails):
            recover(saga_id)
        lease_runs_out()
    operator.compensate(turned, because="the customer called")
    with connect() as connection:
        connection.execute("UPDATE saga_executions SET definition_version = '' WHERE id = %s", (old,))
    for name in ("parked", "resumed"):
        quiet.storage.pause(name, by="an operator", because="a test")
    scan_only(engine, cases)
    with connect() as connection:
        connection.execute("DELETE FROM saga_pauses WHERE name = 'resumed'")
        connection.execute("INSERT INTO saga_resumes (name) VALUES ('resumed')")
    cases["queued, never ran"] = engine.start(Journey, Trip())
    # A program may set any status by hand.
    set_by_hand = crash("held, set by hand", Journey, crashes="charge act", fails="charge act")
    from sagas import SagaStatus

    quiet.storage.increment_recovery_attempts(set_by_hand, SagaStatus.FAILED)
    lease_runs_out()
    print(
        json.dumps(
            {"cases": {case: str(found) for case, found in cases.items()}, "messages": broker.messages}, default=str
        )
    )


def scan_only(engine: SagaEngine, cases: dict[str, UUID]) -> None:
    """Have a scan find the sagas of some cases, and no other."""
    found = [found for case, found in cases.items() if case.startswith(("queued", "parked", "dead by"))]
    with connect() as connection:
        put_off = (
            "UPDATE saga_executions SET available_at = {} WHERE NOT id = ANY (%s) AND available_at BETWEEN {} AND {}"
        )
        year, now = "clock_timestamp() + interval '1 year'", "clock_timestamp()"
        # Not those that have an owner: a lease that has run out must stay so.
        connection.execute(put_off.format("available_at + interval '1 year'", "'-infinity'", now), (found,))
        engine.scan()
        connection.execute(
            put_off.format("available_at - interval '1 year'", f"{now} + interval '300 days'", year), (found,)
        )


def in_a_child(work: Callable[[], object]) -> None:
    """Work in a process that may be killed."""
    child = os.fork()
    if not child:
        with suppress(SagaError):
            work()
        os._exit(0)
    os.waitpid(child, 0)


def lease_runs_out() -> None:
    """Wait until no lease is alive."""
    query = "SELECT count(*) FROM saga_executions WHERE lease_owner NOT IN ('queue', 'paused') AND available_at > now()"
    with connect() as connection:
        while connection.execute(query).fetchone() != (0,):
            time.sleep(0.05)


# -- after it -------------------------------------------------------------------------------------------------


def finish() -> None:
    """Deliver what is in the broker, scan until nothing is due, and act as operators do; print how the sagas stand."""
    given = json.loads(sys.stdin.read())
    broker = Broker()
    broker.messages = [(UUID(saga_id), version) for saga_id, version in given["messages"]]
    engine = new_engine(broker)
    work(engine, broker)
    stages = {"first": stand()}
    for name in ("parked", "resumed"):
        engine.storage.resume(name)
    work(engine, broker)
    stages["resumed"] = stand()
    for saga_id in given["cases"].values():
        engine.recover(saga_id, by_hand=True)
        work(engine, broker)
    again = engine.start(Journey, Trip(), idempotency_key="the key")
    print(json.dumps({**stages, "last": stand(), "same saga": str(again) == given["cases"]["with a key"]}))


def work(engine: SagaEngine, broker: Broker) -> None:
    """Do what beat and workers do, until nothing is due."""
    rounds_without_work = 0
    while rounds_without_work < 2:
        hasten()
        engine.scan()
        rounds_without_work = 0 if broker.messages else rounds_without_work + 1
        while broker.messages:
            saga_id, version = broker.messages.pop(0)
            engine.recover(saga_id, version=version)


def stand() -> dict[str, Any]:
    """How each saga stands, and what was done for it."""
    with connect() as connection:
        rows = connection.execute("""
            SELECT id, status, recovery_attempts, CAST(context AS jsonb), ARRAY(
                SELECT concat_ws(', ', what, attempt, key) FROM effects WHERE saga_id = e.id ORDER BY effects.id)
            FROM saga_executions e""").fetchall()
    return {str(saga_id): [status, attempts, context, done] for saga_id, status, attempts, context, done in rows}


# -- programs that an upgrade meets ---------------------------------------------------------------------------


def hold() -> None:
    """Hold a saga in a step until a line arrives, then go on."""
    report = new_engine(None).run(Journey, Trip(waits="charge act"))
    print(report.status, flush=True)


def live() -> None:
    """Use the database, wait for a line, and then try everything that a program does; print what came of each."""
    engine = new_engine(Broker())
    saga_id = engine.start(Journey, Trip())
    print(engine.runtime().owner, flush=True)
    sys.stdin.readline()
    caller = sa.create_engine(URL)

    def start_within() -> None:
        with caller.begin() as connection:
            engine.start(Journey, Trip(), connection=connection)

    for name, attempt in {
        "start": lambda: engine.start(Journey, Trip()),
        "start many": lambda: engine.start_many(Journey, [Trip(), Trip()]),
        "start within": start_within,
        "run": lambda: engine.run(Journey, Trip()),
        "recover": lambda: engine.recover(saga_id),
        "recover by message": lambda: engine.recover(saga_id, version=0),
        "scan": engine.scan,
    }.items():
        try:
            attempt()
        except Exception as error:
            print(f"{name}: {type(error).__name__}: {error}", flush=True)
        else:
            print(f"{name}: done", flush=True)


if __name__ == "__main__":
    {"prepare": prepare, "finish": finish, "hold": hold, "live": live}[sys.argv[1]]()

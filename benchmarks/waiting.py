"""Measure steps that wait for services: how many sagas one worker with a hundred threads runs, and its sessions."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any, LiteralString

from benchmarks.database import Database
from benchmarks.rows import Row
from benchmarks.sagas import WAIT_SECONDS, Nothing, WaitingAsyncSteps, WaitingSteps
from benchmarks.through_celery import Setting, setting
from sagas import SagaEngine
from sagas.celery.dispatch import CeleryDispatcher
from sagas.testing.processes import wait_until

SAGAS = 2_000
AT_ONCE = 100
ROUNDS = 3
#: The best possible rate: each thread runs its sagas of three steps one after another.
_BEST = AT_ONCE / (3 * WAIT_SECONDS)
#: Sessions of the database that the worker may open: one for each thread, plus 10 %.
_SESSIONS = AT_ONCE * 1.1
_DEADLINE = 300.0
# PostgreSQL's counter includes sessions that have ended.
_SESSIONS_OPENED: LiteralString = "SELECT sessions FROM pg_stat_database WHERE datname = current_database()"
_UNFINISHED: LiteralString = "SELECT count(*) FROM saga_executions WHERE name = %(name)s AND finished_at IS NULL"
# The time from the beginning of the first step to the end of the last one.
_SECONDS: LiteralString = (
    "SELECT extract(epoch FROM max(finished_at) - (SELECT min(created_at) FROM saga_logs))::float8 "
    f"+ {WAIT_SECONDS} FROM saga_executions WHERE name = %(name)s"
)
_KINDS: dict[str, type[Any]] = {"sync": WaitingSteps, "async": WaitingAsyncSteps}


def measure(directory: Path, database: Callable[[str], Database]) -> list[Row]:
    """Return a row of the rate for sync steps, one for async steps, and one for the number of opened sessions."""
    rates: dict[str, list[float]] = {kind: [] for kind in _KINDS}
    sessions: list[int] = []
    with setting(directory, database("waiting")) as world:
        for _ in range(ROUNDS):
            for kind, saga in _KINDS.items():
                rate, opened = _run(world, saga)
                rates[kind].append(rate)
                sessions.append(opened)
    return [
        *(
            Row(
                name=f"steps that wait: {SAGAS:,} sagas of three {kind} steps, {AT_ONCE} at once",
                unit="sagas/s",
                measured=median(measured),
                against=f"{AT_ONCE} threads that only wait",
                limit=_BEST,
                ratio=median(measured) / _BEST,
                goal=0.85,
                details={"ours": measured},
            )
            for kind, measured in rates.items()
        ),
        Row(
            name=f"steps that wait: sessions of the database for {SAGAS:,} sagas",
            unit="sessions",
            measured=max(sessions),
            against=f"{AT_ONCE} threads",
            limit=AT_ONCE,
            ratio=max(sessions) / AT_ONCE,
            goal=_SESSIONS / AT_ONCE,
            at_most=True,
            details={"opened": sessions},
        ),
    ]


def _run(world: Setting, saga: type[Any]) -> tuple[float, int]:
    """Let a worker run sagas that are queued; return the sagas a second, and the sessions that the worker opened."""
    storage = world.database.storage()
    engine = SagaEngine(storage, dispatcher=CeleryDispatcher(world.app), sagas=[saga])
    engine.start_many(saga, [Nothing(f"o-{number}") for number in range(SAGAS)])
    storage.close()
    with world.database.connect() as connection:  # use one connection for all queries, because each session counts

        def ask(question: LiteralString) -> Any:
            return (connection.execute(question, {"name": saga.name}).fetchone() or (None,))[0]

        before = ask(_SESSIONS_OPENED)
        with world.process("worker", "-P", "threads", "-c", str(AT_ONCE), "-l", "WARNING"):
            wait_until(lambda: ask(_UNFINISHED) == 0, timeout_seconds=_DEADLINE, what="the sagas' end")
        seconds = ask(_SECONDS)
        opened = ask(_SESSIONS_OPENED) - before
        connection.execute("TRUNCATE saga_executions, saga_logs")
    return SAGAS / seconds, opened

"""Every legal row meets every request: both storages do what the rules say, and leave legal rows only.

Rows and requests are generated from the table of states. In PostgreSQL time goes on during a test, so each of its times
must lie between those that the rules give for the moments before and after.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import fields, is_dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final

import psycopg
import pytest
import sqlalchemy as sa

from sagas.storage import ISagaStorage, MemorySagaStorage, lost_messages, rules
from sagas.storage.answers import ClaimResult
from sagas.storage.arguments import LARGEST
from sagas.storage.records import Claim, SagaRecord, SagaState
from sagas.storage.saga_filter import SagaFilter
from tests.contract import requests
from tests.contract.one_transaction import rolled_back
from tests.contract.requests import Request, outcome_of
from tests.contract.rows import MAXIMUM, OPEN, OWNER, PAUSED, SHARED, Kind, bare, read, rows, write

_REQUESTS: Final = {
    "acquire": requests.acquires,
    "apply": requests.applies,
    "apply, stale": requests.stale_applies,
    "write": requests.other_writes,
    "deliver": requests.deliveries,
    "operate": requests.operations,
    "count": requests.counts,
}


_AT_ONCE: Final = 300


@pytest.fixture(scope="module")
def table(module_engine: sa.Engine) -> dict[Kind, SagaRecord]:
    """Every legal row, in the database too, where one of the two names is paused."""
    with module_engine.begin() as connection:
        now = connection.exec_driver_sql("SELECT clock_timestamp()").scalar_one()
        records = rows(now)
        driver: psycopg.Connection[Any] = connection.connection.driver_connection  # type: ignore[assignment]
        write(driver.cursor(), list(records.values()))
        _pause(connection.exec_driver_sql)
    with module_engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql("ANALYZE")
    return records


def _pause(execute: Callable[[str], Any]) -> None:
    execute(f"INSERT INTO saga_pauses (name, by, because) VALUES ('{PAUSED}', 'ann', 'why')")


def memory_of(records: Iterable[SagaRecord], now: datetime) -> MemorySagaStorage:
    """Return a memory storage with these records, whose clock stands still."""
    storage = MemorySagaStorage(lambda: now)
    storage._sagas = {record.id: record for record in records}
    storage._begin_pause(PAUSED, actor="ann", reason="why")
    return storage


@pytest.mark.slow(8)
@pytest.mark.parametrize("kind", _REQUESTS)
def test_a_request_of_one_saga_does_what_the_rules_say(
    table: dict[Kind, SagaRecord], module_engine: sa.Engine, kind: str, record_property: Callable[[str, object], None]
) -> None:
    combinations = 0
    for request in _REQUESTS[kind]():
        meant = [record for kind_of_row, record in table.items() if request.meant(kind_of_row)]
        combinations += len(meant)
        # Not all in one transaction: each of many savepoints in it makes every statement slower.
        for first in range(0, len(meant), _AT_ONCE):
            _check(request, meant[first : first + _AT_ONCE], module_engine)
    record_property("figure", f"{kind}: {combinations} combinations of a row and a request")


def _check(request: Request, meant: Sequence[SagaRecord], engine: sa.Engine) -> None:
    with rolled_back(engine) as (storage, cursor):
        before = _now(cursor)
        answers = {record.id: outcome_of(lambda record=record: request.call(storage, record)) for record in meant}  # type: ignore[misc]
        after = _now(cursor)
        left = read(cursor, list(answers))
    memory = memory_of(meant, before)
    for record in meant:
        said, expected = request.rule(record, before)
        later, expected_later = request.rule(record, after)
        in_memory = outcome_of(lambda record=record: request.call(memory, record))  # type: ignore[misc]
        said, later = (said, bare(expected)), (later, bare(expected_later))
        for where, actual in (
            ("memory", (in_memory, bare(memory.load(record.id)))),
            ("PostgreSQL", (answers[record.id], left[record.id])),
        ):
            wrong = difference(said, actual, later)
            assert wrong is None, f"{where}: {request.name} of {record}: {wrong}"
        rules.check_legal(left[record.id])


def _now(cursor: psycopg.Cursor[Any]) -> datetime:
    now: datetime = cursor.execute("SELECT clock_timestamp() AS now").fetchall()[0]["now"]
    return now


# -- requests of many sagas -----------------------------------------------------------------------------------

_EVERY: Final = 100_000
_HOUR: Final = timedelta(hours=1)


def _claim(*, pending: bool, limit: int) -> Callable[[ISagaStorage], Any]:
    return lambda storage: storage.claim_sagas(pending=pending, limit=limit, max_recovery_attempts=MAXIMUM)


def _by_id(storage: ISagaStorage) -> list[Claim]:
    return storage.claim_by_id([saga.id for saga in storage.find(SagaFilter(limit=_EVERY))])


def _release(newer: int) -> Callable[[ISagaStorage], Any]:
    def release(storage: ISagaStorage) -> None:
        found = storage.find(SagaFilter(limit=_EVERY))
        storage.release_claims([Claim(saga.id, saga.version + newer) for saga in found])

    return release


_MANY: Final[dict[str, Callable[[ISagaStorage], Any]]] = {
    "claim new": _claim(pending=True, limit=_EVERY),
    "claim new, little room": _claim(pending=True, limit=100),
    "claim new, some room": _claim(pending=True, limit=200),
    "claim recoverable": _claim(pending=False, limit=LARGEST),
    "claim recoverable, some room": _claim(pending=False, limit=400),
    "claim by id": _by_id,
    "release claims": _release(0),
    "release older claims": _release(1),
    "reclaim": lambda storage: storage.reclaim(OWNER, max_recovery_attempts=MAXIMUM),
    "reclaim of a shared owner": lambda storage: storage.reclaim(SHARED, max_recovery_attempts=MAXIMUM),
    "pause": lambda storage: storage.pause(OPEN, actor="ann", reason="why"),
    "pause again": lambda storage: storage.pause(PAUSED, actor="bob", reason="another"),
    "resume": lambda storage: storage.resume(PAUSED),
    "resume what is not paused": lambda storage: storage.resume(OPEN),
    "prune": lambda storage: storage.prune(older_than_seconds=0, limit=_EVERY),
    "prune some": lambda storage: storage.prune(older_than_seconds=_HOUR.total_seconds(), limit=7),
    "for recovery": lambda storage: storage.get_sagas_for_recovery(_EVERY, MAXIMUM),
    "for recovery, some": lambda storage: storage.get_sagas_for_recovery(9, 1, 2 * _HOUR.total_seconds(), OPEN),
    "find": lambda storage: [saga.id for saga in storage.find(SagaFilter(states=[SagaState.DEAD, SagaState.WAITING]))],
}
#: When the newest message that reached a worker was queued, and when it did, from now.
_DELIVERIES: Final[dict[str, tuple[timedelta, timedelta] | None]] = {
    "no message delivered": None,
    "an old message, lately": (2 * _HOUR, timedelta(0)),
    "a message, lately": (_HOUR * 1.05, timedelta(0)),
    "a message, long ago": (_HOUR * 1.05, _HOUR),
}


@pytest.mark.parametrize(
    ("request_of_many", "delivery"),
    [
        (request, delivery)
        for request in _MANY
        # Messages matter to claims alone.
        for delivery in (_DELIVERIES if request.startswith("claim ") else ["no message delivered"])
    ],
)
def test_a_request_of_many_sagas_does_what_the_rules_say(
    table: dict[Kind, SagaRecord], module_engine: sa.Engine, request_of_many: str, delivery: str
) -> None:
    call, records, delivered = _MANY[request_of_many], list(table.values()), _DELIVERIES[delivery]
    with rolled_back(module_engine) as (storage, cursor):
        before = _now(cursor)
        if delivered is not None:
            for pending in (False, True):
                cursor.execute(
                    "INSERT INTO saga_deliveries (pending, queued_at, at) VALUES (%s, %s, %s)",
                    [pending, before - delivered[0], before - delivered[1]],
                )
        answer = outcome_of(lambda: call(storage))
        after = _now(cursor)
        left = read(cursor, [record.id for record in records])
    said = []
    for now in (before, after):
        memory = memory_of(records, now)
        if delivered is not None:
            memory._deliveries = dict.fromkeys((False, True), (before - delivered[0], before - delivered[1]))
        said.append((_in_order(outcome_of(lambda memory=memory: call(memory))), memory._sagas))  # type: ignore[misc]

    (expected, least), (expected_later, most) = said
    assert (wrong := difference(expected, _in_order(answer), expected_later)) is None, wrong
    assert left.keys() == least.keys()
    for record in records:
        if record.id in left:
            bounds = bare(least[record.id]), bare(most[record.id])
            assert (wrong := difference(bounds[0], left[record.id], bounds[1])) is None, f"{record}: {wrong}"
            _is_by_a_rule(record, least[record.id], before)
            rules.check_legal(left[record.id])


def _in_order(answer: Any) -> Any:
    if isinstance(answer, ClaimResult):
        claims = tuple(sorted(answer.claims, key=lambda claim: claim.saga_id))
        return replace(answer, claims=claims, died=tuple(sorted(answer.died)))
    return answer


def _is_by_a_rule(record: SagaRecord, after: SagaRecord, now: datetime) -> None:
    """Make sure that it is unchanged, or as a rule leaves it that many sagas at once can meet."""
    if after == record:
        return
    if record.state is SagaState.PAUSED and after.state is not SagaState.PAUSED:
        record = rules.resume(record)
    outcomes: list[SagaRecord] = [record]
    if record.state is SagaState.QUEUED:
        outcomes += [rules.queue(record, now), lost_messages.probe(record, now), rules.release(record, now)]
        outcomes += [rules.pause_queued(record, now)] if record.name == PAUSED else []
    if record.state in rules.SCHEDULED and record.due(now):
        outcomes += [
            requests.logged(rules.claim(record, now, max_recovery_attempts=MAXIMUM, name_paused=record.name == PAUSED)),
            requests.logged(rules.pause(record, now, max_recovery_attempts=MAXIMUM)),
        ]
    if record.state is SagaState.RUNNING:
        outcomes.append(requests.logged(rules.reclaim(record, now, max_recovery_attempts=MAXIMUM)))
    assert bare(after) in list(map(bare, outcomes)), f"{record} became {after}"


# -- comparing ------------------------------------------------------------------------------------------------


def difference(least: Any, actual: Any, most: Any) -> str | None:
    """Say where a value differs from what the rules say; a time does if it is not between the two that they say."""
    if actual == least:
        return None
    if isinstance(actual, datetime) and isinstance(least, datetime):
        return None if least <= actual <= most else f"{actual} is not between {least} and {most}"
    if is_dataclass(actual) and type(least) is type(actual):
        names: Iterable[Any] = [field.name for field in fields(actual)]
        values = [[getattr(value, name) for name in names] for value in (least, actual, most)]
    elif isinstance(actual, tuple | list) and isinstance(least, tuple | list) and len(actual) == len(least):
        names, values = range(len(actual)), [least, actual, most]  # type: ignore[list-item]
    else:
        return f"{actual!r} is not {least!r}"
    for name, *parts in zip(names, *values, strict=True):
        if (wrong := difference(*parts)) is not None:
            return f"{name}: {wrong}"
    return None

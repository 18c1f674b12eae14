"""Every legal row meets every request: both storages do what the rules say, and leave legal rows only.

Rows and requests are generated from the table of states. In PostgreSQL time goes on during a test, so each of its times
must lie between those that the rules give for the moments before and after.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import fields, is_dataclass
from datetime import datetime
from typing import Any, Final

import psycopg
import pytest
import sqlalchemy as sa

from sagas.storage import MemorySagaStorage, rules
from sagas.storage.records import SagaRecord
from tests.contract import requests
from tests.contract.one_transaction import rolled_back
from tests.contract.requests import Request, outcome_of
from tests.contract.rows import PAUSED, Kind, bare, read, rows, write

_REQUESTS: Final = {
    "acquire": requests.acquires,
    "apply": requests.applies,
    "apply, stale": requests.stale_applies,
    "write": requests.other_writes,
    "operate": requests.operations,
    "count": requests.counts,
}


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
    storage._begin_pause(PAUSED, by="ann", because="why")
    return storage


@pytest.mark.parametrize("kind", _REQUESTS)
def test_a_request_of_one_saga_does_what_the_rules_say(
    table: dict[Kind, SagaRecord], module_engine: sa.Engine, kind: str, record_property: Callable[[str, object], None]
) -> None:
    combinations = 0
    for request in _REQUESTS[kind]():
        meant = [record for kind_of_row, record in table.items() if request.meant(kind_of_row)]
        combinations += len(meant)
        _check(request, meant, module_engine)
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

"""Schedules on real PostgreSQL: scans of several processes, crashes, and a process whose clock is wrong."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa

from sagas import PostgresSagaStorage
from sagas.storage.saga_filter import SagaFilter
from tests.faults.cluster import fake_time_library
from tests.integration.engine.nightly import CRASHED, engine, nightly

#: In these days two scans at one time start some dozen sagas.
DAYS = 14


class Scan:
    """A scan in a process of its own, which waits for `go`."""

    def __init__(self, url: str, repository: Path, *arguments: str, **environment: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.integration.engine.nightly", url, *arguments],
            env={**os.environ, "PYTHONPATH": str(repository), **environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "ready\n"

    def go(self) -> None:
        """Let it scan."""
        assert self._process.stdin is not None
        self._process.stdin.write("go\n")
        self._process.stdin.flush()

    def ended(self) -> tuple[int, str, str]:
        """Return its exit code, how many sagas it started, and its time."""
        out, _ = self._process.communicate(timeout=60)
        started, _, time = out.strip().partition(" ")
        return self._process.returncode, started, time


@pytest.fixture
def scan(emptied_url: str, repository: Path) -> Iterator[Callable[..., Scan]]:
    """Starts the process of a scan."""
    scans: list[Scan] = []

    def start(*arguments: str, **environment: str) -> Scan:
        scans.append(Scan(emptied_url, repository, *arguments, **environment))
        return scans[-1]

    yield start
    for each in scans:
        each._process.kill()


@pytest.fixture
def last_tick(module_database: sa.Engine, emptied_url: str) -> Callable[[int], datetime]:
    """Has the last tick of the schedule be the one so many days ago, and returns it."""

    def move(days: int) -> datetime:
        with module_database.begin() as connection:
            now = connection.exec_driver_sql("SELECT clock_timestamp()").scalar_one()
            last = nightly.cron.newest(1, after=now - timedelta(days=days + 2), until=now - timedelta(days=days))[0]
            statement = "INSERT INTO saga_schedules VALUES (%s, %s)"
            connection.exec_driver_sql(statement, ("nightly", last))
        return last

    return move


def keys(storage: PostgresSagaStorage) -> list[str]:
    """The idempotency keys of all sagas, in order."""
    return sorted(str(saga.idempotency_key) for saga in storage.find(SagaFilter(limit=1000)))


def expected(storage: PostgresSagaStorage, last: datetime) -> list[str]:
    """The keys of the ticks since then."""
    now = storage.schedule_ticks(["nightly"]).now
    return [nightly.key_at(tick) for tick in nightly.cron.newest(1000, after=last, until=now)]


def test_two_processes_that_scan_at_once_start_each_saga_once(
    emptied_storage: PostgresSagaStorage, scan: Callable[..., Scan], last_tick: Callable[[int], datetime]
) -> None:
    last = last_tick(DAYS)
    scans = [scan(), scan()]

    for each in scans:
        each.go()
    ended = [each.ended() for each in scans]

    assert [code for code, _, _ in ended] == [0, 0]
    assert keys(emptied_storage) == expected(emptied_storage, last)
    assert len(keys(emptied_storage)) in (DAYS, DAYS + 1)
    # What one of them stored, the other found.
    assert sum(int(started) for _, started, _ in ended) == len(keys(emptied_storage))


def test_a_crash_between_the_start_and_the_note_starts_no_saga_twice(
    emptied_storage: PostgresSagaStorage, scan: Callable[..., Scan], last_tick: Callable[[int], datetime]
) -> None:
    last = last_tick(3)
    crashing = scan("CRASH")
    crashing.go()

    assert crashing.ended()[0] == CRASHED
    assert emptied_storage.schedule_ticks(["nightly"]).last == {"nightly": last}
    assert keys(emptied_storage) == expected(emptied_storage, last)

    report = engine(emptied_storage).scan()

    assert keys(emptied_storage) == expected(emptied_storage, last)
    assert report.scheduled == ()
    assert len(report.dispatched) == len(keys(emptied_storage))
    assert emptied_storage.schedule_ticks(["nightly"]).last["nightly"] > last


@pytest.mark.skipif(fake_time_library() is None, reason="libfaketime is not installed")
@pytest.mark.parametrize("offset", ["+30d", "-30d"])
def test_a_scan_of_a_process_whose_clock_is_wrong_goes_by_the_databases_clock(
    emptied_storage: PostgresSagaStorage, scan: Callable[..., Scan], last_tick: Callable[[int], datetime], offset: str
) -> None:
    last = last_tick(2)
    shifted = scan(LD_PRELOAD=str(fake_time_library()), FAKETIME=offset, FAKETIME_DONT_FAKE_MONOTONIC="1")
    shifted.go()

    code, _, its_time = shifted.ended()

    wrong_by = abs(datetime.fromisoformat(its_time) - datetime.now(UTC))
    assert timedelta(days=29) < wrong_by < timedelta(days=31)
    assert code == 0
    assert keys(emptied_storage) == expected(emptied_storage, last)
    assert len(keys(emptied_storage)) in (2, 3)


def test_the_context_of_each_saga_is_that_of_its_tick(
    emptied_storage: PostgresSagaStorage, last_tick: Callable[[int], datetime]
) -> None:
    last = last_tick(2)
    engine(emptied_storage).scan()

    for saga in emptied_storage.find(SagaFilter()):
        day = datetime.fromisoformat(str(saga.idempotency_key).removeprefix("schedule:nightly:")).date()
        assert f'"{day}"' in emptied_storage.load(saga.id).context
        assert day > last.date()


def test_a_schedule_starts_its_sagas_in_no_transaction_of_the_scanning_thread(
    emptied_storage: PostgresSagaStorage, last_tick: Callable[[int], datetime], monkeypatch: pytest.MonkeyPatch
) -> None:
    last_tick(2)
    scanner = engine(emptied_storage)
    monkeypatch.setattr(scanner._framework, "transaction", lambda: pytest.fail("a transaction was looked for"))

    assert len(scanner.scan().scheduled) in (2, 3)

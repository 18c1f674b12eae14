"""Metrics from the database: what they count, what they cost, and what they show when it does not answer."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import sqlalchemy as sa
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from sagas import PostgresSagaStorage
from sagas.telemetry.database import DatabaseMetrics
from sagas.testing.processes import wait_until
from tests.forking import ForkedCommand

Samples = dict[tuple[str, ...], float]

INSERT = """
    INSERT INTO saga_executions
        (id, name, status, state, context, version, lease_owner, available_at, updated_at, finished_at)
    SELECT gen_random_uuid(), '{name}', '{status}', '{state}', '{{}}', 1,
        {owner}, {available_at}, {updated_at}, {finished_at}
    FROM generate_series(1, {count}) AS n"""


def insert(connection: sa.Connection, name: str, status: str, state: str, count: int, available_at: str) -> None:
    values = {"name": name, "status": status, "state": state, "count": count, "available_at": available_at}
    owner = "'w1@host/1.1'" if state == "running" else "NULL"
    finished_at = "now() - n * interval '1 second'" if state == "finished" else "NULL"
    # As a message's first send leaves it: the scan asks five seconds later whether it is lost.
    updated_at = f"{available_at} - interval '5 s'" if state == "queued" else "now()"
    connection.exec_driver_sql(INSERT.format(**values, owner=owner, finished_at=finished_at, updated_at=updated_at))


def parsed(text: str) -> Samples:
    return {
        (sample.name, *(sample.labels[label] for label in sorted(sample.labels))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def read(metrics: DatabaseMetrics) -> Samples:
    registry = CollectorRegistry()
    registry.register(metrics)
    return parsed(generate_latest(registry).decode())


def test_each_kind_of_saga_is_counted_under_its_name(database_url: str, storage: PostgresSagaStorage) -> None:
    engine = sa.create_engine(database_url)
    with engine.begin() as connection:
        for name, status, state, count, available_at in (
            ("order", "PENDING", "ready", 2, "now() - interval '90 seconds'"),
            ("order", "PENDING", "queued", 3, "now() - interval '30 seconds'"),
            ("order", "RUNNING", "running", 4, "now() + interval '1 minute'"),
            ("order", "RUNNING", "running", 1, "now() - interval '200 seconds'"),
            ("order", "COMPENSATING", "queued", 5, "now() + interval '1 minute'"),
            ("order", "FAILED", "ready", 6, "now() + interval '1 minute'"),
            ("order", "FAILED", "dead", 7, "'infinity'"),
            ("order", "RUNNING", "waiting", 2, "'infinity'"),
            ("order", "RUNNING", "waiting", 1, "now() + interval '1 day'"),
            ("refund", "FAILED", "paused", 1, "now() - interval '1 hour'"),
            ("order", "COMPLETED", "finished", 400, "'infinity'"),
        ):
            insert(connection, name, status, state, count, available_at)
        connection.exec_driver_sql("INSERT INTO saga_scans VALUES ('a', now() - interval '9 s'), ('b', now())")
        connection.exec_driver_sql("INSERT INTO saga_pauses VALUES ('refund', 'ann', '-', now() - interval '1 h')")
    engine.dispose()

    samples = read(DatabaseMetrics(storage))

    ages = {name[0]: value for name, value in samples.items() if name[0].endswith("_seconds")}
    assert {name: value for name, value in samples.items() if name[0] not in {*ages, "sagas_recently_finished"}} == {
        ("sagas_database_up",): 1,
        ("sagas_unfinished", "order", "PENDING"): 5,
        ("sagas_unfinished", "order", "RUNNING"): 8,
        ("sagas_unfinished", "order", "COMPENSATING"): 5,
        ("sagas_unfinished", "order", "FAILED"): 13,
        ("sagas_unfinished", "refund", "FAILED"): 1,
        ("sagas_dead", "order"): 7,
        ("sagas_dead", "refund"): 0,
        ("sagas_queued", "order"): 8,
        ("sagas_queued", "refund"): 0,
        ("sagas_waiting", "order"): 3,
        ("sagas_waiting", "refund"): 0,
        ("sagas_leases", "order"): 4,
        ("sagas_leases", "refund"): 0,
    }
    # Of 400, one a second, those of the last five minutes, less what this test took to get here.
    assert 200 < samples["sagas_recently_finished", "order", "COMPLETED"] <= 300
    expected = {
        "sagas_oldest_recoverable_seconds": 200,
        "sagas_oldest_pending_seconds": 90,
        "sagas_oldest_queued_seconds": 30,
        "sagas_last_scan_age_seconds": 0,
        "sagas_paused_seconds": 3600,
    }
    assert set(ages) == set(expected)
    for name, least in expected.items():
        assert least <= ages[name] < least + 60, name


def test_an_empty_database_shows_no_scan_and_nothing_overdue(storage: PostgresSagaStorage) -> None:
    assert read(DatabaseMetrics(storage)) == {
        ("sagas_database_up",): 1,
        ("sagas_oldest_recoverable_seconds",): 0,
        ("sagas_oldest_pending_seconds",): 0,
    }


# -- a database that does not answer ----------------------------------------------------------------------------------


def test_a_statement_that_waits_too_long_is_cut_off_by_the_server(
    database_url: str, storage: PostgresSagaStorage
) -> None:
    metrics = DatabaseMetrics(storage, statement_seconds=0.2)
    engine = sa.create_engine(database_url)
    with engine.begin() as connection:
        connection.exec_driver_sql("LOCK TABLE saga_executions")
        assert read(metrics) == {("sagas_database_up",): 0}
        waiting = connection.exec_driver_sql(
            "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
        ).scalar_one()
    engine.dispose()

    assert waiting == 0, "the server gave the statement up; it waits for the lock no more"
    assert read(metrics)["sagas_database_up",] == 1, "once the lock is gone it answers again"


def test_a_server_that_says_nothing_at_all_is_not_waited_for(database_url: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # the kernel accepts, and nobody reads
        port = silent.getsockname()[1]
        storage = PostgresSagaStorage(sa.make_url(database_url).set(host="127.0.0.1", port=port))
        metrics = DatabaseMetrics(storage, deadline_seconds=0.2)
        assert read(metrics) == {("sagas_database_up",): 0}
        assert read(metrics) == {("sagas_database_up",): 0}, "nor by the next scrape, which asks no second time"


# -- the command ------------------------------------------------------------------------------------------------------


def _command(*arguments: str, url: str) -> ForkedCommand:
    environment = {**os.environ, "SAGAS_DATABASE_URL": url}
    return ForkedCommand(["metrics", *arguments], environment=environment, directory=Path.cwd())


def test_the_command_prints_them_once(database_url: str) -> None:
    printed, errors = _command("--once", url=database_url).communicate(timeout=60)
    assert parsed(printed.decode())["sagas_database_up",] == 1, errors


def test_the_command_serves_them_on_the_loopback_and_outlives_the_database(database_url: str) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = sa.make_url(database_url).set(port=1, host="127.0.0.1").render_as_string(hide_password=False)
    process = _command("--port", str(port), url=url)
    try:

        def scraped() -> str | None:
            try:
                return httpx.get(f"http://127.0.0.1:{port}/metrics", timeout=30).text
            except httpx.TransportError:
                assert process.poll() is None
                return None

        assert parsed(wait_until(scraped, what="the first scrape") or "") == {("sagas_database_up",): 0}
        assert parsed(scraped() or "") == {("sagas_database_up",): 0}
    finally:
        process.kill()
        process.communicate()


def test_the_command_says_what_to_install(database_url: str) -> None:
    hidden = "import sys; sys.modules['prometheus_client'] = None; from sagas.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", hidden, "metrics", "--once"],
        env={**os.environ, "SAGAS_DATABASE_URL": database_url},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("error: metrics need more than is installed (")
    assert done.stderr.endswith("pip install 'celery-sagas[metrics]'.\n")


def test_the_command_says_what_is_wrong_with_a_port_that_is_taken(database_url: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        process = _command("--port", str(port), url=database_url)
        errors = process.communicate(timeout=60)[1].decode()
    assert process.returncode == 1
    assert errors.startswith(f"error: 127.0.0.1:{port} cannot be listened on (")
    assert errors.endswith("give another --port or --host.\n")

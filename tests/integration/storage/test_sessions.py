"""What a database, a role or the environment sets for its sessions does no harm; what cannot be read is given back."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from typing import Final

import pytest
import sqlalchemy as sa

from sagas import SagaEngine, SagaStatus
from sagas.errors import HiddenRow, SagaUnreadable, SchemaBehind
from sagas.inspection import Inspector
from sagas.storage import PostgresSagaStorage
from sagas.storage.leases import LeaseRequest
from sagas.storage.transitions import FailedAttempt
from tests.calls import DEADLINE_SECONDS, held_saga, new_saga
from tests.samples import Stage, Trip

#: What somebody may have set, and that used to break reading, arrays, isolation, or long statements.
SETTINGS: Final = {
    "datestyle": "SQL, DMY",
    "intervalstyle": "sql_standard",
    "timezone": "<+0530>-05:30",
    "client_encoding": "LATIN1",
    "array_nulls": "off",
    "standard_conforming_strings": "off",
    "default_transaction_isolation": "serializable",
    "default_transaction_deferrable": "on",
    "statement_timeout": "5s",
    "lock_timeout": "50ms",
    "idle_in_transaction_session_timeout": "5s",
    "extra_float_digits": "-15",
    "bytea_output": "escape",
    "quote_all_identifiers": "on",
    "transform_null_equals": "on",
    "client_min_messages": "debug5",
    "plan_cache_mode": "force_generic_plan",
    "search_path": '"$user", public, pg_catalog',
}
ENVIRONMENT: Final = {
    "PGCLIENTENCODING": "LATIN1",
    "PGDATESTYLE": "SQL, DMY",
    "PGTZ": "Asia/Kathmandu",
    "PGOPTIONS": "-c datestyle=German -c intervalstyle=iso_8601 -c array_nulls=off",
    "PGAPPNAME": "Zoë's",
    "PGDATABASE": "nowhere",
    "PGUSER": "nobody",
}


@pytest.fixture
def unusual_url(database_url: str, engine: sa.Engine) -> str:
    """The URL of a database that sets all of this for each of its sessions."""
    name = sa.make_url(database_url).database
    with engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
        for setting, value in SETTINGS.items():
            path = value if setting == "search_path" else f"'{value}'"
            connection.exec_driver_sql(f"ALTER DATABASE {name} SET {setting} = {path}")
    return database_url


@pytest.fixture
def own(unusual_url: str) -> Iterator[sa.Engine]:
    """An engine of the caller's own, whose sessions are as the database says."""
    # But for this one, from before PostgreSQL 8.2: 'NULL' would be an idempotency key.
    engine = sa.create_engine(unusual_url, connect_args={"options": "-c array_nulls=on"})
    yield engine
    engine.dispose()


def _all_goes_well(storage: PostgresSagaStorage) -> None:
    trip = Stage().saga("flight", "hotel")
    engine = SagaEngine(storage, sagas=[trip])
    saga_id = engine.start(trip, Trip(note="Zoë"), idempotency_key="Größe")
    assert engine.start(trip, Trip(), idempotency_key="Größe") == saga_id
    several = engine.start_many(trip, [Trip()] * 3)
    assert len(set(several)) == 3

    assert engine.recover(saga_id).outcome == "completed"
    for other in several:
        engine.recover(other)

    saga = storage.load(saga_id)
    assert (saga.status, saga.idempotency_key, "Zoë" in saga.context) == (SagaStatus.COMPLETED, "Größe", True)
    assert storage.load(several[0]).idempotency_key is None
    assert saga.finished_at is not None
    assert saga.created_at < saga.finished_at
    assert all(entry.created_at is not None for entry in saga.log)
    inspector = Inspector(storage)
    assert inspector.details(saga_id).record == saga
    assert sum(ended.sagas for ended in inspector.statistics().ended) == 4
    assert inspector.dry_run(limit=5, max_recovery_attempts=5, shown=5).verdicts == ()


def test_settings_of_the_database_do_no_harm(unusual_url: str) -> None:
    storage = PostgresSagaStorage(unusual_url)
    _all_goes_well(storage)
    storage.close()


def test_settings_of_the_database_do_no_harm_on_an_engine_of_the_callers(own: sa.Engine) -> None:
    _all_goes_well(PostgresSagaStorage(own))
    with own.connect() as connection:
        assert connection.exec_driver_sql("SHOW DateStyle").scalar() == "SQL, DMY"


def test_what_is_not_ours_to_set_is_left_alone(unusual_url: str) -> None:
    storage = PostgresSagaStorage(unusual_url)
    with storage.connections.cursor() as cursor:
        for setting, ours in {
            "DateStyle": "ISO, MDY",
            "TimeZone": "UTC",
            "client_encoding": "UTF8",
            "default_transaction_isolation": "read committed",
            "lock_timeout": "0",
            "bytea_output": "escape",
        }.items():
            row = cursor.execute("SELECT current_setting(%s) AS value", (setting,)).fetchone()
            assert row == {"value": ours}, setting
    storage.close()


def test_the_environment_does_no_harm(database_url: str) -> None:
    program = (
        "import sys\n"
        "from sagas.storage import PostgresSagaStorage\n"
        "from tests.integration.storage.test_sessions import _all_goes_well\n"
        "_all_goes_well(PostgresSagaStorage(sys.argv[1]))"
    )
    run = subprocess.run(
        [sys.executable, "-c", program, database_url],
        env={**os.environ, **ENVIRONMENT},
        capture_output=True,
        text=True,
        timeout=DEADLINE_SECONDS,
        check=False,
    )
    assert (run.returncode, run.stderr) == (0, "")


# -- what was taken and cannot be read ----------------------------------------------------------------------------


def test_a_saga_that_cannot_be_read_is_given_back_and_no_attempt_is_spent(
    storage: PostgresSagaStorage, engine: sa.Engine
) -> None:
    lease = held_saga(storage)
    storage.apply(lease, FailedAttempt(events=(), after_seconds=0.0, max_recovery_attempts=5))
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE saga_executions SET created_at = '20000-01-01'")

    for _ in range(7):
        request = LeaseRequest(owner="w", seconds=60)
        with pytest.raises(SagaUnreadable, match=rf"{lease.saga_id} was given back, no attempt spent: .*10K"):
            storage.acquire(lease.saga_id, request, max_recovery_attempts=5, by_hand=True)

    with engine.connect() as connection:
        row = connection.exec_driver_sql(
            "SELECT status, lease_owner, recovery_attempts, last_error, version, "
            "available_at BETWEEN now() AND now() + interval '31 seconds' AS soon FROM saga_executions"
        ).one()
    assert (row.status, row.lease_owner, row.recovery_attempts, row.version, row.soon) == ("FAILED", None, 1, 8, True)
    assert "cannot be read" in row.last_error


@pytest.mark.parametrize(("details", "outcome"), [("{}", "completed"), ('{"schedules": true}', "declined")])
def test_a_row_of_a_newer_version_is_passed_over_unless_the_saga_depends_on_it(
    storage: PostgresSagaStorage, engine: sa.Engine, details: str, outcome: str
) -> None:
    sagas = SagaEngine(storage)
    saga_id = sagas.start(Stage().saga("flight", "hotel"), Trip())
    with engine.begin() as connection:
        for constraint in ("action", "status"):
            connection.exec_driver_sql(f"ALTER TABLE saga_logs DROP CONSTRAINT IF EXISTS ck_saga_logs_{constraint}")
        connection.exec_driver_sql(
            "INSERT INTO saga_logs (saga_id, step_name, action, status, version, worker, details) "
            "SELECT id, 'flight', 'later', 'armed', 0, 'w', %s FROM saga_executions",
            (details,),
        )

    report = sagas.recover(saga_id)

    assert (report.outcome, storage.load(saga_id).log[0].action) == (outcome, "later")


# -- rows that are hidden -----------------------------------------------------------------------------------------


def test_tables_that_the_search_path_hides_are_told_with_their_schema(database_url: str, engine: sa.Engine) -> None:
    name = sa.make_url(database_url).database
    with engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
        connection.exec_driver_sql(f"ALTER DATABASE {name} SET search_path = shop")
    storage = PostgresSagaStorage(database_url)

    with pytest.raises(SchemaBehind, match="are in the schema public, which the search_path"):
        storage.load(new_saga().id)
    storage.close()


@pytest.fixture
def tenant_url(database_url: str, server_url: sa.URL) -> Iterator[str]:
    """The URL for a user who sees the sagas of one tenant only, by a row-level security policy."""
    role, server = f"tenant_{secrets.token_hex(4)}", sa.create_engine(database_url, isolation_level="AUTOCOMMIT")
    with server.connect() as connection:
        connection.exec_driver_sql(f"CREATE ROLE {role} LOGIN PASSWORD 'tenant'")
        connection.exec_driver_sql(f"GRANT ALL ON ALL TABLES IN SCHEMA public TO {role}")
        connection.exec_driver_sql("ALTER TABLE saga_executions ENABLE ROW LEVEL SECURITY")
        connection.exec_driver_sql("CREATE POLICY tenants ON saga_executions USING (context->>'n' = '1')")
        yield server.url.set(username=role, password="tenant").render_as_string(hide_password=False)
        connection.exec_driver_sql(f"DROP OWNED BY {role}")
        connection.exec_driver_sql(f"DROP ROLE {role}")
    server.dispose()


@pytest.mark.parametrize("count", [1, 3])
def test_a_key_whose_saga_cannot_be_seen_ends_in_an_error_that_says_so(
    storage: PostgresSagaStorage, database_url: str, tenant_url: str, count: int
) -> None:
    owner = PostgresSagaStorage(database_url)
    owner.create_sagas([replace(new_saga("o-1"), context='{"n": 2}')])
    tenant = PostgresSagaStorage(tenant_url)

    with pytest.raises(HiddenRow, match=r"order was not started: .*'o-1' is taken.*row-level security"):
        tenant.create_sagas([new_saga("o-1"), new_saga("o-2"), new_saga()][:count])

    owner.close()
    tenant.close()

"""The scheduling state in a column, the context as text, stored definitions, and lost holders in the log.

`saga_executions` is rewritten once, in the transaction of the migration. So it is either done or not begun, whenever it
is cut off: batches that commit took three times as long, left a table of twice the size, and no way back.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from alembic import context, op

from sagas.storage.schema import Report
from sagas.storage.upgrade import MAKE_TABLES_ARE_NEWER, OLDER_VERSION_TABLE, TABLES_ARE_NEWER, VERSION_TABLE

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    rows = op.get_bind().exec_driver_sql("SELECT EXISTS (SELECT FROM saga_executions)").scalar_one()
    report = context.config.attributes["report"] if rows else None
    _add_columns()
    _log_lost_holders()
    _rewrite(report)
    _end_sentinels()
    op.execute("ALTER TABLE saga_executions DROP COLUMN interrupted")
    _make_tables()
    _make_indexes(report)
    _refuse_older_code()
    # Without it, the planner would know nothing of the column that every scan asks for. Not for an empty table: a
    # prepared statement planned for one would go on reading the whole table while that grows.
    if op.get_bind().exec_driver_sql("SELECT EXISTS (SELECT FROM saga_executions)").scalar():
        op.execute("ANALYZE saga_executions")


def _add_columns() -> None:
    op.execute("""
        ALTER TABLE saga_executions
            ADD COLUMN state varchar(16) NOT NULL DEFAULT 'ready',
            ADD COLUMN lease_token uuid,
            ADD COLUMN definition varchar(64),
            ADD COLUMN in_flight text[],
            ADD COLUMN suspect boolean NOT NULL DEFAULT false,
            ADD COLUMN root_id uuid,
            ADD COLUMN depth integer NOT NULL DEFAULT 0""")
    # Or the rewrite would build them again.
    op.execute("DROP INDEX IF EXISTS saga_executions_due, saga_executions_unstarted, saga_executions_queued")


def _log_lost_holders() -> None:
    # A step that a lost holder may have begun: what the flag said, the log says from now on. The same of a holder whose
    # lease ends here, because a program set the status by hand meanwhile; any other that is lost is found by a scan.
    op.execute("""
        INSERT INTO saga_logs (saga_id, step_name, action, status, version, details, created_at)
        SELECT id, 'holder', 'holder', 'lost', version, '{"in_flight": null}', updated_at
        FROM saga_executions
        WHERE status NOT IN ('COMPLETED', 'COMPENSATED') AND (
            interrupted
            OR lease_owner NOT IN ('queue', 'paused') AND status NOT IN ('RUNNING', 'COMPENSATING'))
        ORDER BY id""")


def _rewrite(report: Report | None) -> None:
    with _counted(report) as counted:
        # Of a status that a program set by hand while a worker held the saga, the status counts.
        op.execute(f"""
            ALTER TABLE saga_executions
                ALTER COLUMN context TYPE json USING {counted},
                ALTER COLUMN state TYPE varchar(16) USING CASE
                    WHEN status IN ('COMPLETED', 'COMPENSATED') THEN 'finished'
                    WHEN lease_owner = 'queue' THEN 'queued'
                    WHEN lease_owner = 'paused' THEN 'paused'
                    WHEN lease_owner IS NOT NULL AND status IN ('RUNNING', 'COMPENSATING') THEN 'running'
                    WHEN lease_owner IS NULL AND available_at = 'infinity' AND status <> 'PENDING' THEN 'dead'
                    ELSE 'ready' END""")


@contextmanager
def _counted(report: Report | None) -> Iterator[str]:
    """Yield the expression that makes the context `json`; if somebody listens, one that tells of rows done."""
    driver: Any = op.get_bind().connection.driver_connection
    if report is None or not hasattr(driver, "add_notice_handler"):
        yield "context::text::json"
        return
    total = op.get_bind().exec_driver_sql("SELECT count(*) FROM saga_executions").scalar_one()
    told = "sagas migrate: "

    def tell(notice: Any) -> None:
        message = notice.message_primary or ""
        if message.startswith(told):
            report("rewriting saga_executions", int(message.removeprefix(told)), total)

    op.execute("CREATE SEQUENCE saga_migrated")
    # A notice is sent at once, while the statement goes on. By it, the server also finds out that the client is gone.
    op.execute(f"""
        CREATE FUNCTION saga_migrate(context text) RETURNS json LANGUAGE plpgsql AS $$
        DECLARE
            done bigint := nextval('saga_migrated');
        BEGIN
            IF done % {max(total // 100, 1)} = 0 THEN
                RAISE NOTICE '{told}%', done;
            END IF;
            RETURN context::json;
        END $$""")
    before = op.get_bind().exec_driver_sql("SELECT current_setting('client_min_messages')").scalar_one()
    op.execute("SET LOCAL client_min_messages = notice")
    driver.add_notice_handler(tell)
    try:
        yield "saga_migrate(context::text)"
    finally:
        driver.remove_notice_handler(tell)
    op.execute(f"SET LOCAL client_min_messages = {before}")
    op.execute("DROP FUNCTION saga_migrate")
    op.execute("DROP SEQUENCE saga_migrated")


def _end_sentinels() -> None:
    # The name of a holder whose lease ran out changes: should that worker wake up, it holds nothing any more.
    op.execute("""
        UPDATE saga_executions SET
            lease_owner = CASE WHEN state = 'running' THEN left(lease_owner, 247) || ' (0.1.0)' END,
            lease_token = CASE WHEN state = 'running' THEN gen_random_uuid() END,
            status = CASE WHEN state = 'dead' THEN 'FAILED' ELSE status END,
            available_at = CASE state
                WHEN 'running' THEN available_at
                WHEN 'dead' THEN 'infinity'
                WHEN 'finished' THEN 'infinity'
                WHEN 'queued' THEN clock_timestamp() + interval '30 seconds'
                ELSE clock_timestamp() END,
            updated_at = CASE WHEN state = 'queued' THEN clock_timestamp() ELSE updated_at END,
            finished_at = CASE WHEN state = 'finished' THEN COALESCE(finished_at, updated_at) END
        WHERE state IN ('queued', 'paused', 'running')
            OR lease_owner IS NOT NULL
            OR state = 'ready' AND available_at = 'infinity'
            OR state = 'dead' AND status <> 'FAILED'
            OR state = 'finished' AND (finished_at IS NULL OR available_at <> 'infinity')
            OR state <> 'finished' AND finished_at IS NOT NULL""")


def _make_tables() -> None:
    op.execute("""
        CREATE TABLE saga_definitions (
            hash varchar(64) PRIMARY KEY,
            name varchar(255) NOT NULL,
            graph json NOT NULL,
            created_at timestamptz NOT NULL DEFAULT clock_timestamp())""")
    op.execute("""
        CREATE TABLE saga_deliveries (pending boolean PRIMARY KEY, queued_at timestamptz, at timestamptz NOT NULL)""")
    op.execute("DROP TABLE saga_resumes")


def _make_indexes(report: Report | None) -> None:
    if report is not None:
        report("building indexes", 0, 0)
    for statement in (
        """CREATE INDEX saga_executions_unstarted ON saga_executions (available_at)
            WHERE status = 'PENDING' AND state = 'ready'""",
        """CREATE INDEX saga_executions_due ON saga_executions (available_at)
            WHERE status <> 'PENDING' AND state IN ('ready', 'running', 'waiting')""",
        "CREATE INDEX saga_executions_queued ON saga_executions (status, available_at) WHERE state = 'queued'",
        "CREATE INDEX saga_executions_stopped ON saga_executions (state, name) WHERE state IN ('paused', 'dead')",
    ):
        op.execute(statement)


def _refuse_older_code() -> None:
    """Have every program of version 0.1.0 refuse, before it has stored or acquired a saga."""
    # The oldest revision whose code can use these tables; a migration that older code cannot live with raises it.
    op.execute(f"ALTER TABLE {VERSION_TABLE} ADD COLUMN oldest varchar(32) NOT NULL DEFAULT '{revision}'")
    op.execute(MAKE_TABLES_ARE_NEWER)
    # Where 0.1.0 looks when it starts.
    op.execute(f"DROP TABLE IF EXISTS {OLDER_VERSION_TABLE}")
    op.execute(f"CREATE VIEW {OLDER_VERSION_TABLE} AS SELECT {TABLES_ARE_NEWER}() AS version_num")
    op.execute(f"GRANT SELECT ON {VERSION_TABLE}, {OLDER_VERSION_TABLE} TO PUBLIC")
    # A program that goes on running stores a saga without a state, before it runs any step.
    op.execute(f"ALTER TABLE saga_executions ALTER COLUMN state SET DEFAULT {TABLES_ARE_NEWER}()")

"""The context as text, byte for byte: `jsonb` put its keys into another order and wrote 1e16 as an integer."""

from alembic import op

from sagas.errors import MigrationRefused

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    # It rewrites the table, and waits for whoever uses it: not in front of a line of workers.
    op.execute("SET LOCAL lock_timeout = '10s'")
    op.execute("LOCK TABLE saga_executions IN ACCESS EXCLUSIVE MODE")
    _refuse_while_older_workers_run()
    op.execute("ALTER TABLE saga_executions ALTER COLUMN context TYPE json USING context::json")


def _refuse_while_older_workers_run() -> None:
    # Their checkpoints take the column for jsonb, so each would fail after its step has taken effect.
    query = """
        SELECT worker FROM saga_scans WHERE at > statement_timestamp() - interval '30 seconds'
        UNION ALL
        SELECT lease_owner FROM saga_executions
        WHERE lease_owner NOT IN ('queue', 'paused') AND available_at > statement_timestamp()
            AND available_at < 'infinity'
        LIMIT 1"""
    if worker := op.get_bind().exec_driver_sql(query).scalar():
        raise MigrationRefused(
            f"workers of the version before still run ({worker} does), and they cannot work with the new layout: stop "
            "all workers and beat, and run `sagas migrate` again half a minute later; nothing was changed."
        )

"""What operators do to sagas: notes in the log, skipped steps, pauses; the trace that a start was part of."""

from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    # Each takes a moment, but waits for whoever uses the table: not in front of a line of workers.
    op.execute("SET LOCAL lock_timeout = '10s'")
    op.execute("ALTER TABLE saga_executions ADD COLUMN traceparent varchar(64)")
    op.execute("""
        ALTER TABLE saga_logs
            DROP CONSTRAINT IF EXISTS saga_logs_action,
            DROP CONSTRAINT IF EXISTS saga_logs_status""")
    op.execute("""
        CREATE TABLE saga_pauses (
            name varchar(255) PRIMARY KEY,
            by text NOT NULL,
            because text NOT NULL,
            since timestamptz NOT NULL DEFAULT clock_timestamp())""")
    op.execute("CREATE TABLE saga_resumes (name varchar(255) PRIMARY KEY)")
    op.execute("""
        CREATE TABLE saga_asks (saga_id uuid PRIMARY KEY, by text NOT NULL, until timestamptz NOT NULL)""")
    op.execute("CREATE TABLE saga_scans (worker varchar(255) PRIMARY KEY, at timestamptz NOT NULL)")

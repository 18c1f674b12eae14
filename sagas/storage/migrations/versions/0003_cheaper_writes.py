"""Constraints that cost every checkpoint time and that the statements themselves keep; no row is touched."""

from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    # Each is dropped in a moment, but waits for whoever uses the table: not in front of a line of workers.
    op.execute("SET LOCAL lock_timeout = '10s'")
    op.execute("""
        ALTER TABLE saga_executions
            DROP CONSTRAINT IF EXISTS saga_executions_status,
            DROP CONSTRAINT IF EXISTS saga_executions_recovery_attempts""")
    op.execute("ALTER TABLE saga_logs DROP CONSTRAINT IF EXISTS saga_logs_saga_id_fkey")

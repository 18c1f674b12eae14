"""The scheduling state in a column of its own, stored definitions, and holders that were lost in the log.

Workers must be stopped: those of version 0.1.0 raise on what they do not know.
"""

from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    op.execute("SET LOCAL lock_timeout = '10s'")
    op.execute("""
        ALTER TABLE saga_executions
            ADD COLUMN state varchar(16) NOT NULL DEFAULT 'ready',
            ADD COLUMN lease_token uuid,
            ADD COLUMN definition varchar(64),
            ADD COLUMN in_flight text[],
            ADD COLUMN suspect boolean NOT NULL DEFAULT false,
            ADD COLUMN root_id uuid,
            ADD COLUMN depth integer NOT NULL DEFAULT 0""")
    # A step that a lost holder may have begun: what the flag said, the log says from now on.
    op.execute("""
        INSERT INTO saga_logs (saga_id, step_name, action, status, version, worker, details)
        SELECT id, 'holder', 'holder', 'lost', version, NULL, '{"in_flight": null}'
        FROM saga_executions WHERE interrupted AND status NOT IN ('COMPLETED', 'COMPENSATED')""")
    op.execute("""
        UPDATE saga_executions SET
            state = CASE
                WHEN status IN ('COMPLETED', 'COMPENSATED') THEN 'finished'
                WHEN lease_owner = 'queue' THEN 'queued'
                WHEN lease_owner = 'paused' THEN 'paused'
                WHEN lease_owner IS NOT NULL THEN 'running'
                WHEN available_at = 'infinity' THEN 'dead'
                ELSE 'ready' END,
            lease_owner = CASE WHEN lease_owner IN ('queue', 'paused') THEN NULL ELSE lease_owner END,
            available_at = CASE WHEN lease_owner = 'paused' THEN clock_timestamp() ELSE available_at END,
            lease_token = CASE WHEN lease_owner NOT IN ('queue', 'paused') THEN gen_random_uuid() END""")
    op.execute("ALTER TABLE saga_executions DROP COLUMN interrupted")
    for name in ("due", "unstarted", "queued"):
        op.execute(f"DROP INDEX IF EXISTS saga_executions_{name}")
    op.execute("""
        CREATE INDEX saga_executions_unstarted ON saga_executions (available_at)
            WHERE status = 'PENDING' AND state = 'ready'""")
    op.execute("""
        CREATE INDEX saga_executions_due ON saga_executions (available_at)
            WHERE status <> 'PENDING' AND state IN ('ready', 'running', 'waiting')""")
    op.execute("CREATE INDEX saga_executions_queued ON saga_executions (status, available_at) WHERE state = 'queued'")
    op.execute("""
        CREATE INDEX saga_executions_stopped ON saga_executions (state, name) WHERE state IN ('paused', 'dead')""")
    op.execute("""
        CREATE TABLE saga_definitions (
            hash varchar(64) PRIMARY KEY,
            name varchar(255) NOT NULL,
            graph json NOT NULL,
            created_at timestamptz NOT NULL DEFAULT clock_timestamp())""")
    op.execute("""
        CREATE TABLE saga_deliveries (pending boolean PRIMARY KEY, queued_at timestamptz, at timestamptz NOT NULL)""")
    op.execute("DROP TABLE saga_resumes")

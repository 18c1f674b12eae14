"""Recovery attempts, leases, fencing and idempotency keys; what the older layout held stays, and can be recovered."""

import sqlalchemy as sa
from alembic import op

from sagas.errors import MigrationRefused

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    _refuse_what_jsonb_cannot_hold()
    _executions()
    _logs()
    _carry_over_what_was_in_progress()
    _constraints_and_indexes()
    _drop_comments()


def _refuse_what_jsonb_cannot_hold() -> None:
    # Asking jsonb itself is slow, so only about text that could be wrong: NUL, and halves of surrogate pairs.
    # The function is dropped in the same transaction; a temporary one would need one more privilege, TEMP.
    op.execute("""
        CREATE FUNCTION sagas_fits_jsonb(value text) RETURNS boolean LANGUAGE plpgsql AS $$
        BEGIN
            PERFORM value::jsonb;
            RETURN true;
        EXCEPTION WHEN data_exception THEN
            RETURN false;
        END $$""")
    query = sa.text(r"""
        SELECT id FROM saga_executions
        WHERE CASE WHEN context::text ~ '\\u(0000|[dD][89a-fA-F])' THEN NOT sagas_fits_jsonb(context::text) END
        LIMIT 5""")
    if found := [str(row.id) for row in op.get_bind().execute(query)]:
        raise MigrationRefused(
            f"the context of saga {', '.join(found)} holds a NUL character (\\u0000) or half a surrogate pair "
            "(\\ud800 to \\udfff), which jsonb cannot store: strip it from these rows of saga_executions and run "
            "`sagas migrate` again; nothing was changed."
        )
    op.execute("DROP FUNCTION sagas_fits_jsonb")


def _executions() -> None:
    op.execute("""
        ALTER TABLE saga_executions
            ALTER COLUMN status DROP DEFAULT,
            ALTER COLUMN status TYPE varchar(16) USING upper(status::text),
            ALTER COLUMN status SET DEFAULT 'PENDING',
            ALTER COLUMN context TYPE jsonb USING context::jsonb,
            ALTER COLUMN version TYPE bigint,
            ALTER COLUMN version SET DEFAULT 0,
            ALTER COLUMN created_at SET DEFAULT clock_timestamp(),
            ALTER COLUMN updated_at SET DEFAULT clock_timestamp(),
            ADD COLUMN IF NOT EXISTS recovery_attempts integer DEFAULT 0,
            ADD COLUMN idempotency_key varchar(255),
            ADD COLUMN definition_version varchar(64) NOT NULL DEFAULT '',
            ADD COLUMN lease_owner varchar(255),
            ADD COLUMN available_at timestamptz NOT NULL DEFAULT now(),
            ADD COLUMN interrupted boolean NOT NULL DEFAULT false,
            ADD COLUMN last_error text,
            ADD COLUMN finished_at timestamptz,
            SET (fillfactor = 80)""")
    op.execute("ALTER TABLE saga_executions ALTER COLUMN available_at SET DEFAULT clock_timestamp()")
    # A column that was added by hand may be of any integer type, and hold nothing.
    op.execute("UPDATE saga_executions SET recovery_attempts = 0 WHERE recovery_attempts IS NULL")
    op.execute("""
        ALTER TABLE saga_executions
            ALTER COLUMN recovery_attempts TYPE integer,
            ALTER COLUMN recovery_attempts SET DEFAULT 0,
            ALTER COLUMN recovery_attempts SET NOT NULL""")


def _logs() -> None:
    op.execute("""
        ALTER TABLE saga_logs
            ALTER COLUMN action TYPE varchar(16),
            ALTER COLUMN status TYPE varchar(16) USING lower(status::text),
            ALTER COLUMN details TYPE jsonb USING CASE WHEN details IS NULL THEN NULL
                WHEN lower(status::text) = 'failed' THEN jsonb_build_object('error_type', 'Error', 'message', details)
                ELSE jsonb_build_object('message', details) END,
            ALTER COLUMN created_at SET DEFAULT clock_timestamp(),
            ADD COLUMN attempt integer NOT NULL DEFAULT 1,
            ADD COLUMN version bigint NOT NULL DEFAULT 0,
            ADD COLUMN worker varchar(255)""")
    # The foreign key's name and its missing cascade depend on who made the table.
    keys = sa.text("""
        SELECT conname FROM pg_constraint
        WHERE conrelid = 'saga_logs'::regclass AND confrelid = 'saga_executions'::regclass""")
    for row in op.get_bind().execute(keys).all():
        op.drop_constraint(row.conname, "saga_logs", type_="foreignkey")
    op.create_foreign_key(
        "saga_logs_saga_id_fkey", "saga_logs", "saga_executions", ["saga_id"], ["id"], ondelete="CASCADE"
    )


def _carry_over_what_was_in_progress() -> None:
    # The older engine's word for a compensation that completed, wherever it used it.
    op.execute("UPDATE saga_logs SET action = 'compensate', status = 'completed' WHERE status = 'compensated'")
    # Two workers may have run a saga at once there, and both completed a step. The log is to tell of it once; the row
    # stays, under a status that progress does not read.
    op.execute("""
        UPDATE saga_logs again
        SET status = 'started', details = jsonb_build_object('message', 'completed a second time')
        FROM saga_executions e
        WHERE e.id = again.saga_id AND e.status IN ('RUNNING', 'COMPENSATING', 'FAILED')
            AND again.action = 'act' AND again.status = 'completed' AND EXISTS (
                SELECT FROM saga_logs first
                WHERE first.saga_id = again.saga_id AND first.step_name = again.step_name
                    AND first.action = 'act' AND first.status = 'completed' AND first.id < again.id)""")
    # There, an action that failed turned the saga back, at once and for good; a failed compensation was given up.
    op.execute("""
        UPDATE saga_logs SET details = COALESCE(details, '{}') || jsonb_build_object(
            'verdict', CASE action WHEN 'act' THEN 'turn back' ELSE 'give up' END, 'in_doubt', false)
        WHERE status = 'failed'""")
    # The direction was in the status alone; here it is read from the log. The step that began last and did not end
    # may have taken effect, so it is in doubt.
    op.execute("""
        INSERT INTO saga_logs (saga_id, step_name, action, status, details)
        SELECT e.id, last.step_name, 'act', 'failed', jsonb_build_object(
            'verdict', 'turn back', 'in_doubt', last.status = 'started',
            'error_type', 'Interrupted', 'message', 'turned back before the upgrade')
        FROM saga_executions e
        CROSS JOIN LATERAL (
            SELECT step_name, status FROM saga_logs
            WHERE saga_id = e.id AND action = 'act' ORDER BY id DESC LIMIT 1) AS last
        WHERE e.status IN ('COMPENSATING', 'FAILED') AND NOT EXISTS (
            SELECT FROM saga_logs l WHERE l.saga_id = e.id
                AND (l.action = 'compensate' OR (l.action = 'act' AND l.status = 'failed')))""")
    # Turned back, and nothing is left to undo: a clean end, which the older engine calls FAILED and retries for ever.
    op.execute("""
        UPDATE saga_executions e SET status = 'COMPENSATED'
        WHERE e.status IN ('COMPENSATING', 'FAILED') AND NOT EXISTS (
            SELECT FROM saga_logs acted
            WHERE acted.saga_id = e.id AND acted.action = 'act'
                AND (acted.status = 'completed' OR acted.details->>'in_doubt' = 'true')
                AND NOT EXISTS (
                    SELECT FROM saga_logs undone
                    WHERE undone.saga_id = e.id AND undone.step_name = acted.step_name
                        AND undone.action = 'compensate' AND undone.status = 'completed'))""")
    op.execute("""
        UPDATE saga_executions
        SET finished_at = updated_at, available_at = 'infinity' WHERE status IN ('COMPLETED', 'COMPENSATED')""")
    op.execute("""
        UPDATE saga_executions SET interrupted = true WHERE status IN ('RUNNING', 'COMPENSATING', 'FAILED')""")


def _constraints_and_indexes() -> None:
    # Written out, not imported: a migration says what was true on its day.
    recoverable = "status IN ('RUNNING', 'COMPENSATING', 'FAILED')"
    not_queued = "lease_owner IS DISTINCT FROM 'queue'"
    # The enums of the older layout, unless another table of the application's uses them too.
    op.execute("""
        DO $$ BEGIN
            DROP TYPE IF EXISTS sagastatus, sagastepstatus;
        EXCEPTION WHEN dependent_objects_still_exist THEN NULL;
        END $$""")
    for statement in (
        """ALTER TABLE saga_executions
            ADD CONSTRAINT saga_executions_status CHECK (status IN
                ('PENDING', 'RUNNING', 'COMPENSATING', 'COMPLETED', 'COMPENSATED', 'FAILED')),
            ADD CONSTRAINT saga_executions_recovery_attempts CHECK (recovery_attempts >= 0)""",
        """ALTER TABLE saga_logs
            ADD CONSTRAINT saga_logs_action CHECK (action IN ('act', 'compensate')),
            ADD CONSTRAINT saga_logs_status CHECK (status IN ('completed', 'failed', 'started'))""",
        """CREATE UNIQUE INDEX saga_executions_idempotency ON saga_executions (name, idempotency_key)
            WHERE idempotency_key IS NOT NULL""",
        f"CREATE INDEX saga_executions_due ON saga_executions (available_at) WHERE {recoverable} AND {not_queued}",
        f"""CREATE INDEX saga_executions_unstarted ON saga_executions (available_at)
            WHERE status = 'PENDING' AND {not_queued}""",
        "CREATE INDEX saga_executions_queued ON saga_executions (status, available_at) WHERE lease_owner = 'queue'",
        "CREATE INDEX saga_executions_finished ON saga_executions (finished_at) WHERE finished_at IS NOT NULL",
        "CREATE INDEX saga_logs_saga_id ON saga_logs (saga_id, id)",
    ):
        op.execute(statement)


def _drop_comments() -> None:
    # The older layout's; with them, Alembic would find it different from a new one for ever.
    columns = sa.text("""
        SELECT attrelid::regclass::text AS relation, quote_ident(attname) AS name FROM pg_attribute
        WHERE attrelid IN ('saga_executions'::regclass, 'saga_logs'::regclass)
            AND col_description(attrelid, attnum) IS NOT NULL""")
    for column in op.get_bind().execute(columns).all():
        op.execute(f"COMMENT ON COLUMN {column.relation}.{column.name} IS NULL")

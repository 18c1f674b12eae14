"""The tables, as SQLAlchemy knows them: what the migrations end at."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSON, JSONB

metadata = sa.MetaData()

_NOW = sa.text("clock_timestamp()")
#: Written out in every statement as here: PostgreSQL uses a partial index only for the condition it was built with.
RECOVERABLE_SQL = "status IN ('RUNNING', 'COMPENSATING', 'FAILED')"
PENDING_SQL = "status = 'PENDING'"
NOT_QUEUED_SQL = "lease_owner IS DISTINCT FROM 'queue'"
QUEUED_SQL = "lease_owner = 'queue'"
DEAD_SQL = "status = 'FAILED' AND available_at = 'infinity' AND lease_owner IS NULL"

saga_executions = sa.Table(
    "saga_executions",
    metadata,
    sa.Column("id", sa.Uuid, primary_key=True),
    sa.Column("name", sa.String(255), nullable=False),
    sa.Column("idempotency_key", sa.String(255)),
    sa.Column("definition_version", sa.String(64), nullable=False, server_default=""),
    sa.Column("status", sa.String(16), nullable=False, server_default="PENDING"),
    # As written, byte for byte: jsonb would put keys into another order and write 1e16 as an integer.
    sa.Column("context", JSON, nullable=False),
    # The fencing token: taking a saga increments it, every write of a holder names it.
    sa.Column("version", sa.BigInteger, nullable=False, server_default=sa.text("0")),
    sa.Column("recovery_attempts", sa.Integer, nullable=False, server_default=sa.text("0")),
    # A worker, 'queue', 'paused', or nobody.
    sa.Column("lease_owner", sa.String(255)),
    # The earliest time at which anybody else may pick the saga up; infinity for the dead, the parked and the finished.
    sa.Column("available_at", sa.DateTime(timezone=True), nullable=False, server_default=_NOW),
    # A holder was cut off since the last checkpoint, so the step that follows may have begun.
    sa.Column("interrupted", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Column("last_error", sa.Text),
    sa.Column("created_at", sa.DateTime(timezone=True), nullable=False, server_default=_NOW),
    sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False, server_default=_NOW),
    sa.Column("finished_at", sa.DateTime(timezone=True)),
    # The W3C trace context that it was started in.
    sa.Column("traceparent", sa.String(64)),
    # No CHECK: PostgreSQL reads the text of each anew in every statement that writes to the table.
    sa.Index(
        "saga_executions_idempotency",
        "name",
        "idempotency_key",
        unique=True,
        postgresql_where=sa.text("idempotency_key IS NOT NULL"),
    ),
    # What the scan reads. Each unfinished saga is in exactly one of these three, the finished are in none, so that
    # neither a backlog in the queue nor history makes a claim slower than its limit.
    sa.Index(
        "saga_executions_due",
        "available_at",
        postgresql_where=sa.text(f"{RECOVERABLE_SQL} AND {NOT_QUEUED_SQL}"),
    ),
    sa.Index(
        "saga_executions_unstarted",
        "available_at",
        postgresql_where=sa.text(f"{PENDING_SQL} AND {NOT_QUEUED_SQL}"),
    ),
    sa.Index(
        "saga_executions_queued",
        "status",
        "available_at",
        postgresql_where=sa.text(QUEUED_SQL),
    ),
    sa.Index(
        "saga_executions_finished",
        "finished_at",
        postgresql_where=sa.text("finished_at IS NOT NULL"),
    ),
)

# Checkpoints rewrite rows in place (heap-only updates) as long as their page has room.
sa.event.listen(
    saga_executions,
    "after_create",
    sa.DDL("ALTER TABLE saga_executions SET (fillfactor = 80)"),  # type: ignore[no-untyped-call]
)

saga_logs = sa.Table(
    "saga_logs",
    metadata,
    sa.Column("id", sa.BigInteger, sa.Identity(), primary_key=True),
    # No foreign key, which would look the saga up for every row: a row comes from the fenced update of its saga itself,
    # and a prune deletes both.
    sa.Column("saga_id", sa.Uuid, nullable=False),
    sa.Column("step_name", sa.String(255), nullable=False),
    sa.Column("action", sa.String(16), nullable=False),
    sa.Column("status", sa.String(16), nullable=False),
    sa.Column("attempt", sa.Integer, nullable=False, server_default=sa.text("1")),
    # Of the holder that wrote the row.
    sa.Column("version", sa.BigInteger, nullable=False, server_default=sa.text("0")),
    sa.Column("details", JSONB),
    sa.Column("worker", sa.String(255)),
    sa.Column("created_at", sa.DateTime(timezone=True), nullable=False, server_default=_NOW),
    sa.Index("saga_logs_saga_id", "saga_id", "id"),
)

# Saga names that an operator paused.
saga_pauses = sa.Table(
    "saga_pauses",
    metadata,
    sa.Column("name", sa.String(255), primary_key=True),
    sa.Column("by", sa.Text, nullable=False),
    sa.Column("because", sa.Text, nullable=False),
    sa.Column("since", sa.DateTime(timezone=True), nullable=False, server_default=_NOW),
)

# Names that were resumed, until nothing of them is parked.
saga_resumes = sa.Table("saga_resumes", metadata, sa.Column("name", sa.String(255), primary_key=True))

# Sagas that an operator wants back from whoever holds them.
saga_asks = sa.Table(
    "saga_asks",
    metadata,
    sa.Column("saga_id", sa.Uuid, primary_key=True),
    sa.Column("by", sa.Text, nullable=False),
    sa.Column("until", sa.DateTime(timezone=True), nullable=False),
)

# When the last scan of each host ran.
saga_scans = sa.Table(
    "saga_scans",
    metadata,
    sa.Column("worker", sa.String(255), primary_key=True),
    sa.Column("at", sa.DateTime(timezone=True), nullable=False),
)

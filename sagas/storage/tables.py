"""The tables, as SQLAlchemy knows them: what the migrations end at. `postgres/queries/overview.sql` explains them."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY, JSON, JSONB

from sagas.storage.upgrade import MAKE_TABLES_ARE_NEWER, TABLES_ARE_NEWER

metadata = sa.MetaData()
sa.event.listen(metadata, "before_create", sa.DDL(MAKE_TABLES_ARE_NEWER))  # type: ignore[no-untyped-call]

_NOW = sa.text("clock_timestamp()")

saga_executions = sa.Table(
    "saga_executions",
    metadata,
    sa.Column("id", sa.Uuid, primary_key=True),
    sa.Column("name", sa.String(255), nullable=False),
    sa.Column("idempotency_key", sa.String(255)),
    # What version 0.1.0 stored instead of a definition.
    sa.Column("definition_version", sa.String(64), nullable=False, server_default=""),
    sa.Column("status", sa.String(16), nullable=False, server_default="PENDING"),
    # As written, byte for byte: jsonb would put keys into another order and write 1e16 as an integer.
    sa.Column("context", JSON, nullable=False),
    # The fencing token: acquiring a saga increments it, every write of a holder names it.
    sa.Column("version", sa.BigInteger, nullable=False, server_default=sa.text("0")),
    sa.Column("recovery_attempts", sa.Integer, nullable=False, server_default=sa.text("0")),
    sa.Column("lease_owner", sa.String(255)),
    # What it means depends on the state; infinity if nothing is to happen by itself.
    sa.Column("available_at", sa.DateTime(timezone=True), nullable=False, server_default=_NOW),
    sa.Column("last_error", sa.Text),
    sa.Column("created_at", sa.DateTime(timezone=True), nullable=False, server_default=_NOW),
    sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False, server_default=_NOW),
    sa.Column("finished_at", sa.DateTime(timezone=True)),
    # The W3C trace context that it was started in.
    sa.Column("traceparent", sa.String(64)),
    # `sagas.storage.rules` has the table of states. No CHECK: PostgreSQL reads the text of each anew in every
    # statement that writes to the table.
    # The default raises an error: only version 0.1.0 stores a saga without a state.
    sa.Column("state", sa.String(16), nullable=False, server_default=sa.text(f"{TABLES_ARE_NEWER}()")),
    # Random for each acquire: together with the version it is the fence of a holder's writes.
    sa.Column("lease_token", sa.Uuid),
    # The hash of a row of saga_definitions.
    sa.Column("definition", sa.String(64)),
    # The steps that the holder may have begun since its last write; null: any that could begin.
    sa.Column("in_flight", ARRAY(sa.Text)),
    # Held by a process that crashed while it held others too: it runs alone until it gets on.
    sa.Column("suspect", sa.Boolean, nullable=False, server_default=sa.false()),
    # Its place in a family of sagas. Null: a family of its own, so that `id` is the root.
    sa.Column("root_id", sa.Uuid),
    sa.Column("depth", sa.Integer, nullable=False, server_default=sa.text("0")),
    sa.Index(
        "saga_executions_idempotency",
        "name",
        "idempotency_key",
        unique=True,
        postgresql_where=sa.text("idempotency_key IS NOT NULL"),
    ),
    # What scans read. Each unfinished saga is in exactly one of these four and no finished one is in any, so that
    # neither a backlog nor history makes a claim slower than its limit. PostgreSQL uses a partial index only for the
    # condition that it was built with, word for word.
    sa.Index(
        "saga_executions_unstarted",
        "available_at",
        postgresql_where=sa.text("status = 'PENDING' AND state = 'ready'"),
    ),
    sa.Index(
        "saga_executions_due",
        "available_at",
        postgresql_where=sa.text("status <> 'PENDING' AND state IN ('ready', 'running', 'waiting')"),
    ),
    sa.Index("saga_executions_queued", "status", "available_at", postgresql_where=sa.text("state = 'queued'")),
    sa.Index("saga_executions_stopped", "state", "name", postgresql_where=sa.text("state IN ('paused', 'dead')")),
    sa.Index("saga_executions_finished", "finished_at", postgresql_where=sa.text("finished_at IS NOT NULL")),
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
    # Of the holder that wrote the row, or that was lost.
    sa.Column("version", sa.BigInteger, nullable=False, server_default=sa.text("0")),
    sa.Column("details", JSONB),
    sa.Column("worker", sa.String(255)),
    sa.Column("created_at", sa.DateTime(timezone=True), nullable=False, server_default=_NOW),
    sa.Index("saga_logs_saga_id", "saga_id", "id"),
)

# The graphs of saga classes, one row for each content.
saga_definitions = sa.Table(
    "saga_definitions",
    metadata,
    sa.Column("hash", sa.String(64), primary_key=True),
    sa.Column("name", sa.String(255), nullable=False),
    sa.Column("graph", JSON, nullable=False),
    sa.Column("created_at", sa.DateTime(timezone=True), nullable=False, server_default=_NOW),
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

# Sagas that an operator wants back from whoever holds them.
saga_asks = sa.Table(
    "saga_asks",
    metadata,
    sa.Column("saga_id", sa.Uuid, primary_key=True),
    sa.Column("by", sa.Text, nullable=False),
    sa.Column("until", sa.DateTime(timezone=True), nullable=False),
)

# The newest message of each of the two queues that has reached a worker.
saga_deliveries = sa.Table(
    "saga_deliveries",
    metadata,
    sa.Column("pending", sa.Boolean, primary_key=True),
    sa.Column("queued_at", sa.DateTime(timezone=True)),
    sa.Column("at", sa.DateTime(timezone=True), nullable=False),
)

# When the last scan of each host ran.
saga_scans = sa.Table(
    "saga_scans",
    metadata,
    sa.Column("worker", sa.String(255), primary_key=True),
    sa.Column("at", sa.DateTime(timezone=True), nullable=False),
)

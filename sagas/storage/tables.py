"""The tables for SQLAlchemy, as all migrations leave them. `postgres/queries/overview.sql` explains them."""

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
    # Stored byte for byte as written: jsonb would reorder the keys and write 1e16 as an integer.
    sa.Column("context", JSON, nullable=False),
    # The fencing token: acquiring a saga increments it, every write of a holder names it.
    sa.Column("version", sa.BigInteger, nullable=False, server_default=sa.text("0")),
    sa.Column("recovery_attempts", sa.Integer, nullable=False, server_default=sa.text("0")),
    sa.Column("lease_owner", sa.String(255)),
    # The meaning depends on the state. Infinity: only an operator or an event acts on the saga.
    sa.Column("available_at", sa.DateTime(timezone=True), nullable=False, server_default=_NOW),
    sa.Column("last_error", sa.Text),
    sa.Column("created_at", sa.DateTime(timezone=True), nullable=False, server_default=_NOW),
    sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False, server_default=_NOW),
    sa.Column("finished_at", sa.DateTime(timezone=True)),
    # The W3C trace context in which the saga was started.
    sa.Column("traceparent", sa.String(64)),
    # `sagas.storage.rules` has the table of states. There is no CHECK: PostgreSQL would parse it again in every
    # statement that writes to the table.
    # The default raises an error: only version 0.1.0 stores a saga without a state.
    sa.Column("state", sa.String(16), nullable=False, server_default=sa.text(f"{TABLES_ARE_NEWER}()")),
    # Random for each acquire. The token and the version are the fence of a holder's writes.
    sa.Column("lease_token", sa.Uuid),
    # The hash of a row of saga_definitions.
    sa.Column("definition", sa.String(64)),
    # The steps that the holder may have begun since its last write; null: any that could begin.
    sa.Column("in_flight", ARRAY(sa.Text)),
    # The saga's process crashed while it held other sagas too. The saga runs alone until it makes progress.
    sa.Column("suspect", sa.Boolean, nullable=False, server_default=sa.false()),
    # The saga's place in a family of sagas. Null: the saga is alone in its family, and `id` is the root.
    sa.Column("root_id", sa.Uuid),
    sa.Column("depth", sa.Integer, nullable=False, server_default=sa.text("0")),
    # How many signals were delivered. A holder that suspends or ends the saga compares it with what it has read.
    sa.Column("inbox", sa.BigInteger, nullable=False, server_default=sa.text("0")),
    # When the saga is to have ended.
    sa.Column("deadline_at", sa.DateTime(timezone=True)),
    # What the program that started the saga wants to find it by.
    sa.Column("tags", JSONB),
    sa.Index(
        "saga_executions_tags",
        "tags",
        postgresql_using="gin",
        postgresql_ops={"tags": "jsonb_path_ops"},
        postgresql_where=sa.text("tags IS NOT NULL"),
    ),
    sa.Index(
        "saga_executions_idempotency",
        "name",
        "idempotency_key",
        unique=True,
        postgresql_where=sa.text("idempotency_key IS NOT NULL"),
    ),
    # Scans read the next four indexes. Each unfinished saga is in exactly one of them, and no finished saga is in any.
    # So neither a backlog nor old sagas make a claim slower. PostgreSQL uses a partial index only if the statement has
    # the index's condition word for word.
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
    # A listing of the dead shows the newest first.
    sa.Index("saga_executions_dead", "id", postgresql_where=sa.text("state = 'dead'")),
    sa.Index("saga_executions_finished", "finished_at", postgresql_where=sa.text("finished_at IS NOT NULL")),
)

# Leave room in each page, so that checkpoints can rewrite rows in place (heap-only updates).
sa.event.listen(
    saga_executions,
    "after_create",
    sa.DDL("ALTER TABLE saga_executions SET (fillfactor = 80)"),  # type: ignore[no-untyped-call]
)

saga_logs = sa.Table(
    "saga_logs",
    metadata,
    sa.Column("id", sa.BigInteger, sa.Identity(), primary_key=True),
    # There is no foreign key, because it would look the saga up for every row. It is not needed: the fenced update of
    # the saga inserts its rows, and a prune deletes both.
    sa.Column("saga_id", sa.Uuid, nullable=False),
    sa.Column("step_name", sa.String(255), nullable=False),
    sa.Column("action", sa.String(16), nullable=False),
    sa.Column("status", sa.String(16), nullable=False),
    sa.Column("attempt", sa.Integer, nullable=False, server_default=sa.text("1")),
    # The version of the holder that wrote the row, or that was lost.
    sa.Column("version", sa.BigInteger, nullable=False, server_default=sa.text("0")),
    sa.Column("details", JSONB),
    sa.Column("worker", sa.String(255)),
    sa.Column("created_at", sa.DateTime(timezone=True), nullable=False, server_default=_NOW),
    sa.Index("saga_logs_saga_id", "saga_id", "id"),
)

# The graphs of saga classes, one row for each distinct graph.
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

# Requests of operators that a holder yields its saga.
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

# What was sent to sagas from outside: signals, and requests to cancel.
saga_signals = sa.Table(
    "saga_signals",
    metadata,
    sa.Column("id", sa.BigInteger, sa.Identity(), primary_key=True),
    # There is no foreign key: it would lock the saga, and a caller may keep its transaction open for long.
    sa.Column("saga_id", sa.Uuid, nullable=False),
    sa.Column("kind", sa.String(16), nullable=False, server_default="signal"),
    sa.Column("name", sa.String(255), nullable=False),
    # The sender's name for this signal. The same one twice is one signal.
    sa.Column("signal_id", sa.String(255), nullable=False),
    sa.Column("payload", JSON),
    sa.Column("by", sa.Text),
    sa.Column("because", sa.Text),
    sa.Column("sent_at", sa.DateTime(timezone=True), nullable=False, server_default=_NOW),
    # Whether the saga's inbox counts it.
    sa.Column("delivered", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Index("saga_signals_once", "saga_id", "kind", "name", "signal_id", unique=True),
    sa.Index("saga_signals_undelivered", "sent_at", postgresql_where=sa.text("NOT delivered")),
)

# Celery tasks that steps asked for, until they are sent.
saga_outbox = sa.Table(
    "saga_outbox",
    metadata,
    sa.Column("id", sa.BigInteger, sa.Identity(), primary_key=True),
    sa.Column("saga_id", sa.Uuid, nullable=False),
    sa.Column("task", sa.String(255), nullable=False),
    sa.Column("arguments", JSON, nullable=False),
    sa.Column("created_at", sa.DateTime(timezone=True), nullable=False, server_default=_NOW),
)

# The last time of each schedule for which sagas were started.
saga_schedules = sa.Table(
    "saga_schedules",
    metadata,
    sa.Column("name", sa.String(255), primary_key=True),
    sa.Column("last_tick", sa.DateTime(timezone=True), nullable=False),
)

"""Makes an engine from a URL, and messages from the errors of its connections."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa
from sqlalchemy.exc import ArgumentError, NoSuchModuleError

from sagas.errors import ConfigurationError

if TYPE_CHECKING:  # psycopg may be missing, which make_engine tells in a sentence
    from psycopg import Connection

# A link that drops packets must not block a worker for longer than a lease. libpq's default is two hours.
_CONNECT_ARGS: Final = {
    "connect_timeout": 5,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
    # Override PGCLIENTENCODING, the role and the database: psycopg would encode with theirs, and lose characters.
    "client_encoding": "utf8",
}
# Session settings that statements and the reading of their results rely on. A database, a role or the environment may
# have changed them for other programs.
_CHANGED: Final = """
    FROM (VALUES
        -- PgBouncer restores these for each of its clients.
        ('DateStyle', 'ISO, MDY', true),
        ('TimeZone', 'UTC', true),
        ('standard_conforming_strings', 'on', true),
        -- Behind a pooler these would be set for its other clients, too.
        ('IntervalStyle', 'postgres', false),
        ('array_nulls', 'on', false),
        -- Each statement judges a row as it is once it is locked.
        ('default_transaction_isolation', 'read committed', false),
        -- Timeouts that suit the short statements of a web application would cut off scans and prunes.
        ('statement_timeout', '0', false),
        ('lock_timeout', '0', false),
        ('idle_in_transaction_session_timeout', '0', false),
        ('transaction_timeout', '0', false)
    ) AS wanted (name, value, everywhere)
    WHERE current_setting(name, true) <> value"""
_SESSION: Final = f"""
SELECT pg_backend_pid(), (
    SELECT count(set_config(name, value, false)) {_CHANGED} AND (everywhere OR pg_backend_pid() = %(pid)s)
)"""
#: Settings that still differ, because not all can be set behind a pooler: name, value, wanted value.
STILL_CHANGED: Final = f"SELECT name, current_setting(name), value {_CHANGED} ORDER BY name"
#: Parameter in the URL's query: after how many runs psycopg prepares a statement, or `none` for never.
_PREPARE: Final = "prepare_threshold"


def make_engine(url: str | sa.URL) -> sa.Engine:
    """Return an engine for this URL, in autocommit and without a pool; it connects on first use.

    Behind a pooler statements are not prepared, unless the URL's `prepare_threshold` says after how many runs.

    Args:
        url: of the database; its query may hold libpq's parameters and `prepare_threshold`, a number or `none`.

    Raises:
        ConfigurationError: the URL cannot be read, or is not PostgreSQL through psycopg 3.
    """
    try:
        parsed = sa.make_url(url)
        query = url.partition("?")[2] if isinstance(url, str) else ""
        if "@" in f"{parsed.host or ''}{parsed.database or ''}" or re.search("[^=]@", query):
            raise ArgumentError  # a part of a password with an unescaped @, which no message may show
        str(url).encode()
        for hosts in (parsed.host or "", *parsed.normalized_query.get("host", ())):
            for host in hosts.split(","):
                host.encode("idna")
    except (ArgumentError, ValueError):  # the latter for a port that is no number, and for what cannot be encoded
        raise ConfigurationError(
            "the database URL (SAGAS_DATABASE_URL) cannot be read: write it as "
            "postgresql+psycopg://user:password@host:5432/database, with special characters percent-encoded."
        ) from None
    if parsed.drivername != "postgresql+psycopg":
        raise ConfigurationError(
            f"the database URL (SAGAS_DATABASE_URL) begins {parsed.drivername}:// and does not name the driver that "
            "sagas use: begin it postgresql+psycopg://."
        )
    threshold = parsed.query.get(_PREPARE)
    try:
        engine = sa.create_engine(
            parsed.difference_update_query([_PREPARE]),
            connect_args=_CONNECT_ARGS if threshold is None else _CONNECT_ARGS | {_PREPARE: _threshold(threshold)},
            # The storage keeps its connections itself, together with their cursors, for a third of what SQLAlchemy's
            # pool costs an operation; without a bound on their number, as a heartbeat must never wait for one.
            poolclass=sa.NullPool,
            isolation_level="AUTOCOMMIT",
            hide_parameters=True,
        )
    except (ModuleNotFoundError, NoSuchModuleError) as error:
        raise ConfigurationError(f"psycopg 3 is not installed ({error}): pip install 'psycopg[binary]'.") from error
    sa.event.listen(engine, "connect", _set_up if threshold is None else _set_session)
    return engine


def _threshold(written: object) -> int | None:
    if written == "none":
        return None
    if isinstance(written, str) and written.isdecimal():
        return int(written)
    raise ConfigurationError(
        f"the database URL (SAGAS_DATABASE_URL) has {_PREPARE}={written!r}: write after how many runs a statement is "
        "prepared, such as 5, or none."
    )


def _set_up(connection: Connection[Any], _: object) -> None:
    """Set the session up, and turn prepared statements off on a connection behind a pooler.

    A pooler in transaction mode runs each transaction in any session, where the same name may belong to another
    client's statement: with as many parameters, that one would be run.
    """
    if _set_session(connection, _):
        connection.prepare_threshold = None


def _set_session(connection: Connection[Any], _: object) -> bool:
    """Set what sagas rely on, in one round trip; return whether the connection is behind a pooler.

    A pooler gives its clients numbers of its own for what they cancel, and so it is told from the server, whose number
    is the session's process id.
    """
    row = connection.execute(_SESSION, {"pid": connection.info.backend_pid}).fetchone()
    return row is None or row[0] != connection.info.backend_pid


def reason(error: Exception) -> str:
    """Return the first line of what the driver said."""
    cause = getattr(error, "orig", error)
    lines = [line.strip() for line in str(cause).splitlines() if line.strip()]
    return lines[0].rstrip(".") if lines else type(cause).__name__

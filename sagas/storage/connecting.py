"""From a URL to connections, and from their errors to words."""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa
from sqlalchemy.exc import ArgumentError, NoSuchModuleError

from sagas.errors import ConfigurationError

# A link that drops packets must not hold a worker longer than a lease: libpq's own default is two hours.
_CONNECT_ARGS: Final = {
    "connect_timeout": 5,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
}


def make_engine(url: str | sa.URL) -> sa.Engine:
    """Return an engine for this URL; it connects on first use.

    Raises:
        ConfigurationError: the URL cannot be read, or is not PostgreSQL through psycopg 3.
    """
    try:
        parsed = sa.make_url(url)
        if "@" in f"{parsed.host or ''}{parsed.database or ''}":
            raise ArgumentError  # a part of a password with an unescaped @, which no message may show
    except (ArgumentError, ValueError):  # the latter for a port that is no number
        raise ConfigurationError(
            "the database URL (SAGAS_DATABASE_URL) cannot be read: write it as "
            "postgresql+psycopg://user:password@host:5432/database, with special characters percent-encoded."
        ) from None
    if parsed.drivername != "postgresql+psycopg":
        raise ConfigurationError(
            f"the database URL (SAGAS_DATABASE_URL) begins {parsed.drivername}:// and does not name the driver that "
            "sagas use: begin it postgresql+psycopg://."
        )
    try:
        # No bound on their number: a heartbeat must never wait for a connection.
        return sa.create_engine(
            parsed,
            connect_args=_CONNECT_ARGS,
            # Kept by the storage, together with their cursors, at a third of what SQLAlchemy's pool costs an operation.
            poolclass=sa.NullPool,
            isolation_level="AUTOCOMMIT",
            hide_parameters=True,
        )
    except (ModuleNotFoundError, NoSuchModuleError) as error:
        raise ConfigurationError(f"psycopg 3 is not installed ({error}): pip install 'psycopg[binary]'.") from error


def address(url: sa.URL) -> str:
    """Return where a URL leads, without user and password."""
    hosts = url.query.get("host", "a local socket")
    host = url.host or (hosts if isinstance(hosts, str) else ", ".join(hosts))
    return f"{host}{f':{url.port}' if url.port else ''}/{url.database or ''}"


def reason(error: Exception) -> str:
    """Return the first line of what the driver said."""
    cause = getattr(error, "orig", error)
    lines = [line.strip() for line in str(cause).splitlines() if line.strip()]
    return lines[0].rstrip(".") if lines else type(cause).__name__

"""Checks that the database answers, has the tables, lets this user write, and keeps what it has committed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from sqlalchemy.exc import DBAPIError

from sagas.doctor.check import Check, Installation
from sagas.doctor.finding import Finding, problem, warning
from sagas.errors import SchemaAhead, SchemaBehind
from sagas.storage.postgres.dsn import reason
from sagas.storage.schema import HEAD, REVISIONS
from sagas.storage.tables import metadata

DATABASE_DOWN: Final = problem(
    "database-down",
    what="the database does not answer",
    why="No saga is started or recovered, and workers wait. Nothing is lost meanwhile.",
    cure="Check that PostgreSQL runs at {address}, accepts connections from here (pg_hba.conf, max_connections) and "
    "knows this user and password, or correct SAGAS_DATABASE_URL.",
)
SESSION_SETTINGS: Final = warning(
    "session-settings",
    what="sessions behind the pooler have settings that sagas do not work with",
    why="Another isolation level makes concurrent statements on one saga fail. Timeouts cut off long scans. Sagas set "
    "these on a direct connection; behind a pooler that would change them for other programs too.",
    cure="Use a role for sagas alone, and run {settings}",
)
SCHEMA_BEHIND: Final = problem(
    "schema-behind",
    what="the tables in the database are too old for this version, or too new",
    why="Workers of this version, and programs that start sagas, refuse to run.",
    cure="Run `sagas migrate`, after all workers of 0.1.0 were stopped. If the tables are too new, install the release "
    "that the message tells of.",
)
READ_ONLY: Final = problem(
    "database-read-only",
    what="the database cannot be written to",
    why="No saga is started, acquired or checkpointed.",
    cure="Point SAGAS_DATABASE_URL at the primary (host=a,b and target_session_attrs=read-write in its query). Where "
    "default_transaction_read_only is on, run ALTER DATABASE or ALTER ROLE … RESET default_transaction_read_only.",
)
PRIVILEGES_MISSING: Final = problem(
    "privileges-missing",
    what="the database user may not write all tables",
    why="Sagas are not started, checkpointed or pruned, and each attempt ends with an error of the database.",
    cure="GRANT SELECT, INSERT, UPDATE, DELETE ON {tables} TO {user};",
)
ROW_SECURITY: Final = warning(
    "row-security",
    what="row-level security may hide sagas from the database user",
    why="A saga that the user cannot see is not recovered.",
    cure="Turn it off (ALTER TABLE … DISABLE ROW LEVEL SECURITY), or use the owner of the tables.",
)
FSYNC_OFF: Final = warning(
    "fsync-off",
    what="the server does not flush commits to disk",
    why="If its machine loses power, the whole database may be damaged.",
    cure="Set fsync and full_page_writes to on in postgresql.conf, and reload it.",
)
SYNCHRONOUS_COMMIT_OFF: Final = warning(
    "synchronous-commit-off",
    what="the server confirms a commit before it is on disk",
    why="A crash of the server loses the last fraction of a second. Steps whose checkpoint is lost run again with the "
    "same idempotency key. A saga whose id your program already has may be lost.",
    cure="Run ALTER DATABASE … SET synchronous_commit TO on;",
)


def _database(installation: Installation) -> Iterator[Finding | str]:
    server = installation.server
    try:
        facts, changed = server.facts(), server.changed_settings()
    except DBAPIError as error:
        message = f"the database at {server.address} does not answer: {reason(error)}."
        yield DATABASE_DOWN.seen(message, address=server.address)
        return
    yield f"PostgreSQL {facts['version']} at {server.address}"
    if changed:
        yield SESSION_SETTINGS.seen(
            f"{', '.join(f'{name} is {value!r}' for name, value, _ in changed)}.",
            settings=" ".join(f"ALTER ROLE … SET {name} = {wanted!r};" for name, _, wanted in changed),
        )


def _schema(installation: Installation) -> Iterator[Finding | str]:
    try:
        version = installation.server.schema_version()
    except (SchemaAhead, SchemaBehind) as error:
        yield SCHEMA_BEHIND.seen(str(error))
        return
    yield f"at {version}" if version in REVISIONS else f"at {version}, made by newer code; this code has {HEAD}"


def _privileges(installation: Installation) -> Iterator[Finding | str]:
    facts, tables = installation.server.facts(), installation.server.access()
    if facts["in_recovery"]:
        yield READ_ONLY.seen("the server is in recovery: it is a replica, or was restored and not promoted.")
    elif facts["read_only"] == "on":
        yield READ_ONLY.seen(f"default_transaction_read_only is on for {facts['user']} in this database.")
    if missing := [f"{table['name']} ({', '.join(table['missing'])})" for table in tables if table["missing"]]:
        message = f"{facts['user']} lacks privileges on {', '.join(missing)}."
        yield PRIVILEGES_MISSING.seen(message, tables=", ".join(metadata.tables), user=facts["user"])
    if hidden := [table["name"] for table in tables if table["rows_hidden"]]:
        yield ROW_SECURITY.seen(f"it applies to {facts['user']} on {', '.join(hidden)}.")


def _durability(installation: Installation) -> Iterator[Finding | str]:
    facts = installation.server.facts()
    if off := [name for name in ("fsync", "full_page_writes") if facts[name] == "off"]:
        yield FSYNC_OFF.seen(f"{' and '.join(off)} {'is' if len(off) == 1 else 'are'} off.")
    if facts["synchronous_commit"] == "off":
        yield SYNCHRONOUS_COMMIT_OFF.seen("synchronous_commit is off.")


DATABASE: Final = Check("database", _database, (DATABASE_DOWN, SESSION_SETTINGS), needs=("settings",))
SCHEMA: Final = Check("schema", _schema, (SCHEMA_BEHIND,), needs=("database",))
PRIVILEGES: Final = Check("privileges", _privileges, (READ_ONLY, PRIVILEGES_MISSING, ROW_SECURITY), needs=("schema",))
DURABILITY: Final = Check("durability", _durability, (FSYNC_OFF, SYNCHRONOUS_COMMIT_OFF), needs=("database",))

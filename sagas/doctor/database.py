"""Does the database answer, may this user write, is what it confirmed safe, and does its clock agree with ours?"""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Final

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from sagas.doctor import statements as sql
from sagas.doctor.check import Check
from sagas.doctor.finding import Finding, problem, warning
from sagas.doctor.installation import Installation
from sagas.errors import ConfigurationError, SchemaBehind
from sagas.storage.postgres.dsn import STILL_CHANGED, address, behind_a_pooler, make_engine, reason
from sagas.storage.schema import HEAD, REVISIONS, require_version
from sagas.storage.tables import metadata

_SKEW_SECONDS: Final = 2.0

DATABASE_URL_UNUSABLE: Final = problem(
    "database-url-unusable",
    what="the database's URL cannot be used",
    why="Nothing can be started, run or looked at with this environment.",
    cure="Set SAGAS_DATABASE_URL as postgresql+psycopg://user:password@host:5432/database.",
)
DATABASE_DOWN: Final = problem(
    "database-down",
    what="the database does not answer",
    why="It is the only truth: no saga is started or recovered, and workers wait with what they hold. Nothing is lost "
    "meanwhile.",
    cure="See that PostgreSQL runs at {address}, accepts connections from here (pg_hba.conf, max_connections) and "
    "knows this user and password, or correct SAGAS_DATABASE_URL.",
)
DATABASE_ENCODING: Final = warning(
    "database-encoding",
    what="the database has another encoding than UTF8",
    why="A saga with a character that this encoding lacks is refused at its start, or its attempt fails at the step "
    "that adds it.",
    cure="Keep the sagas in a database with the encoding UTF8: CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0.",
)
POOL_TOO_LARGE: Final = warning(
    "pool-too-large",
    what="one process may open more connections than the server allows to all",
    why="When it does, the server refuses other processes, and renewals of leases are among what comes late.",
    cure="Set SAGAS_DATABASE_POOL_SIZE lower, or max_connections of the server higher.",
)
SESSION_SETTINGS: Final = warning(
    "session-settings",
    what="sessions behind the pooler have settings that sagas do not expect",
    why="Under another isolation level statements fail that meet on one saga, and timeouts cut long scans off. On a "
    "direct connection sagas set these themselves; behind a pooler they would change them for other programs, too.",
    cure="Let sagas use a role of their own, with {settings}",
)
DATABASE_REPLICA: Final = problem(
    "database-replica",
    what="the database is a replica",
    why="Nothing can be written there, so no saga is started, taken or checkpointed.",
    cure="Point SAGAS_DATABASE_URL at the primary, as by host=a,b and target_session_attrs=read-write in its query.",
)
DATABASE_READ_ONLY: Final = problem(
    "database-read-only",
    what="transactions are read-only by default",
    why="Nothing is written, so no saga is started, taken or checkpointed.",
    cure="Turn it off where it was set: ALTER DATABASE … RESET default_transaction_read_only, or ALTER ROLE.",
)
SCHEMA_BEHIND: Final = problem(
    "schema-behind",
    what="the database lacks tables or columns that this version needs",
    why="Workers of this version refuse to start, and programs to start sagas.",
    cure="Run `sagas migrate`. Workers of the earlier version may go on meanwhile.",
)
ROW_SECURITY: Final = warning(
    "row-security",
    what="row-level security may hide sagas from the database's user",
    why="A saga that cannot be seen is not recovered, and a start with its idempotency key is refused.",
    cure="Turn it off (ALTER TABLE … DISABLE ROW LEVEL SECURITY), or let the tables' owner run the sagas.",
)
PRIVILEGES_MISSING: Final = problem(
    "privileges-missing",
    what="the database's user may not write all tables",
    why="Sagas are not started, checkpointed or pruned, and each attempt ends with an error of the database.",
    cure="GRANT SELECT, INSERT, UPDATE, DELETE ON {tables} TO {user};",
)
FSYNC_OFF: Final = warning(
    "fsync-off",
    what="the server does not flush what it commits to the disk",
    why="When its machine loses power, the whole database may be damaged, beyond the sagas that were just running.",
    cure="Set fsync and full_page_writes to on in postgresql.conf, and reload it.",
)
SYNCHRONOUS_COMMIT_OFF: Final = warning(
    "synchronous-commit-off",
    what="a commit is confirmed before it is flushed to the disk",
    why="A crash of the server forgets the last fraction of a second: checkpoints, so that steps are repeated with the "
    "same idempotency key, and starts whose id your program already has.",
    cure="Set synchronous_commit to on for this database: ALTER DATABASE … SET synchronous_commit TO on;",
)
CLOCK_SKEW: Final = warning(
    "clock-skew",
    what="this machine's clock and the database's disagree",
    why="Nothing is decided by it: leases and waits go by the database's clock. But the times in logs, and the ages "
    "that `sagas list` shows here, mislead people.",
    cure="Synchronise both clocks (chronyc tracking, timedatectl).",
)


def _answers(installation: Installation) -> Iterator[Finding | str]:
    try:
        engine = make_engine(installation.settings.database_url)
    except ConfigurationError as error:
        yield DATABASE_URL_UNUSABLE(str(error))
        return
    where = address(engine.url)
    try:
        with engine.connect() as connection:
            row = connection.execute(sa.text(sql.SERVER)).mappings().one()
            began = time.perf_counter()
            connection.execute(sa.text(sql.SERVER))  # the first one told how long it is to compile, too
            seconds = time.perf_counter() - began
            pooled = behind_a_pooler(connection.connection.driver_connection)  # type: ignore[arg-type]
            changed = connection.execute(sa.text(STILL_CHANGED)).all()
    except DBAPIError as error:
        yield DATABASE_DOWN(f"the database at {where} does not answer: {reason(error)}.", address=where)
        return
    yield f"PostgreSQL {row['version']} at {where}, {seconds * 1000:.1f} ms away"
    if pooled:
        yield "behind a pooler: statements are not prepared"
    if changed:
        yield SESSION_SETTINGS(
            f"{', '.join(f'{name} is {value!r}' for name, value, _ in changed)}.",
            settings=" ".join(f"ALTER ROLE … SET {name} = {wanted!r};" for name, _, wanted in changed),
        )
    size = installation.settings.database_pool_size
    yield f"up to {size} connections for each process (SAGAS_DATABASE_POOL_SIZE), {row['connections']} for all"
    if size >= row["connections"] and not pooled:
        yield POOL_TOO_LARGE(f"SAGAS_DATABASE_POOL_SIZE is {size}, and the server allows {row['connections']}.")
    if row["encoding"] != "UTF8":
        yield DATABASE_ENCODING(f"the database at {where} has the encoding {row['encoding']}.")


def _writable(installation: Installation) -> Iterator[Finding | str]:
    (row,) = installation.rows(sql.SERVER)
    if row["replica"]:
        yield DATABASE_REPLICA("the server is in recovery: it follows another, or was restored and not promoted.")
    elif row["read_only"]:
        yield DATABASE_READ_ONLY(f"default_transaction_read_only is on for {row['user']} in this database.")


def _schema(installation: Installation) -> Iterator[Finding | str]:
    (row,) = installation.rows(sql.VERSION_TABLE_EXISTS)
    found = installation.rows(sql.VERSION) if row["exists"] else []
    version = found[0]["version"] if found else None
    try:
        require_version(version)
    except SchemaBehind as error:
        yield SCHEMA_BEHIND(str(error))
        return
    yield f"at {version}" if version in REVISIONS else f"at {version}, made by newer code; this code has {HEAD}"


def _privileges(installation: Installation) -> Iterator[Finding | str]:
    tables = {"tables": [*metadata.tables]}
    (server,) = installation.rows(sql.SERVER)
    if missing := [row["missing"] for row in installation.rows(sql.MISSING_PRIVILEGES, tables)]:
        yield PRIVILEGES_MISSING(
            f"{server['user']} lacks privileges on {', '.join(missing)}.",
            tables=", ".join(metadata.tables),
            user=server["user"],
        )
    if secured := [row["name"] for row in installation.rows(sql.ROW_SECURITY, tables)]:
        yield ROW_SECURITY(f"for {server['user']} it is active on {', '.join(secured)}.")


def _durability(installation: Installation) -> Iterator[Finding | str]:
    values = {row["name"]: row["value"] for row in installation.rows(sql.DURABILITY)}
    off = [name for name in ("fsync", "full_page_writes") if values[name] == "off"]
    if off:
        yield FSYNC_OFF(f"{' and '.join(off)} {'is' if len(off) == 1 else 'are'} off.")
    if values["synchronous_commit"] == "off":
        yield SYNCHRONOUS_COMMIT_OFF("synchronous_commit is off.")


def _clock(installation: Installation) -> Iterator[Finding | str]:
    before = datetime.now(UTC)
    (row,) = installation.rows(sql.CLOCK)
    now: datetime = row["now"]
    # It was asked somewhere between the two; only what lies outside is a difference.
    ahead = max((before - now).total_seconds(), 0) - max((now - datetime.now(UTC)).total_seconds(), 0)
    if abs(ahead) > _SKEW_SECONDS:
        yield CLOCK_SKEW(f"this machine's clock is {abs(ahead):.0f} s {'ahead of' if ahead > 0 else 'behind'} it.")


DATABASE_CHECKS: Final = (
    Check(
        "database",
        _answers,
        (DATABASE_URL_UNUSABLE, DATABASE_DOWN, SESSION_SETTINGS, POOL_TOO_LARGE, DATABASE_ENCODING),
        needs=("settings",),
    ),
    Check("primary", _writable, (DATABASE_REPLICA, DATABASE_READ_ONLY), needs=("database",)),
    Check("schema", _schema, (SCHEMA_BEHIND,), needs=("database",)),
    Check("privileges", _privileges, (PRIVILEGES_MISSING, ROW_SECURITY), needs=("schema",)),
    Check("durability", _durability, (FSYNC_OFF, SYNCHRONOUS_COMMIT_OFF), needs=("database",)),
    Check("clock", _clock, (CLOCK_SKEW,), needs=("database",)),
)

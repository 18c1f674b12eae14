"""Measure the scan's claim in a table of ten million sagas, compared with a table of a hundred thousand."""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median
from typing import Any

from benchmarks.database import Database
from benchmarks.rows import Row
from sagas import PostgresSagaStorage
from sagas.storage.postgres.queries import query
from sagas.storage.transitions import PROBE_SECONDS

SMALL = 100_000
LARGE = 10_000_000
LIMIT = 1_000
ROUNDS = 9

# One saga in a hundred is recoverable: its lease has expired. As many have live leases, and the rest has ended.
# Saga n was started n milliseconds ago. Ids are of version 7, as the engine makes them, and the oldest come first.
_FILL = """
INSERT INTO saga_executions (id, name, status, state, context, version, lease_owner, lease_token, available_at,
    created_at, updated_at, finished_at)
SELECT uuidv7(-n * interval '1 ms'), 'order-' || n %% 20,
    CASE WHEN n %% 100 < 2 THEN 'RUNNING' ELSE 'COMPLETED' END,
    CASE WHEN n %% 100 < 2 THEN 'running' ELSE 'finished' END, '{"order_id":"o-1"}', 1 + n %% 3,
    CASE n %% 100 WHEN 0 THEN 'gone@host/1.1' WHEN 1 THEN 'alive@host/2.2' END,
    CASE WHEN n %% 100 < 2 THEN gen_random_uuid() END,
    CASE n %% 100 WHEN 0 THEN now() - n * interval '1 ms' WHEN 1 THEN now() + interval '1 day' ELSE 'infinity' END,
    now(), now(), CASE WHEN n %% 100 >= 2 THEN now() - n * interval '1 ms' END
FROM generate_series(%(oldest)s::bigint, %(newest)s, -1) AS n"""


def measure(database: Callable[[str], Database]) -> list[Row]:
    """Return the row of the claim of 1,000 ids, with the query plan."""
    small, large = (database(f"claiming_{size}") for size in (SMALL, LARGE))
    small.fill(_FILL, SMALL)
    large.fill(_FILL, LARGE)
    seconds: dict[str, list[float]] = {"small": [], "large": []}
    storages = {"small": small.storage(), "large": large.storage()}
    for turn in range(ROUNDS + 1):  # the first claim warms up
        for name, storage in storages.items():
            # The small table has only a thousand sagas to claim, the same in every turn. PostgreSQL writes each page
            # whole to the write-ahead log after a checkpoint. Without this statement, only the large table's pages
            # would be written whole.
            small.execute("CHECKPOINT")
            taken = claim(storage)
            if turn:
                seconds[name].append(taken)
    for storage in storages.values():
        storage.close()
    milliseconds = {name: [round(1000 * second, 2) for second in of] for name, of in seconds.items()}
    return [
        Row(
            name=f"claiming {LIMIT:,} of {LARGE:,} sagas",
            unit="ms",
            measured=median(milliseconds["large"]),
            against=f"the same of {SMALL:,}",
            limit=median(milliseconds["small"]),
            ratio=median(seconds["large"]) / median(seconds["small"]),
            goal=1.5,
            at_most=True,
            details={"milliseconds": milliseconds, "plan": _plan(large)},
        )
    ]


def claim(storage: PostgresSagaStorage) -> float:
    """Claim so many sagas and release them; return how many seconds the claim took."""
    began = time.perf_counter()
    result = storage.claim_sagas(pending=False, limit=LIMIT, max_recovery_attempts=5)
    seconds = time.perf_counter() - began
    if len(result.claims) != LIMIT:
        raise RuntimeError(f"{len(result.claims)} sagas were claimed instead of {LIMIT}")
    storage.release_claims(result.claims)
    return seconds


def _plan(target: Database) -> list[str]:
    parameters: dict[str, Any] = {
        "limit": LIMIT,
        "max_attempts": 5,
        "probe": PROBE_SECONDS,
    }
    with target.connect() as connection, connection.transaction(force_rollback=True):
        rows = connection.execute(f"EXPLAIN (ANALYZE, BUFFERS) {query('claim_due')}", parameters).fetchall()
    return [row[0] for row in rows]

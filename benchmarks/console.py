"""Measure the console's pages over a table of ten million sagas, compared with a table of ten thousand."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from statistics import median

import httpx
import uvicorn

from benchmarks.database import Database
from benchmarks.rows import Row
from sagas import PostgresSagaStorage, SagaEngine
from sagas.console import LoopbackOnly, Person, console

SMALL = 10_000
LARGE = 10_000_000
ROUNDS = 25
GOAL = 3.0

# Of a thousand sagas, five wait, two are dead, two are queued, one is paused, ten are running and one backs off. The
# rest has ended. Saga n was started n milliseconds ago. Ids are of version 7, and the oldest come first.
_FILL = """
INSERT INTO saga_executions (id, name, idempotency_key, status, state, context, version, lease_owner, lease_token,
    available_at, last_error, created_at, updated_at, finished_at, tags)
SELECT uuidv7(-n * interval '1 ms'), 'order-' || n %% 20, n, status, state, '{"order_id":"o-1"}', 1 + n %% 3,
    CASE WHEN state = 'running' THEN 'worker-' || n %% 7 || '@host/1.1' END,
    CASE WHEN state = 'running' THEN gen_random_uuid() END,
    CASE WHEN state IN ('dead', 'finished') THEN 'infinity' ELSE now() + (n %% 3600) * interval '1 s' END,
    CASE WHEN status = 'FAILED' THEN 'charge, act, attempt 1: ConnectionError: the bank does not answer' END,
    now() - n * interval '1 ms', now(), CASE WHEN state = 'finished' THEN now() - n * interval '1 ms' END,
    jsonb_build_object('customer', 'c-' || n / 10)
FROM generate_series(%(oldest)s::bigint, %(newest)s, -1) AS n
CROSS JOIN LATERAL (
    SELECT CASE WHEN n %% 1000 < 5 THEN 'waiting' WHEN n %% 1000 < 7 THEN 'dead' WHEN n %% 1000 < 9 THEN 'queued'
        WHEN n %% 1000 < 10 THEN 'paused' WHEN n %% 1000 < 20 THEN 'running' WHEN n %% 1000 < 21 THEN 'ready'
        ELSE 'finished' END AS state
) AS stands
CROSS JOIN LATERAL (
    SELECT CASE WHEN state IN ('dead', 'ready') THEN 'FAILED' WHEN state = 'finished' THEN 'COMPLETED'
        ELSE 'RUNNING' END AS status
) AS ends"""

#: Pages, as the addresses below the console.
PAGES = {
    "the overview": "/",
    "the list": "/sagas",
    "an old page of the list": "/sagas?after={middle}",
    "the list of a name": "/sagas?name=order-3",
    "the list of a name without sagas": "/sagas?name=nobody",
    "the list of what ended": "/sagas?status=COMPENSATED",
    "the list by a tag": "/sagas?tags=customer%3Dc-7",
    "the list by a key": "/sagas?key=77",
    "the dead letters": "/dead",
    "one saga": "/sagas/{middle}",
    "the schedules": "/schedules",
}


def measure(database: Callable[[str], Database], large: int = LARGE) -> list[Row]:
    """Return a row for each page.

    Args:
        database: returns a database of the server.
        large: how many sagas the larger table has.
    """
    milliseconds: dict[str, dict[int, list[float]]] = {page: {SMALL: [], large: []} for page in PAGES}
    with ExitStack() as stack:
        sides = []
        for size in (SMALL, large):
            target = database(f"console_{size}")
            target.fill(_FILL, size)
            storage = target.storage()
            stack.callback(storage.close)
            client = httpx.Client(base_url=stack.enter_context(_served(storage)), timeout=60)
            sides.append((size, stack.enter_context(client), _middle(target, size)))
        for page, address in PAGES.items():
            for turn in range(ROUNDS + 2):  # the first ones warm up
                for size, client, middle in sides:
                    began = time.perf_counter()
                    client.get(address.format(middle=middle)).raise_for_status()
                    if turn >= 2:
                        milliseconds[page][size].append(round(1000 * (time.perf_counter() - began), 2))
    rows = []
    for page, found in milliseconds.items():
        slow, fast = median(found[large]), median(found[SMALL])
        rows.append(
            Row(
                name=f"console: {page} of {large:,} sagas",
                unit="ms",
                measured=slow,
                against=f"the same of {SMALL:,}",
                limit=fast,
                ratio=slow / fast,
                goal=GOAL,
                at_most=True,
                details={"milliseconds": found},
            )
        )
    return rows


def _middle(target: Database, size: int) -> str:
    with target.connect() as connection:
        rows = connection.execute(
            "SELECT id FROM saga_executions ORDER BY id OFFSET %s LIMIT 1", [size // 2]
        ).fetchall()
    return str(rows[0][0])


@contextmanager
def _served(storage: PostgresSagaStorage) -> Iterator[str]:
    """Serve the console on a free port of this machine, and yield its URL."""
    app = console(SagaEngine(storage), access=LoopbackOnly(Person("bench")))
    # asyncio turns the waiting for acknowledgements off only for sockets that name their protocol.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.bind(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_config=None))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    server.should_exit = True
    thread.join()
    listener.close()

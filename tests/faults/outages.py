"""Outages of the broker under busy workers of every pool: `python -m tests.faults.outages --outages 40 --seed 1`.

Every pool has its own worker, beat and database. All pools share one broker, so that each outage affects all of them.
No outage may end a worker. Sagas that are started during or after an outage must run soon after the broker's return.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from random import Random
from statistics import median
from uuid import UUID

import sqlalchemy as sa
from celery import Celery

from sagas import PostgresSagaStorage, SagaEngine, Settings
from sagas.celery.dispatch import CeleryDispatcher
from sagas.storage.schema import migrate
from sagas.testing.processes import CeleryProcess, wait_until
from sagas.testing.servers import BrokerServer, PostgresServer
from tests.faults.errands import Errand, Errands
from tests.forking import start_celery

POOLS = ("prefork", "threads", "solo", *(("gevent",) if find_spec("gevent") else ()))
#: Seconds after the broker's return within which every saga from the outage or after it must have begun.
PROMISED_SECONDS = 15.0
#: Messages at once: more than a worker prefetches, so that some wait behind the unacknowledged ones.
BUSY = 4


@dataclass
class Site:
    """The worker and the beat of one pool; its methods start sagas for them."""

    pool: str
    engine: SagaEngine
    worker: CeleryProcess
    beat: CeleryProcess
    #: For each outage, the seconds from the broker's return until all sagas started meanwhile had begun.
    waited: list[float] = field(default_factory=list)

    def start(self, seconds: float, count: int) -> list[UUID]:
        """Start sagas of two steps, which take so many seconds each."""
        return self.engine.start_many(Errands, [Errand(seconds)] * count)

    def begun(self, sagas: Sequence[UUID]) -> bool:
        """Whether every saga was acquired by a worker."""
        return all(self.engine.storage.load(saga).version > 0 for saga in sagas)

    def finished(self, sagas: Sequence[UUID]) -> bool:
        """Whether every saga has ended."""
        return all(self.engine.storage.load(saga).status.finished for saga in sagas)

    def alive(self) -> bool:
        """Whether both processes run."""
        return self.worker.exit_code is None and self.beat.exit_code is None


@contextmanager
def sites(directory: Path, broker: BrokerServer, pools: Sequence[str] = POOLS) -> Iterator[list[Site]]:
    """Run a worker and a beat for every pool, each with its own databases on the broker and on PostgreSQL."""
    with ExitStack() as stack:
        postgres = stack.enter_context(PostgresServer(directory / "postgres"))
        made = [_site(stack, directory, postgres, broker, number, pool) for number, pool in enumerate(pools, start=1)]
        for site in made:
            site.worker.wait_for_log(" ready.")
        yield made


def _site(
    stack: ExitStack, directory: Path, postgres: PostgresServer, broker: BrokerServer, number: int, pool: str
) -> Site:
    database_url = postgres.create_database(pool)
    server = sa.create_engine(database_url)
    with server.connect() as connection:
        migrate(connection)
    server.dispose()
    broker_url = broker.url.removesuffix("0") + str(number)
    environment = {
        "SAGAS_DATABASE_URL": database_url,
        "SAGAS_BROKER_URL": broker_url,
        "SAGAS_MODULES": "tests.faults.errands",
        "SAGAS_LEASE_SECONDS": "5",
        "TMPDIR": str(directory),
        "PYTHONPATH": str(Path(__file__).parent.parent.parent),
    }
    commands = {"worker": ["worker", "-P", pool, "-c", "2", "-n", f"{pool}@outages"], "beat": ["beat"]}
    worker, beat = (
        start_celery(
            [*command, "-l", "INFO"], environment=environment, log=directory / f"{pool}-{name}.log", directory=directory
        )
        for name, command in commands.items()
    )
    stack.callback(worker.kill)
    stack.callback(beat.kill)
    app = Celery("outages", set_as_current=False)
    app.config_from_object("celeryconfig")
    app.conf.broker_url = app.conf.result_backend = broker_url
    stack.callback(app.close)
    storage = PostgresSagaStorage(database_url)
    stack.callback(storage.close)
    settings = Settings.from_environment(environment)
    engine = SagaEngine(storage, dispatcher=CeleryDispatcher(app), settings=settings, sagas=[Errands])
    return Site(pool, engine, worker, beat)


def outage(sites: Sequence[Site], broker: BrokerServer, random: Random, seconds: float, *, settle: float) -> None:
    """Stop the broker for some seconds while every worker is busy, and wait until each has begun all new sagas.

    Args:
        sites: they record how long it took.
        random: decides how and when the broker stops.
        seconds: duration of the outage.
        settle: maximal seconds to wait for the sagas after the broker's return.

    Raises:
        TimeoutError: a saga did not begin in time.
    """
    sagas: dict[str, list[UUID]] = {}
    for site in sites:
        site.start(random.choice((0.1, 0.3, 0.6)), random.randint(1, BUSY))
    time.sleep(random.uniform(0, 0.5))  # the outage may hit the beginning or the middle of the work
    broker.stop(random.choice(("fast", "immediate")))
    gone = time.monotonic()
    for site in sites:
        sagas[site.pool] = site.start(0.05, 1)
    time.sleep(max(0.0, gone + seconds - time.monotonic()))
    broker.start()
    back = time.monotonic()
    for site in sites:
        sagas[site.pool] += site.start(0.05, 1)
    waiting = list(sites)

    def all_begun() -> bool:
        for site in list(waiting):
            if site.begun(sagas[site.pool]):
                site.waited.append(time.monotonic() - back)
                waiting.remove(site)
        return not waiting

    try:
        wait_until(all_begun, timeout_seconds=settle)
    except TimeoutError:
        late = ", ".join(f"{site.pool} (ended: {not site.alive()})" for site in waiting)
        raise TimeoutError(f"after an outage of {seconds:.1f} s nothing began within {settle} s at {late}") from None


def main() -> int:
    """Run outages of random length; exit non-zero if a worker ended or a saga waited too long."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--outages", type=int, default=40)
    parser.add_argument("--shortest", type=float, default=0.3, help="seconds")
    parser.add_argument("--longest", type=float, default=20.0, help="seconds")
    parser.add_argument("--pools", nargs="+", default=POOLS)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--logs", type=Path, help="directory for data and logs; default: one that is kept")
    options = parser.parse_args()
    directory = options.logs or Path(tempfile.mkdtemp(prefix="sagas-outages-"))
    directory.mkdir(parents=True, exist_ok=True)
    random = Random(options.seed)
    print(f"seed {options.seed}, logs in {directory}")
    with BrokerServer(directory / "broker") as broker, sites(directory, broker, options.pools) as all_sites:
        for number in range(1, options.outages + 1):
            # Use as many short outages as long ones: workers could die at the moment of the loss, or while they
            # reconnect.
            seconds = options.shortest * (options.longest / options.shortest) ** random.random()
            try:
                outage(all_sites, broker, random, seconds, settle=60)
            except TimeoutError as error:
                print(error)
            waited = ", ".join(f"{site.pool} {site.waited[-1]:.1f} s" for site in all_sites if site.waited)
            print(f"{number}: gone for {seconds:.1f} s; then began: {waited}", flush=True)
            if not all(site.alive() for site in all_sites):
                break
        ended = [f"{site.pool}" for site in all_sites if not site.alive()]
        report = {
            site.pool: {"median": round(median(site.waited), 1), "slowest": round(max(site.waited), 1)}
            for site in all_sites
            if site.waited
        }
    print(json.dumps({"ended": ended, "seconds from return to begin": report}, indent=2))
    return 1 if ended or any(times["slowest"] > PROMISED_SECONDS for times in report.values()) else 0


if __name__ == "__main__":
    raise SystemExit(main())

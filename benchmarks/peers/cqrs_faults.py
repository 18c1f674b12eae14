"""Run the same faults with the same shop and seed on python-cqrs: `python -m benchmarks.peers.cqrs_faults --seed 7`.

Every saga is stored as RUNNING before its task is sent, so that a lost message does not count against python-cqrs.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from uuid import NAMESPACE_OID, UUID, uuid5

import asyncpg
import psycopg
import sqlalchemy as sa
from cqrs.saga.storage.enums import SagaStatus
from cqrs.saga.storage.sqlalchemy import Base, SqlAlchemySagaStorage
from rich.console import Console
from rich.table import Table
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine

from benchmarks.peers.cqrs_sagas import OrderContext
from tests.faults.check import STEPS, Finding, Findings
from tests.faults.cluster import OurSystem, libpq
from tests.faults.network import enter_own_network
from tests.faults.run import LONG, SHORT, run
from tests.faults.shop import Order, must_complete


class PythonCqrs:
    """python-cqrs with its own storage; a saga that FAILED and has nothing left to undo counts as ended."""

    application = "benchmarks.peers.cqrs_app"

    def __init__(self, database_url: str, broker_url: str, environment: Mapping[str, str]) -> None:
        engine = sa.create_engine(database_url)
        Base.metadata.create_all(engine)
        engine.dispose()
        self._url = libpq(database_url)
        self._async_url = database_url.replace("+psycopg", "+asyncpg", 1)
        self._broker_url = broker_url

    def start(self, order: Order, key: str) -> UUID:
        saga_id = uuid5(NAMESPACE_OID, key)
        while True:
            try:
                asyncio.run(self._create(saga_id, order))
                break
            except (OSError, psycopg.Error, sa.exc.DBAPIError, asyncpg.PostgresError, asyncpg.InterfaceError):
                continue
        from benchmarks.peers.cqrs_app import app

        app.conf.broker_url = self._broker_url
        try:
            app.send_task("peer.recover", args=(str(saga_id),), retry=False)
        except Exception as error:  # the scan finds the saga
            print(f"not sent: {type(error).__name__}")
        return saga_id

    async def _create(self, saga_id: UUID, order: Order) -> None:
        engine = create_async_engine(self._async_url)
        storage = SqlAlchemySagaStorage(async_sessionmaker(engine))
        try:
            with psycopg.connect(self._url, connect_timeout=5) as connection:
                if connection.execute("SELECT FROM saga_executions WHERE id = %s", (saga_id,)).fetchone():
                    return
            context = OrderContext(order_id=str(saga_id), seconds=order.seconds, failing=_peers(order.failing))
            await storage.create_saga(saga_id, "faulty-order", context.to_dict())
            await storage.update_status(saga_id, SagaStatus.RUNNING)
        finally:
            await engine.dispose()

    def unfinished(self) -> int:
        try:
            with psycopg.connect(self._url, connect_timeout=5) as connection:
                row = connection.execute(
                    "SELECT count(*) FROM saga_executions "
                    "WHERE status NOT IN ('COMPLETED', 'FAILED') AND recovery_attempts < 5"
                ).fetchone()
        except psycopg.OperationalError:
            return -1
        return row[0] if row else 0

    def queued(self) -> dict[UUID, tuple[str, int]]:
        return {}

    def held_by(self, owner: str) -> dict[UUID, tuple[str, int]]:
        return {}  # python-cqrs does not store which worker runs a saga

    def check(self, ledger_url: str, started: dict[UUID, Order], undisturbed: set[UUID]) -> Findings:
        findings = Findings()
        with psycopg.connect(self._url) as connection:
            sagas = dict(connection.execute("SELECT id, status::text FROM saga_executions").fetchall())
            results: dict[UUID, Counter[tuple[str, str]]] = defaultdict(Counter)
            for saga_id, step, action in connection.execute(
                "SELECT saga_id, step_name, action FROM saga_logs WHERE status = 'COMPLETED'"
            ):
                results[saga_id][step, action] += 1
        with psycopg.connect(ledger_url) as connection:
            effects: dict[UUID, set[str]] = defaultdict(set)
            for saga_id, step in connection.execute("SELECT saga_id, step FROM effects WHERE present"):
                effects[saga_id].add(step)
        for saga_id, order in started.items():
            status, present = sagas.get(saga_id), effects[saga_id]
            if status not in ("COMPLETED", "FAILED"):
                findings.stuck.append(Finding(saga_id, f"{status} ({order.failing})"))
            elif status == "COMPLETED" and present != set(STEPS):
                findings.lost.append(Finding(saga_id, f"COMPLETED with {sorted(present)} in the ledger"))
            elif status == "FAILED" and present:
                findings.lost.append(
                    Finding(saga_id, f"FAILED, and {sorted(present)} were not undone ({order.failing})")
                )
            elif (status == "COMPLETED") != must_complete(order):
                findings.wrong.append(Finding(saga_id, f"{status} ({order.failing})"))
            findings.doubled += [
                Finding(saga_id, f"{step} has {count} results of {action}")
                for (step, action), count in results[saga_id].items()
                if count > 1
            ]
        return findings

    def close(self) -> None:
        return


def _peers(failing: dict[str, str]) -> dict[str, str]:
    """Return the order without failures that python-cqrs cannot handle: attempts that the engine retries."""
    return {step: how for step, how in failing.items() if how not in ("flaky", "undo")}


def main() -> int:
    """Run the faults on both, and print the results side by side; fail only if ours lost an effect."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=0.0, help="of faults; default: each fault once")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--report", type=Path, default=Path("faults-baseline-report.json"))
    options = parser.parse_args()
    console = Console(width=140)
    profile = replace(LONG, minutes=options.minutes) if options.minutes else SHORT
    reports: dict[str, dict[str, object]] = {}
    for name, system in (("celery-sagas", OurSystem), ("python-cqrs", PythonCqrs)):
        console.print(f"-- {name}")
        directory = Path(tempfile.mkdtemp(prefix="sagas-faults-baseline-"))
        _, reports[name] = run(profile, options.seed, directory, console, system=system)
    options.report.write_text(json.dumps(reports, indent=2))
    table = Table(title=f"the same shop, the same faults, seed {options.seed}")
    table.add_column("sagas that")
    for name in reports:
        table.add_column(name, justify="right")
    for row, key in (
        ("were started", "sagas"),
        ("lost an effect, or left one that should be undone", "lost"),
        ("have a result twice", "doubled"),
        ("never ended", "stuck"),
        ("ended otherwise than they must", "wrong"),
    ):
        table.add_row(row, *(_count(report[key]) for report in reports.values()))
    console.print(table)
    return 1 if any(reports["celery-sagas"][kind] for kind in ("lost", "doubled", "stuck", "wrong")) else 0


def _count(value: object) -> str:
    return str(len(value) if isinstance(value, list) else value)


if __name__ == "__main__":
    enter_own_network()
    raise SystemExit(main())

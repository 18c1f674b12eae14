"""Reads the sagas, their logs and the ledger when the faults have stopped, and says what does not add up."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple
from uuid import UUID

import psycopg

from tests.faults.shop import FaultyOrder, Order, must_complete

STEPS = [step.name for step in FaultyOrder.steps]


class Finding(NamedTuple):
    """What does not add up about one saga."""

    saga_id: UUID
    what: str

    def __str__(self) -> str:
        return f"{self.saga_id}: {self.what}"


@dataclass
class Findings:
    """What was lost, doubled, left stuck or otherwise wrong."""

    lost: list[Finding] = field(default_factory=list)
    doubled: list[Finding] = field(default_factory=list)
    stuck: list[Finding] = field(default_factory=list)
    wrong: list[Finding] = field(default_factory=list)

    def all(self) -> list[Finding]:
        """Every one."""
        return self.lost + self.doubled + self.stuck + self.wrong


def check(
    database_url: str,
    ledger_url: str,
    started: dict[UUID, Order],
    undisturbed: set[UUID],
    *,
    max_attempts: int,
) -> Findings:
    """Compare what was started with what became of it.

    Args:
        database_url, ledger_url: libpq's URLs.
        started: every saga and what was to happen to it.
        undisturbed: those that finished before the first fault: nothing of them may have been recovered.
        max_attempts: failed attempts after which the poison must be dead.
    """
    findings = Findings()
    with psycopg.connect(database_url) as connection:
        sagas = {
            row[0]: row[1:]
            for row in connection.execute(
                "SELECT id, status, version, recovery_attempts, context::text, last_error, lease_owner "
                "FROM saga_executions"
            )
        }
        logs = defaultdict(list)
        for row in connection.execute(
            "SELECT saga_id, step_name, action, status, version, worker FROM saga_logs ORDER BY id"
        ):
            logs[row[0]].append(row[1:])
    with psycopg.connect(ledger_url) as connection:
        effects = defaultdict(dict)
        for saga_id, step, present, results in connection.execute(
            "SELECT saga_id, step, present, results FROM effects"
        ):
            effects[saga_id][step] = present
            if results > 1:
                findings.doubled.append(Finding(saga_id, f"{step} had its effect {results} times"))

    for saga_id, order in started.items():
        if saga_id not in sagas:
            findings.lost.append(Finding(saga_id, "it was started, and is not in the database"))
            continue
        status, version, attempts, context, last_error, owner = sagas[saga_id]
        present = [step for step in STEPS if effects[saga_id].get(step)]
        if "poison" in order.failing.values():
            if (status, attempts) != ("FAILED", max_attempts):
                findings.wrong.append(
                    Finding(saga_id, f"the poison is {status} after {attempts} attempts ({last_error})")
                )
            continue
        expected = "COMPLETED" if must_complete(order) else "COMPENSATED"
        if status not in ("COMPLETED", "COMPENSATED"):
            findings.stuck.append(Finding(saga_id, f"{status}, {attempts} attempts, held by {owner}: {last_error}"))
        elif status != expected:
            findings.wrong.append(Finding(saga_id, f"{status} instead of {expected} ({order.failing}; {last_error})"))
        elif status == "COMPLETED" and (present != STEPS or json.loads(context)["done"] != STEPS):
            findings.lost.append(Finding(saga_id, f"COMPLETED with {present} in the ledger and {context}"))
        elif status == "COMPENSATED" and present:
            findings.lost.append(Finding(saga_id, f"COMPENSATED, and {present} were not undone"))
        if saga_id in undisturbed and version != 1:
            findings.wrong.append(
                Finding(saga_id, f"recovered although nothing had happened to it (version {version})")
            )
        _check_log(saga_id, logs[saga_id], findings)
    for saga_id in sagas.keys() - started.keys():
        findings.wrong.append(Finding(saga_id, "nobody started it"))
    return findings


def _check_log(saga_id: UUID, log: list[tuple[str, str, str, int, str]], findings: Findings) -> None:
    versions = [version for _, _, _, version, _ in log]
    if any(later < earlier for earlier, later in pairwise(versions)):
        findings.doubled.append(Finding(saga_id, f"a holder of an older version wrote after a newer one ({versions})"))
    holders = defaultdict(set)
    for _, _, _, version, worker in log:
        holders[version].add(worker)
    findings.doubled += [
        Finding(saga_id, f"version {version} was written by {sorted(workers)}")
        for version, workers in holders.items()
        if len(workers) > 1
    ]
    results = Counter((step, action) for step, action, status, _, _ in log if status == "completed")
    findings.doubled += [
        f"{saga_id}: {step} has {count} results of {action}" for (step, action), count in results.items() if count > 1
    ]

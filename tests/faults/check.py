"""Check the sagas, their logs and the ledger after the faults have stopped, and report inconsistencies."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, NamedTuple
from uuid import UUID

import psycopg

from tests.faults.shop import FaultyOrder, Order, Post, must_complete

#: All steps, and those whose effects are in the ledger, which a peer's saga has too.
ALL_STEPS = [step.name for step in FaultyOrder.steps]
STEPS = [name for name in ALL_STEPS if name != Post.name]


class Finding(NamedTuple):
    """An inconsistency of one saga."""

    saga_id: UUID
    what: str

    def __str__(self) -> str:
        return f"{self.saga_id}: {self.what}"


@dataclass
class Findings:
    """All effects that were lost or doubled, and all sagas that are stuck or wrong."""

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
    """Compare the started sagas with their results.

    Args:
        database_url, ledger_url: libpq's URLs.
        started: every saga and its expected result.
        undisturbed: sagas that finished before the first fault; none of them may have been recovered.
        max_attempts: number of failed attempts after which a poison saga must be dead.
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
        logs: dict[UUID, list[Row]] = defaultdict(list)
        for saga_id, *row in connection.execute(
            "SELECT saga_id, step_name, action, status, version, worker, details->>'by' FROM saga_logs ORDER BY id"
        ):
            logs[saga_id].append(Row(*row))
        posted = _check_books(connection, findings)
    with psycopg.connect(ledger_url) as connection:
        effects = defaultdict(dict)
        for saga_id, step, present, results in connection.execute(
            # Group by step and not by key: attempts under different keys are one effect, which may happen once.
            "SELECT saga_id, step, bool_or(present), sum(results) FROM effects GROUP BY saga_id, step"
        ):
            effects[saga_id][step] = present
            if results > 1:
                findings.doubled.append(Finding(saga_id, f"{step} had its effect {results} times"))
    for saga_id, is_posted in posted.items():
        effects[saga_id][Post.name] = is_posted

    for saga_id, order in started.items():
        if saga_id not in sagas:
            findings.lost.append(Finding(saga_id, "it was started, and is not in the database"))
            continue
        status, version, attempts, context, last_error, owner = sagas[saga_id]
        decided = Decided.of(logs[saga_id])
        theirs = ALL_STEPS if decided.resolved else decided.skipped
        codes = [step for step in ALL_STEPS if step not in theirs]
        present = [step for step in codes if effects[saga_id].get(step)]
        if "poison" in order.failing.values():
            if (status, attempts) != ("FAILED", max_attempts):
                findings.wrong.append(
                    Finding(saga_id, f"the poison is {status} after {attempts} attempts ({last_error})")
                )
            continue
        forward = must_complete(order) and not decided.turned_back
        expected = decided.resolved or ("COMPLETED" if forward else "COMPENSATED")
        if status not in ("COMPLETED", "COMPENSATED"):
            findings.stuck.append(Finding(saga_id, f"{status}, {attempts} attempts, held by {owner}: {last_error}"))
        elif status != expected:
            findings.wrong.append(Finding(saga_id, f"{status} instead of {expected} ({order.failing}; {last_error})"))
        elif status == "COMPLETED" and (present != codes or json.loads(context)["done"] != codes):
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


def _check_books(connection: psycopg.Connection[Any], findings: Findings) -> dict[UUID, bool]:
    """Return for each saga whether its posting stands; the books have no keys, so they show each repetition."""
    posted = {}
    for saga_id, acts, undos in connection.execute(
        "SELECT saga_id, count(*) FILTER (WHERE amount > 0), count(*) FILTER (WHERE amount < 0) FROM postings "
        "GROUP BY saga_id"
    ):
        posted[saga_id] = acts > undos
        if acts > 1 or undos > acts:
            findings.doubled.append(Finding(saga_id, f"posted {acts} times and undone {undos} times"))
    for account, balance, total in connection.execute(
        "SELECT account, balance, COALESCE(sum(amount), 0) FROM balances LEFT JOIN postings USING (account) "
        "GROUP BY account, balance HAVING balance <> COALESCE(sum(amount), 0)"
    ):
        findings.wrong.append(Finding(UUID(int=account), f"account {account} has {balance}, and postings of {total}"))
    return posted


class Row(NamedTuple):
    """A row of a saga's log."""

    step: str
    action: str
    status: str
    version: int
    worker: str
    by: str | None


class Decided(NamedTuple):
    """The operators' decisions about a saga, from its log."""

    turned_back: bool
    skipped: set[str]
    resolved: str | None

    @classmethod
    def of(cls, log: list[Row]) -> Decided:
        """Read the decisions from the log."""
        rows = [row for row in log if row.by is not None]
        resolved = [row.step.removeprefix("resolve as ").upper() for row in rows if row.step.startswith("resolve as ")]
        return cls(
            turned_back=any(row.status == "failed" for row in rows),
            skipped={row.step for row in rows if row.status == "skipped"},
            resolved=resolved[-1] if resolved else None,
        )


def _check_operators(saga_id: UUID, log: list[Row], findings: Findings) -> None:
    """Make sure that an operator's decision holds: code did nothing that it forbids afterwards."""
    for place, row in enumerate(log):
        later = [other for other in log[place + 1 :] if other.by is None]
        if row.step.startswith("resolve as ") and log[place + 1 :]:
            findings.wrong.append(Finding(saga_id, f"it went on after it was resolved ({log[place + 1 :]})"))
        if row.by and row.status == "skipped" and any(other.step == row.step for other in later):
            findings.wrong.append(Finding(saga_id, f"code did {row.step}, which had been skipped"))
        if row.by and row.status == "failed" and any(other.action == "act" for other in later):
            findings.wrong.append(Finding(saga_id, f"it ran forward after {row.by} had turned it back"))


def _check_log(saga_id: UUID, log: list[Row], findings: Findings) -> None:
    _check_operators(saga_id, log, findings)
    versions = [row.version for row in log]
    if any(later < earlier for earlier, later in pairwise(versions)):
        findings.doubled.append(Finding(saga_id, f"a holder of an older version wrote after a newer one ({versions})"))
    holders = defaultdict(set)
    for row in log:
        holders[row.version].add(row.worker)
    findings.doubled += [
        Finding(saga_id, f"version {version} was written by {sorted(workers)}")
        for version, workers in holders.items()
        if len(workers) > 1
    ]
    ends = ("completed", "skipped")
    results = Counter((row.step, row.action) for row in log if row.status in ends and row.action != "operator")
    findings.doubled += [
        Finding(saga_id, f"{step} has {count} results of {action}")
        for (step, action), count in results.items()
        if count > 1
    ]

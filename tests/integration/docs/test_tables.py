"""The tables that the documentation has are those that the code has."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import pytest

from sagas import ISagaStorage, Settings, execution
from sagas.celery import worker
from sagas.definition import PATIENT
from sagas.execution import declining
from sagas.storage.lost_messages import OVERTAKING_SECONDS
from sagas.storage.tables import metadata
from sagas.storage.transitions import MOST_PROBE_SECONDS, PROBE_SECONDS
from tests.integration.docs.pages import DOCS

RECOVERY = DOCS / "recovery.md"
STORAGE = DOCS / "storage.md"


def test_the_timing_table_is_what_the_code_has() -> None:
    shortest_decline, longest_decline = declining.SECONDS
    settings = Settings()
    seconds = {
        "a lease": settings.lease_seconds,
        "between renewals": settings.lease_seconds / 3,
        "between scans": settings.scan_interval_seconds,
        "by which one message may overtake another": OVERTAKING_SECONDS,
        "before the first probe for a lost message": PROBE_SECONDS,
        "the longest wait between two such probes": MOST_PROBE_SECONDS,
        "between a worker's looks at its children": worker._WATCH_SECONDS,
        "the longest retry that is waited for in place": execution.IN_PLACE_SECONDS,
        "the longest wait before a compensation, or a step past the pivot, is tried again": PATIENT.max_delay,
        "backoff after the first failed attempt": settings.backoff_seconds,
        "the longest backoff": settings.max_backoff_seconds,
        "the shortest wait after a decline": shortest_decline,
        "the longest wait after a decline": longest_decline,
    }
    shown = {row[0]: float(row[1]) for row in _table(RECOVERY, "what", "seconds", "set by")}
    assert shown == seconds


def test_the_outcomes_are_those_that_the_code_has() -> None:
    shown = [row[0].strip("`") for row in _table(RECOVERY, "outcome", "meaning")]
    assert shown == list(execution.Outcome)


@pytest.mark.parametrize(
    ("table", "header"),
    [("saga_executions", "| `id` | `uuid` |"), ("saga_logs", "| `id` | `bigint` |")],
    ids=["saga_executions", "saga_logs"],
)
def test_the_columns_are_those_of_the_tables(table: str, header: str) -> None:
    rows = STORAGE.read_text().partition(header)[2].partition("\n\n")[0]
    shown = ["id", *re.findall(r"^\| `(\w+)` \|", rows, re.MULTILINE)]
    assert shown == [column.name for column in metadata.tables[table].columns]


def test_every_index_is_explained() -> None:
    text = STORAGE.read_text()
    for table in metadata.tables.values():
        for index in table.indexes:
            assert f"`{index.name}`" in text


def test_every_method_of_the_contract_is_described_with_its_signature() -> None:
    shown = re.findall(r"^#### `(\w+)\((.*)\)`$", STORAGE.read_text(), re.MULTILINE)
    contract = []
    for name in chain.from_iterable(map(vars, (*ISagaStorage.__bases__, ISagaStorage))):
        if name in ISagaStorage.__abstractmethods__:
            signature = inspect.signature(getattr(ISagaStorage, name))
            parameters = [p.replace(annotation=p.empty) for p in signature.parameters.values() if p.name != "self"]
            contract.append((name, str(inspect.Signature(parameters)).strip("()")))
    assert shown == contract


def _table(document: Path, *header: str) -> Iterator[list[str]]:
    rows = document.read_text().partition(f"| {' | '.join(header)} |\n")[2].partition("\n\n")[0]
    for row in rows.splitlines()[1:]:
        yield [cell.strip() for cell in row.strip("|").split("|")]

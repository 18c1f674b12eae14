"""`sagas workers`: who holds what, for readers and for programs."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime
from typing import Any
from uuid import UUID

from sagas import PostgresSagaStorage
from tests.integration.cli.conftest import Command, labels


def test_each_owner_is_told_with_what_it_holds_and_when_it_was_heard_of(
    sagas: Command, new: Callable[..., UUID], storage: PostgresSagaStorage, sql: Callable[..., Any]
) -> None:
    first = new("w/1.5")
    new("w/1.5", name="parcel"), new("w/2.5", -5), new(queued=True), new(name="parked")
    sql("UPDATE saga_executions SET updated_at = now() - interval '5 minutes 5 seconds' WHERE id = :id", id=first)
    sql("UPDATE saga_executions SET available_at = now() - interval '1 second' WHERE state = 'queued'")
    storage.pause("parked", actor="ann@ops", reason="a strike")

    result, data = sagas("workers"), json.loads(sagas("workers", "--json").stdout)

    one, two = (line.split() for line in result.stdout.splitlines()[1:3])
    assert (one[:3], one[-2:]) == (["w/1.5", "2", "0"], ["parcel,", "place-order"])
    assert one[-5:-2] == ["5", "min", "ago"]
    assert (two[:3], two[-1]) == (["w/2.5", "1", "1"], "place-order")
    told = labels(result.stdout)
    assert told["queue"].startswith("1 that never ran, the first since ")
    assert told["queue"].endswith("; 1 for longer than a scan leaves them unquestioned")
    assert told["paused"].startswith("parked, 1 paused, by ann@ops since ")
    assert [(w["owner"], w["sagas"], w["expired"]) for w in data["workers"]] == [("w/1.5", 2, 0), ("w/2.5", 1, 1)]
    ages = [datetime.fromisoformat(data["workers"][0][name]) for name in ("quietest_since", "heard_at")]
    assert ages[0] < ages[1] < datetime.fromisoformat(data["workers"][0]["first_lease_ends"])
    assert [(q["pending"], q["sagas"], q["overdue"]) for q in data["queue"]] == [(True, 1, 1)]
    assert [(p["name"], p["paused"]) for p in data["paused"]] == [("parked", 1)]


def test_nobody_holding_anything_is_said(sagas: Command) -> None:
    result = sagas("workers")

    assert result.stdout == "no worker holds a saga\n\nqueue       empty\n"
    assert json.loads(sagas("workers", "--json").stdout)["workers"] == []

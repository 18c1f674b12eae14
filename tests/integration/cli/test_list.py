"""`sagas list`: which sagas, in which order, and how they look."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from sagas import PostgresSagaStorage, SagaEngine
from sagas.ids import new_saga_id
from sagas.storage.leases import LeaseRequest
from sagas.storage.records import NewSaga
from tests.integration.cli.conftest import Command
from tests.integration.cli.shop import Order, PlaceOrder

Ordered = Callable[[str], UUID]


def shown_ids(output: str) -> list[str]:
    return [line.split()[0] for line in output.splitlines()[1:]]


def test_a_listing_shows_the_newest_first_with_how_each_stands(
    sagas: Command, ordered: Ordered, engine: SagaEngine, sql: Callable[..., Any]
) -> None:
    done, dead = ordered("tea"), ordered("stuck")
    pending = engine.start(PlaceOrder, Order("milk"))
    sql("UPDATE saga_executions SET created_at = now() - interval '3 hours', updated_at = '2026-11-22 20:38:05+01'")

    header, *rows = sagas("list").stdout.splitlines()

    assert header.split("  ")[0] == "ID"
    assert [row.split() for row in rows] == [
        [str(pending), "place-order", "PENDING", "0", "3", "h", "2026-11-22", "19:38:05", "due"],
        [str(dead), "place-order", "FAILED", "1", "3", "h", "2026-11-22", "19:38:05", "dead"],
        [str(done), "place-order", "COMPLETED", "0", "3", "h", "2026-11-22", "19:38:05"],
    ]


def test_a_name_that_no_saga_has_is_told_and_is_no_success(sagas: Command, ordered: Ordered) -> None:
    ordered("tea")

    unknown, none = sagas("list", "--name", "plase-order"), sagas("list", "--name", "place-order", "--dead")

    assert unknown.stderr == (
        "no sagas match.\nwarning: no saga is named 'plase-order' here, in the code or in the database. "
        "Names are: place-order.\n"
    )
    assert (unknown.exit_code, none.stderr, none.exit_code) == (1, "no sagas match.\n", 0)
    assert json.loads(sagas("list", "--name", "plase-order", "--json").stdout) == []


def test_statuses_names_and_death_narrow_the_listing(sagas: Command, ordered: Ordered, sql: Callable[..., Any]) -> None:
    done, undone, dead, other = map(ordered, ("tea", "unpaid", "stuck", "tea"))
    sql("UPDATE saga_executions SET name = 'other' WHERE id = :id", id=other)

    assert shown_ids(sagas("list", "--status", "COMPENSATED", "--status", "failed").stdout) == [str(dead), str(undone)]
    assert shown_ids(sagas("list", "--name", "other").stdout) == [str(other)]
    assert shown_ids(sagas("list", "--dead").stdout) == [str(dead)]
    assert shown_ids(sagas("list", "--status", "completed", "--name", "place-order").stdout) == [str(done)]


def test_a_limit_shows_so_many_of_the_newest_and_says_that_there_are_more(sagas: Command, ordered: Ordered) -> None:
    _, second, third = map(ordered, ("tea", "milk", "salt"))

    limited, whole = sagas("list", "--limit", "2"), sagas("list", "--limit", "3")

    assert shown_ids(limited.stdout) == [str(third), str(second)]
    assert limited.stderr == f"there are more; the next page: sagas list --limit 2 --after {second}\n"
    assert whole.stderr == ""


def test_the_command_for_the_next_page_repeats_what_was_asked_and_leads_through_all(
    sagas: Command, ordered: Ordered
) -> None:
    started = sorted((ordered("tea") for _ in range(3)), reverse=True)
    options = ["--status", "COMPLETED", "--name", "place-order", "--newer-than", "2h", "--limit", "1", "--json"]
    command, seen = ["list", *options], []

    while True:
        result = sagas(*command)
        seen += [saga["id"] for saga in json.loads(result.stdout)]
        if not result.stderr:
            break
        told = result.stderr.removeprefix("there are more; the next page: ")
        program, *command = shlex.split(told)
        assert program == "sagas"
        assert "--status COMPLETED --name place-order --newer-than 7200s --limit 1 --after" in told

    assert seen == [str(saga_id) for saga_id in started]


def test_ages_and_holders_narrow_the_listing(
    sagas: Command, ordered: Ordered, storage: PostgresSagaStorage, sql: Callable[..., Any]
) -> None:
    old, new = ordered("tea"), ordered("tea")
    sql("UPDATE saga_executions SET created_at = now() - interval '50 minutes' WHERE id = :id", id=old)
    held = NewSaga(id=new_saga_id(), name="place-order", context="{}")
    storage.create_sagas([held], lease=LeaseRequest(owner="w@shop/1.2", seconds=600))

    assert shown_ids(sagas("list", "--older-than", "40m").stdout) == [str(old)]
    assert set(shown_ids(sagas("list", "--newer-than", "0.5h").stdout)) == {str(new), str(held.id)}
    assert shown_ids(sagas("list", "--leased-by", "w@shop").stdout) == [str(held.id)]
    assert sagas("list", "--leased-by", "w@shop/1").stdout == ""


def test_json_lists_every_field_but_contexts_and_logs(sagas: Command, ordered: Ordered) -> None:
    dead = ordered("stuck")

    (saga,) = json.loads(sagas("list", "--json").stdout)

    assert (saga["id"], saga["name"], saga["status"]) == (str(dead), "place-order", "FAILED")
    assert (saga["dead"], saga["recovery_attempts"], saga["available_at"]) == (True, 1, None)
    assert saga["last_error"].startswith("reserve, compensate, attempt 1: RuntimeError")
    assert datetime.fromisoformat(saga["created_at"]).tzinfo == UTC
    assert saga.keys() >= {"version", "lease_owner", "idempotency_key", "state", "updated_at", "finished_at"}
    assert not saga.keys() & {"context", "log"}


def test_an_empty_listing_is_empty_for_programs_and_a_word_for_humans(sagas: Command) -> None:
    assert json.loads(sagas("list", "--json").stdout) == []
    result = sagas("list")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "no sagas match.\n")


def test_states_keys_tags_and_times_narrow_the_listing(
    sagas: Command, ordered: Ordered, engine: SagaEngine, storage: PostgresSagaStorage, sql: Callable[..., Any]
) -> None:
    done = ordered("tea")
    sql("UPDATE saga_executions SET created_at = now() - interval '50 minutes' WHERE id = :id", id=done)
    pending = engine.start(PlaceOrder, Order("milk"), idempotency_key="order-7")
    began = storage.load(pending).created_at
    tagged = NewSaga(id=new_saga_id(), name="parcel", context="{}", tags={"customer": "c=7", "shop": "Oslo 1"})
    storage.create_sagas([tagged], queued=True)

    for options, found in (
        (["--state", "ready"], {pending}),
        (["--state", "QUEUED", "--state", "ready"], {tagged.id, pending}),
        (["--state", "ready", "--dead"], {pending}),
        (["--key", "order-7"], {pending}),
        (["--tag", "customer=c=7", "--tag", "shop=Oslo 1"], {tagged.id}),
        (["--tag", "customer=c"], set()),
        (["--since", began.isoformat()], {tagged.id, pending}),
        (["--until", f"{began.astimezone(UTC):%Y-%m-%d %H:%M:%S.%f}"], {done}),
        (["--since", "2020-01-01", "--until", "2020-01-02"], set()),
        (["--since", "2020-01-01", "--newer-than", "40m"], {tagged.id, pending}),
    ):
        assert set(shown_ids(sagas("list", *options).stdout)) == {str(saga_id) for saga_id in found}, options


def test_what_is_no_tag_and_no_time_is_refused(sagas: Command) -> None:
    for options, sentence in (
        (["--tag", "customer"], "'customer' is no tag and its value: write them as customer=c-7."),
        (["--tag", "=c-7"], "'=c-7' is no tag and its value"),
        (["--since", "yesterday"], "'yesterday' is no time: write it as 2026-11-26"),
    ):
        refused = sagas("list", *options)
        assert refused.exit_code == 2
        assert sentence in " ".join(refused.stderr.split())


def test_the_next_page_repeats_states_keys_tags_and_times(sagas: Command, storage: PostgresSagaStorage) -> None:
    new = [
        NewSaga(id=new_saga_id(), name=name, context="{}", idempotency_key="k 1", tags={"a": "b c"}) for name in "xy"
    ]
    storage.create_sagas(new, queued=True)
    options = ["--state", "queued", "--tag", "a=b c", "--key", "k 1", "--since", "2020-01-01T00:00:00+00:00"]

    first = sagas("list", *options, "--limit", "1", "--json")
    told = shlex.split(first.stderr.removeprefix("there are more; the next page: "))

    assert told == ["sagas", "list", *options, "--limit", "1", "--after", str(new[1].id), "--json"]
    assert [saga["id"] for saga in json.loads(sagas(*told[1:]).stdout)] == [str(new[0].id)]


def test_tags_and_deadlines_have_columns_where_a_saga_has_them(
    sagas: Command, storage: PostgresSagaStorage, sql: Callable[..., Any]
) -> None:
    storage.create_sagas([NewSaga(id=new_saga_id(), name="parcel", context="{}")])
    assert sagas("list").stdout.splitlines()[0].split()[-5:] == ["HELD", "BY", "/", "WAITS", "UNTIL"]
    new = NewSaga(
        id=new_saga_id(), name="parcel", context="{}", tags={"shop": "1", "customer": "c-7"}, deadline_seconds=60
    )
    storage.create_sagas([new])
    sql("UPDATE saga_executions SET deadline_at = '2026-11-22 20:38:05+01' WHERE id = :id", id=new.id)

    header, tagged, plain = sagas("list").stdout.splitlines()
    shown = sagas("show", str(new.id)).stdout.splitlines()
    (data, _) = json.loads(sagas("list", "--json").stdout)

    assert header.split()[-3:] == ["DEADLINE", "(UTC)", "TAGS"]
    assert tagged.endswith("2026-11-22 19:38:05  customer=c-7 shop=1")
    assert plain.split()[-2:] == ["-", "-"]
    assert {"tags        customer=c-7 shop=1"} < set(shown)
    assert any(line.startswith("deadline    2026-11-22 19:38:05 (") for line in shown)
    assert (data["tags"], data["deadline_at"]) == ({"shop": "1", "customer": "c-7"}, "2026-11-22T19:38:05Z")

"""What is told of unfinished sagas that the code does not fit."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Any

import pytest

from sagas import PostgresSagaStorage
from sagas.definition import AnySaga
from sagas.doctor import Installation
from sagas.doctor.definitions import DEFINITIONS
from sagas.ids import new_saga_id
from sagas.storage.XXX import QUEUE
from sagas.storage.records import NewSaga
from tests.integration.doctor.conftest import found_by
from tests.samples import Stage

Installed = Callable[..., Installation]


@pytest.fixture
def stage() -> Stage:
    return Stage()


@pytest.fixture
def store(storage: PostgresSagaStorage) -> Callable[..., None]:
    """Stores so many sagas that were started with a class."""

    def start(saga: AnySaga, count: int = 1, owner: str | None = None) -> None:
        new = [
            NewSaga(id=new_saga_id(), name=saga.name, context="{}", definition_version=saga.definition_version)
            for _ in range(count)
        ]
        storage.create_sagas(new, owner=owner, for_seconds=60)

    return start


def test_sagas_that_fit_are_counted(stage: Stage, store: Callable[..., None], installation: Installed) -> None:
    saga = stage.saga("hotel", "flight")
    store(saga, 2)
    store(saga, 3, owner="worker-1")
    store(saga, 4, owner=QUEUE)
    assert [*DEFINITIONS.run(installation(sagas=[saga]))] == ["9 unfinished, 1 definition"]


def test_a_name_that_no_code_knows_is_told(stage: Stage, store: Callable[..., None], installation: Installed) -> None:
    store(stage.saga("hotel", name="old-trip"), 3)
    (finding,) = found_by(DEFINITIONS, installation(sagas=[stage.saga("hotel")])).values()
    assert finding.id == "saga-unknown"
    assert finding.what.startswith("3 unfinished sagas named 'old-trip': no saga named 'old-trip' is known here")
    assert "list 'old-trip' in the `aliases`" in finding.cure
    assert not found_by(DEFINITIONS, installation(sagas=[stage.saga("hotel", aliases=["old-trip"])]))


def test_a_version_that_no_class_continues_is_told(
    stage: Stage, store: Callable[..., None], installation: Installed
) -> None:
    store(stage.saga("hotel"))
    (finding,) = found_by(DEFINITIONS, installation(sagas=[stage.saga("hotel", version=2)])).values()
    assert finding.id == "saga-version-unknown"
    assert "list 1 in `continues`" in finding.cure
    assert not found_by(DEFINITIONS, installation(sagas=[stage.saga("hotel", version=2, continues=[1])]))


def test_a_definition_changed_under_running_sagas_is_told_once_for_all_that_it_concerns(
    stage: Stage, store: Callable[..., None], installation: Installed
) -> None:
    store(stage.saga("hotel", "flight"), 2)
    store(stage.saga("hotel", "car"))
    store(stage.saga("flight"), 4)
    (finding,) = found_by(DEFINITIONS, installation(sagas=[stage.saga("flight", "car")])).values()
    assert finding.id == "definition-changed"
    assert finding.what.startswith("3 unfinished sagas named 'trip': step 1 of the 2 that this saga was started with")
    assert "`aliases`" in finding.cure


def test_sagas_that_workers_decline_are_told_with_their_reason(
    stage: Stage, store: Callable[..., None], installation: Installed, sql: Callable[..., Any]
) -> None:
    saga = stage.saga("hotel")
    store(saga, 2)
    store(saga, owner="worker-1")
    sql("UPDATE saga_executions SET last_error = 'declined: the context does not validate'")
    (finding,) = found_by(DEFINITIONS, installation(sagas=[saga])).values()
    assert finding.id == "sagas-declined"
    # The one that a worker holds has found its code.
    assert finding.what == "2 unfinished sagas named 'trip': declined: the context does not validate"


def test_the_finished_are_not_read_however_many_they_are(installation: Installed, sql: Callable[..., Any]) -> None:
    sql(
        "INSERT INTO saga_executions (id, name, context, status, available_at, finished_at) "
        "SELECT gen_random_uuid(), 'old-' || n, '{}', 'COMPLETED', 'infinity', now() FROM generate_series(1, 5000) n"
    )
    name = f"lost-{secrets.token_hex(4)}"
    sql("INSERT INTO saga_executions (id, name, context) VALUES (gen_random_uuid(), :name, '{}')", name=name)
    (finding,) = found_by(DEFINITIONS, installation()).values()
    assert repr(name) in finding.what

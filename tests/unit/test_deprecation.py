"""Names of version 0.1.0 still work, and say what to import instead."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa

import sagas
from sagas import storage
from sagas.storage import contract, errors, records
from tests.samples import Trip, saga_of

URL = "postgresql+psycopg://user@127.0.0.1:1/shop"


@pytest.mark.parametrize("module", [sagas, storage])
@pytest.mark.parametrize("database", [str, sa.create_engine], ids=["a URL", "an engine"])
def test_former_storage_class_is_the_new_one(module: Any, database: Callable[[str], Any]) -> None:
    with pytest.warns(DeprecationWarning, match=rf"import {module.__name__}.PostgresSagaStorage instead") as warned:
        former = module.SqlAlchemySagaStorage

    assert former is sagas.PostgresSagaStorage
    assert isinstance(former(database(URL)), sagas.ISagaStorage)
    assert {warning.filename for warning in warned} == {__file__}


def test_former_module_of_the_storage_contract_has_what_kept_its_meaning() -> None:
    base = importlib.import_module("sagas.storage.base")
    for name, home in {
        "ISagaStorage": contract,
        "not_found": errors,
        "NewSaga": records,
        "OnConflict": records,
    }.items():
        with pytest.warns(DeprecationWarning, match=rf"import {home.__name__}.{name} instead"):
            assert getattr(base, name) is getattr(home, name)


@pytest.mark.parametrize(
    ("module", "name"), [("sagas", "Hold"), ("sagas.storage", "Hold"), ("sagas.storage.base", "Hold")]
)
def test_what_is_gone_is_told_as_by_any_module(module: str, name: str) -> None:
    with pytest.raises(AttributeError, match=rf"module '{module}' has no attribute '{name}'"):
        getattr(importlib.import_module(module), name)


def test_former_name_of_the_events_of_a_report_has_them() -> None:
    class Nothing(sagas.Step[Trip]):
        def act(self, context: Trip, call: sagas.Call) -> None:
            pass

    report = sagas.SagaEngine(sagas.MemorySagaStorage()).run(saga_of([Nothing]), Trip())

    with pytest.warns(DeprecationWarning, match=r"Report\.did is now called Report\.events"):
        former = report.did
    assert former == report.events == ("nothing: acted",)


def test_new_names_warn_of_nothing() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name in sagas.__all__:
            assert getattr(sagas, name)

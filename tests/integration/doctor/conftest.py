"""Checks, each run by itself on an installation that a test has made."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest
import sqlalchemy as sa

from sagas import Settings
from sagas.definition import AnySaga
from sagas.doctor import Check, Finding, Installation
from sagas.registry import Registry


def findings_of(check: Check, installation: Installation) -> list[Finding]:
    """Run a check and return its findings, all of which it must have declared."""
    findings = [each for each in check.run(installation) if isinstance(each, Finding)]
    assert {each.id for each in findings} <= {each.id for each in check.findings}
    return findings


def found_by(check: Check, installation: Installation) -> dict[str, Finding]:
    """Run a check and return its findings by id."""
    return {each.id: each for each in findings_of(check, installation)}


@pytest.fixture
def installation(database_url: str) -> Callable[..., Installation]:
    """Makes an installation of these settings and sagas, on the test's database unless another is given."""

    def make(*, sagas: Iterable[AnySaga] = (), **settings: Any) -> Installation:
        settings.setdefault("database_url", database_url)
        return Installation({}, settings=Settings(**settings), registry=Registry(sagas))

    return make


@pytest.fixture
def sql(database_url: str) -> Iterator[Callable[..., Any]]:
    """Executes a statement in the test's database."""
    engine = sa.create_engine(database_url, isolation_level="AUTOCOMMIT")

    def execute(statement: str, **parameters: Any) -> None:
        with engine.connect() as connection:
            connection.execute(sa.text(statement), parameters)

    yield execute
    engine.dispose()

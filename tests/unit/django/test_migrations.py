"""Django's migrations lead where `sagas migrate` leads."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("django")

from sagas.django import migrations
from sagas.storage.schema import HEAD


def test_the_last_migration_of_django_is_the_newest_revision() -> None:
    last = max(path.stem for path in Path(migrations.__path__[0]).glob("0*.py"))
    assert last.endswith(f"_revision_{HEAD}")
    assert f'migration_to("{HEAD}")' in (Path(migrations.__path__[0]) / f"{last}.py").read_text()

"""The list of findings is that of the code, and each one is provoked by a test."""

from __future__ import annotations

import re
from pathlib import Path

from sagas.celery.doctor import CHECKS
from sagas.doctor import every_kind
from sagas.doctor.checks import FOUNDATION, SAGAS


def test_every_check_is_documented_in_order(repository: Path) -> None:
    text = (repository / "docs" / "doctor.md").read_text().partition("| check | asks |\n")[2].partition("\n\n")[0]
    assert re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE) == [check.name for check in (*FOUNDATION, *CHECKS, *SAGAS)]


def test_ids_are_unique() -> None:
    ids = [kind.id for kind in every_kind(CHECKS)]
    assert len(set(ids)) == len(ids)


def test_every_finding_is_provoked_by_a_test(repository: Path) -> None:
    tests = "".join(path.read_text() for path in (repository / "tests").rglob("test_*.py"))
    assert [kind.id for kind in every_kind(CHECKS) if f'"{kind.id}"' not in tests] == []

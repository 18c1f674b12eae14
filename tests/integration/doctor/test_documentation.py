"""docs/doctor.md lists the checks, and a test provokes each finding."""

from __future__ import annotations

import re
from pathlib import Path

from sagas.doctor import every_check, every_finding


def test_every_check_is_documented_in_order(repository: Path) -> None:
    text = (repository / "docs" / "doctor.md").read_text().partition("| check | asks |\n")[2].partition("\n\n")[0]
    assert re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE) == [check.name for check in every_check()]


def test_checks_need_only_earlier_ones() -> None:
    names = [check.name for check in every_check()]
    for place, check in enumerate(every_check()):
        assert set(check.needs) <= set(names[:place])


def test_ids_are_unique() -> None:
    ids = [finding.id for finding in every_finding()]
    assert len(set(ids)) == len(ids)


def test_every_finding_is_provoked_by_a_test(repository: Path) -> None:
    tests = "".join(path.read_text() for path in (repository / "tests").rglob("test_*.py"))
    assert [finding.id for finding in every_finding() if f'"{finding.id}"' not in tests] == []

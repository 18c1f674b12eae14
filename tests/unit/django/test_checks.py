"""Each finding of the doctor's quick checks has an id among Django's checks."""

from __future__ import annotations

import pytest

from sagas.doctor import PROBLEM, every_check
from sagas.doctor.examination import CHECK_FAILED, NO_ANSWER

pytest.importorskip("django")

from sagas.django.checks import IDS, OF_THE_DATABASE, QUICK


def test_every_finding_of_the_quick_checks_has_an_id_of_its_own() -> None:
    checks = [check for check in every_check() if check.name in (*QUICK, *OF_THE_DATABASE)]
    assert {check.name for check in checks} == {*QUICK, *OF_THE_DATABASE}
    findings = {finding.id: finding for check in checks for finding in check.findings}
    assert findings.keys() | {NO_ANSWER.id, CHECK_FAILED.id} == set(IDS)
    assert {findings[name].severity for name, number in IDS.items() if number.startswith("E")} == {PROBLEM}
    assert len(set(IDS.values())) == len(IDS)

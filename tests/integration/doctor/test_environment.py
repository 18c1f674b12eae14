"""What is told of the variables."""

from __future__ import annotations

import pytest

from sagas import Settings
from sagas.doctor import Installation
from sagas.doctor.environment import SETTINGS
from tests.integration.doctor.conftest import Found, found_by


def found_with(**variables: str) -> Found:
    return found_by(SETTINGS, Installation({"PATH": "/bin", **variables}))


def test_the_defaults_are_well() -> None:
    assert not found_with()
    assert not found_with(**{f"SAGAS_{name.upper()}": "" for name in ("result_backend", "resolver", "modules")})


@pytest.mark.parametrize(
    ("variable", "cure"),
    [
        ("SAGAS_LEASE_SECOND", "Write SAGAS_LEASE_SECONDS instead."),
        ("SAGAS_DATABSE_URL", "Write SAGAS_DATABASE_URL instead."),
        ("SAGAS_WORKFLOW_COLOUR", "Take it away; docs/settings.md has those that are."),
    ],
)
def test_a_variable_that_nobody_reads_is_told_with_the_nearest_that_is(variable: str, cure: str) -> None:
    (finding,) = found_with(**{variable: "s3cr3t"}).values()
    assert (finding.id, finding.what, finding.cure) == (
        "setting-unknown",
        f"{variable} is set, and is no setting.",
        cure,
    )


def test_a_value_that_cannot_work_is_told_beside_the_typo() -> None:
    found = found_with(SAGAS_LEASE_SECONDS="soon", SAGAS_LEASE_SECOND="3")
    assert set(found) == {"settings-unusable", "setting-unknown"}
    assert "SAGAS_LEASE_SECONDS (it is 'soon')" in found["settings-unusable"].what


def test_what_was_read_is_what_later_checks_go_by() -> None:
    installation = Installation({"SAGAS_LEASE_SECONDS": "60"})
    assert not found_by(SETTINGS, installation)
    assert installation.settings == Settings(lease_seconds=60)


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"SAGAS_LEASE_SECONDS": "4", "SAGAS_SCAN_INTERVAL_SECONDS": "1"}, "lease-short"),
        ({"SAGAS_LEASE_SECONDS": "3600"}, "lease-long"),
        ({"SAGAS_SCAN_INTERVAL_SECONDS": "45"}, "scan-rarer-than-lease"),
        ({"SAGAS_MAX_RECOVERY_ATTEMPTS": "1"}, "one-attempt"),
        ({"SAGAS_RETENTION_DAYS": "0.5"}, "retention-short"),
    ],
)
def test_values_that_contradict_each_other_are_told(variables: dict[str, str], expected: str) -> None:
    assert set(found_with(**variables)) == {expected}

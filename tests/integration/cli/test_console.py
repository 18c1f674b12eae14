"""`sagas console` refuses what would leave a door open; the pages have tests of their own."""

from __future__ import annotations

import pytest

from tests.integration.cli.conftest import Command


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_a_console_that_others_reach_needs_a_password(sagas: Command, host: str) -> None:
    result = sagas("console", "--host", host)

    assert result.exit_code == 1
    assert f"open to everybody who reaches {host}: set SAGAS_CONSOLE_PASSWORD" in result.stderr


def test_a_short_password_is_refused_and_not_printed(sagas: Command) -> None:
    result = sagas("console", SAGAS_CONSOLE_PASSWORD="pa55")

    assert result.exit_code == 1
    assert "fewer than 12 characters" in result.stderr
    assert "pa55" not in result.stderr

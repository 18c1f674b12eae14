"""Every command that the documentation names exists, with its options."""

from __future__ import annotations

from tests.integration.docs.commands import check_command, commands_in
from tests.integration.docs.pages import DOCUMENTS


def test_every_command_exists() -> None:
    commands = [command for document in DOCUMENTS for command in commands_in(document)]
    assert {words[0] for words in commands} >= {"make", "pip", "sagas", "celery", "docker"}
    for command in commands:
        check_command(command)

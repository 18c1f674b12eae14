"""Every command that the documentation names exists, with its options."""

from __future__ import annotations

from pathlib import Path

from tests.integration.docs.commands import check_command, commands_in
from tests.integration.docs.pages import README, every_document


@every_document
def test_every_command_exists(document: Path) -> None:
    for command in commands_in(document):
        check_command(command)


def test_commands_are_found_in_the_documentation() -> None:
    assert {words[0] for words in commands_in(README)} >= {"make", "pip", "sagas", "celery", "docker"}

"""Completion in a shell: what the shell's own script asks the command, and what it gets."""

from __future__ import annotations

import subprocess
from collections.abc import Callable

import pytest

DEADLINE_SECONDS = 60

Complete = Callable[..., list[str]]


@pytest.fixture
def environment() -> dict[str, str]:
    """No database: completion asks none."""
    return {"SAGAS_DATABASE_URL": "postgresql+psycopg://me:s3cr3t@127.0.0.1:1/shop"}


@pytest.fixture
def complete(spawn: Callable[..., subprocess.Popen[bytes]]) -> Complete:
    """Asks as bash does for what may stand where this line ends."""

    def complete(line: str, **changed: str) -> list[str]:
        words = line.split(" ")
        asked = {"_SAGAS_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1)}
        process = spawn(**asked, **changed)
        out, err = process.communicate(timeout=DEADLINE_SECONDS)
        assert err == b""
        return out.decode().split()

    return complete


def test_commands_statuses_and_names_are_completed(complete: Complete) -> None:
    assert complete("sagas sca") == ["scan"]
    assert sorted(complete("sagas list --status COMPE")) == ["COMPENSATED", "COMPENSATING"]
    assert complete("sagas graph pl") == ["place-order"]
    assert complete("sagas list --name x") == []


@pytest.mark.parametrize("modules", ["no.such.module", "broken,"])
def test_code_that_cannot_be_loaded_completes_nothing_and_says_nothing(complete: Complete, modules: str) -> None:
    assert complete("sagas graph pl", SAGAS_MODULES=modules) == []


def test_the_script_for_a_shell_asks_by_the_commands_own_variable(
    spawn: Callable[..., subprocess.Popen[bytes]],
) -> None:
    process = spawn(_SAGAS_COMPLETE="source_bash")
    out, _ = process.communicate(timeout=DEADLINE_SECONDS)

    assert b"_SAGAS_COMPLETE=complete_bash" in out

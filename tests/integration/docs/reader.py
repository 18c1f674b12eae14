"""Somebody who tries all that a page says, in a directory of their own and on servers of the suite's."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from sagas import PostgresSagaStorage
from sagas.settings import PREFIX
from tests.forking import Forked, run_python
from tests.integration.docs.pages import README, REPOSITORY, Block, blocks

DEADLINE_SECONDS = 150


class Reader:
    """A reader.

    Args:
        directory: where they keep their files; the README's saga is there as `place_order.py`.
        request: gives them servers, which are started only for pages that need them.
    """

    def __init__(self, directory: Path, request: pytest.FixtureRequest) -> None:
        self.directory = directory
        self._request = request
        self.save("place_order", blocks(README, "python")[0])

    def save(self, module: str, block: Block) -> None:
        """Keep a block as a module that other code can import."""
        (self.directory / f"{module}.py").write_text(block.text)

    @property
    def database_url(self) -> str:
        """The URL of a migrated database of the reader's own."""
        return str(self._request.getfixturevalue("database_url"))

    @property
    def storage(self) -> PostgresSagaStorage:
        """The sagas of that database."""
        storage = self._request.getfixturevalue("storage")
        assert isinstance(storage, PostgresSagaStorage)
        return storage

    @property
    def broker_url(self) -> str:
        """The URL of a broker that holds nothing."""
        return str(self._request.getfixturevalue("broker_url"))

    def environment(self, settings: dict[str, str]) -> dict[str, str]:
        """This process's variables without any setting of sagas, and these settings."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
        path = f"{self.directory}{os.pathsep}{REPOSITORY}"
        return {**inherited, "PYTHONPATH": path, **settings}

    def play(self, played: Sequence[Block], **settings: str) -> list[str]:
        """Execute Python blocks in one process, one after the other, and return what each said."""
        given, output, errors = (self.directory / f"player.{name}" for name in ("in", "out", "err"))
        given.write_text(json.dumps([block.text for block in played]))
        output.unlink(missing_ok=True)
        code = Forked(
            "tests.integration.docs.player:main",
            ["player"],
            environment=self.environment(settings),
            directory=self.directory,
            output=output,
            errors=errors,
            given=given,
        ).wait(DEADLINE_SECONDS)
        assert code == 0, errors.read_text()[-3000:]
        return list(json.loads(output.read_text().splitlines()[-1]))

    def run(self, *command: str, **settings: str) -> str:
        """Run a command, which must succeed, and return what it prints."""
        environment = self.environment(settings)
        if command[0] == sys.executable:
            done = run_python(*command[1:], environment=environment, directory=self.directory, timeout=DEADLINE_SECONDS)
        else:
            done = subprocess.run(
                command,
                env=environment,
                cwd=self.directory,
                capture_output=True,
                text=True,
                timeout=DEADLINE_SECONDS,
                check=False,
            )
        assert done.returncode == 0, f"{command[0]} failed:\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        return done.stdout

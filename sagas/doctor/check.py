"""A check: one question about an installation."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from sagas.doctor.finding import Finding
from sagas.doctor.server import STATEMENT_SECONDS, Server
from sagas.inspection import Inspector
from sagas.registry import Registry
from sagas.settings import Settings
from sagas.storage import PostgresSagaStorage
from sagas.storage.postgres.dsn import make_engine

#: One second more than a connection to the database may take, so that the database check reports the real reason.
_SECONDS: Final = 6.0


@dataclass(slots=True)
class Installation:
    """What is examined.

    Attributes:
        environment: the variables.
        settings: what the variables give; the defaults until the check `settings` has read them.
        registry: the sagas that this environment's code defines; empty until the check `code` has imported them.
    """

    environment: Mapping[str, str]
    settings: Settings = field(default_factory=Settings)
    registry: Registry = field(default_factory=Registry)

    @property
    def server(self) -> Server:
        """Asks the server of the database that the settings name."""
        return Server(self.settings.database_url)

    @property
    def storage(self) -> PostgresSagaStorage:
        """That database. Each question has a connection of its own: a check that hangs blocks no later one."""
        return PostgresSagaStorage(make_engine(self.settings.database_url))

    @property
    def inspector(self) -> Inspector:
        """Answers questions about the sagas there."""
        return Inspector(self.storage, answer_seconds=STATEMENT_SECONDS)


@dataclass(frozen=True, slots=True)
class Check:
    """One question about an installation.

    Attributes:
        name: what `needs` of other checks refer to.
        run: yields findings, and facts as text.
        findings: what it can find.
        needs: checks that must have no problem, or this one is skipped.
        seconds: how long it may take.
    """

    name: str
    run: Callable[[Installation], Iterable[Finding | str]]
    findings: tuple[Finding, ...]
    needs: tuple[str, ...] = ()
    seconds: float = _SECONDS

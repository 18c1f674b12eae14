"""A check: one question about an installation."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from sagas.doctor.finding import Finding
from sagas.doctor.inspector import Inspector
from sagas.registry import Registry
from sagas.settings import Settings

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
    def inspector(self) -> Inspector:
        """Asks the database that the settings name."""
        return Inspector(self.settings.database_url)


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

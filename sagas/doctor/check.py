"""A check: one question to an installation."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from sagas.doctor.finding import Finding, Kind
from sagas.doctor.installation import Installation

#: A second more than a connection to the database may take, so that this one is told by what keeps it.
_SECONDS: Final = 6.0


@dataclass(frozen=True, slots=True)
class Check:
    """One question to an installation.

    Attributes:
        name: what others name in `needs`.
        run: yields findings, and facts worth telling as text.
        kinds: what it can find.
        needs: checks without a problem in which it makes sense.
        seconds: how long it may take; importing code may take longer than a question.
    """

    name: str
    run: Callable[[Installation], Iterable[Finding | str]]
    kinds: tuple[Kind, ...]
    needs: tuple[str, ...] = ()
    seconds: float = _SECONDS

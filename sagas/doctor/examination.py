"""Runs the checks one after the other, from the foundation up: each for a bounded time, the rest whatever one finds."""

from __future__ import annotations

import threading
from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from psycopg.errors import QueryCanceled
from sqlalchemy.exc import DBAPIError

from sagas.doctor import checks
from sagas.doctor.check import Check
from sagas.doctor.finding import Finding, Kind, Severity, problem
from sagas.doctor.installation import Installation
from sagas.storage.postgres.dsn import reason

NO_ANSWER: Final = problem(
    "no-answer",
    what="a check had no answer in time",
    why="What it asked is overloaded, frozen or cut off by a network that drops packets; workers wait for it, too.",
    cure="See what {check} asks: is it reached, and is it overloaded? Then run `sagas doctor` again.",
)
CHECK_FAILED: Final = problem(
    "check-failed",
    what="a check ended by an error that it did not foresee",
    why="What it should have looked at is unknown.",
    cure="See to the error that is told; if it is none of your installation's, report it with this line.",
)


class State(StrEnum):
    """How a check ended."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True, kw_only=True)
class Examined:
    """What one check told; `because` names the check without which a skipped one makes no sense."""

    name: str
    facts: tuple[str, ...] = ()
    findings: tuple[Finding, ...] = ()
    because: str | None = None

    @property
    def state(self) -> State:
        """The worst of what was found."""
        if self.because is not None:
            return State.SKIPPED
        if not self.findings:
            return State.OK
        serious = any(finding.severity is Severity.PROBLEM for finding in self.findings)
        return State.PROBLEM if serious else State.WARNING


def examine(installation: Installation, *, only: Container[str] | None = None) -> Iterator[Examined]:
    """Yield what each check tells, as soon as it has ended.

    Args:
        installation: what is examined.
        only: names of checks; default: all.
    """
    unusable: set[str] = set()
    for check in checks.FOUNDATION:
        if only is None or check.name in only:
            yield _examined(check, installation, unusable)
    for check in (*installation.celery_checks, *checks.SAGAS):
        if only is None or check.name in only:
            yield _examined(check, installation, unusable)


def every_kind(celery_checks: Iterable[Check]) -> list[Kind]:
    """Return every kind of finding there is, in the order of the checks."""
    every = (*checks.FOUNDATION, *celery_checks, *checks.SAGAS)
    return [*(kind for check in every for kind in check.kinds), NO_ANSWER, CHECK_FAILED]


def _examined(check: Check, installation: Installation, unusable: set[str]) -> Examined:
    because = next((need for need in check.needs if need in unusable), None)
    examined = _perform(check, installation) if because is None else Examined(name=check.name, because=because)
    if examined.state in (State.PROBLEM, State.SKIPPED):
        unusable.add(check.name)
    return examined


def _perform(check: Check, installation: Installation) -> Examined:
    """Run the check in a thread that is left behind if it hangs."""
    told: list[Finding | str] = []

    def run() -> None:
        try:
            for each in check.run(installation):
                told.append(each)
        except BaseException as error:
            told.append(_failed(check, error))

    thread = threading.Thread(target=run, name=f"doctor-{check.name}", daemon=True)
    thread.start()
    thread.join(check.seconds)
    if thread.is_alive():
        late = f"the check {check.name!r} had no answer within {check.seconds:g} s, and was given up."
        told = [*told, NO_ANSWER(late, check=check.name)]
    return Examined(
        name=check.name,
        facts=tuple(each for each in told if isinstance(each, str)),
        findings=tuple(_of_application(each, installation) for each in told if isinstance(each, Finding)),
    )


def _of_application(finding: Finding, installation: Installation) -> Finding:
    """Name the user's own application in commands of Celery, if there is one."""
    named = installation.settings.celery_app
    return replace(finding, cure=finding.cure.replace("celery -A sagas", f"celery -A {named}")) if named else finding


def _failed(check: Check, error: BaseException) -> Finding:
    words = f"{type(error).__name__}: {error}"
    if isinstance(error, DBAPIError):  # its own text would repeat the statement
        words = f"{type(error.orig).__name__}: {reason(error)}"
        if isinstance(error.orig, QueryCanceled):
            return NO_ANSWER(f"the check {check.name!r} was given up by the database: {words}.", check=check.name)
    return CHECK_FAILED(f"the check {check.name!r} ended by {words}.")

"""Runs the checks one after the other, each for a bounded time, and skips those that need one with a problem."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Final

from psycopg.errors import QueryCanceled
from sqlalchemy.exc import DBAPIError

from sagas.doctor.check import Check, Installation
from sagas.doctor.checks import every_check
from sagas.doctor.finding import PROBLEM, WARNING, Finding, problem
from sagas.errors import QueryTimeout
from sagas.storage.postgres.dsn import reason

OK: Final = "ok"
SKIPPED: Final = "skipped"
NO_ANSWER: Final = problem(
    "no-answer",
    what="a check had no answer in time",
    why="The database or broker that it asked is overloaded, frozen or unreachable. Workers wait for it too.",
    cure="See what {check} asks. Check that it is reachable and not overloaded, then run `sagas doctor` again.",
)
CHECK_FAILED: Final = problem(
    "check-failed",
    what="a check ended with an unexpected error",
    why="What it should have checked is unknown.",
    cure="Fix the error in the message. If your installation does not cause it, report it with this line.",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What one check reported.

    Attributes:
        name: of the check.
        facts: what it read.
        findings: what is wrong.
        because: the check whose problem made this one be skipped.
    """

    name: str
    facts: tuple[str, ...] = ()
    findings: tuple[Finding, ...] = ()
    because: str | None = None

    @property
    def state(self) -> str:
        """How the check ended: skipped, or the worst of its findings, or ok."""
        if self.because is not None:
            return SKIPPED
        severities = {finding.severity for finding in self.findings}
        return next((severity for severity in (PROBLEM, WARNING) if severity in severities), OK)


def examine(
    installation: Installation, checks: Iterable[Check] | None = None, *, seconds: float | None = None
) -> Iterator[Result]:
    """Run checks, and yield the result of each as soon as it has ended.

    Args:
        installation: what is examined.
        checks: in order; default: all.
        seconds: how long each may take; default: its own limit.
    """
    unusable: set[str] = set()
    for check in every_check() if checks is None else checks:
        because = next((need for need in check.needs if need in unusable), None)
        if because is None:
            result = _run(check, installation, seconds or check.seconds)
        else:
            result = Result(name=check.name, because=because)
        if result.state in (PROBLEM, SKIPPED):
            unusable.add(check.name)
        yield result


def every_finding() -> list[Finding]:
    """Return every finding that there can be, in the order of the checks."""
    return [*(finding for check in every_check() for finding in check.findings), NO_ANSWER, CHECK_FAILED]


def _run(check: Check, installation: Installation, seconds: float) -> Result:
    """Run the check in a thread, and leave the thread behind if it hangs."""
    reported: list[Finding | str] = []

    def run() -> None:
        try:
            for each in check.run(installation):
                reported.append(each)
        except BaseException as error:
            reported.append(_failed(check, error))

    thread = threading.Thread(target=run, name=f"doctor-{check.name}", daemon=True)
    thread.start()
    thread.join(seconds)
    late = []
    if thread.is_alive():
        late = [NO_ANSWER.seen(f"the check {check.name!r} had no answer within {seconds:g} s.", check=check.name)]
    every = [*reported, *late]
    return Result(
        name=check.name,
        facts=tuple(each for each in every if isinstance(each, str)),
        findings=tuple(_for_application(each, installation) for each in every if isinstance(each, Finding)),
    )


def _for_application(finding: Finding, installation: Installation) -> Finding:
    """Return the finding with the user's own application in commands of Celery."""
    own = installation.settings.celery_app
    return replace(finding, cure=finding.cure.replace("celery -A sagas", f"celery -A {own}")) if own else finding


def _failed(check: Check, error: BaseException) -> Finding:
    words = f"{type(error).__name__}: {error}"
    if isinstance(error, QueryTimeout):
        return NO_ANSWER.seen(f"the check {check.name!r} was stopped: {error}", check=check.name)
    if isinstance(error, DBAPIError):  # its own text would repeat the statement
        words = f"{type(error.orig).__name__}: {reason(error)}"
        if isinstance(error.orig, QueryCanceled):
            return NO_ANSWER.seen(f"the database stopped the check {check.name!r}: {words}.", check=check.name)
    return CHECK_FAILED.seen(f"the check {check.name!r} ended with {words}.")

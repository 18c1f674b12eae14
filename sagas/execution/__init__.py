"""Running a saga under its lease: one loop, without any I/O.

Forward, backward and recovered runs all go through `saga_loop`. It is a generator that yields what it wants done (a
command) and is sent what came of it. `sagas.drivers` does the commands in a thread, `sagas.async_driver` on an event
loop, and the tests' explorer in every order.
"""

from sagas.execution.declining import decline
from sagas.execution.entries import failed_attempt, holder_failed
from sagas.execution.held import database_backoff
from sagas.execution.loop import IN_PLACE_SECONDS, saga_loop
from sagas.execution.report import Outcome, Report

__all__ = [
    "IN_PLACE_SECONDS",
    "Outcome",
    "Report",
    "database_backoff",
    "decline",
    "failed_attempt",
    "holder_failed",
    "saga_loop",
]

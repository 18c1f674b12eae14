"""Classifies an error of a step: whether the step raised it, whether it is in doubt, and whether it is retryable.

An ExceptionGroup stands for the errors that it holds at any depth, such as those of one `asyncio.TaskGroup`. The cause
of an error (`__cause__`) is ignored: code that raises another error has decided what the error means.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from sagas.errors import OutcomeUnknown

Classes = tuple[type[BaseException], ...]


def leaves(error: BaseException) -> Iterator[BaseException]:
    """Yield the errors that a group holds at any depth. For an error that is no group, yield the error itself."""
    if isinstance(error, BaseExceptionGroup):
        for each in error.exceptions:
            yield from leaves(each)
    else:
        yield error


def is_of_the_step(error: BaseException) -> bool:
    """Whether the error is the step's own: nothing in it is meant to end the process, as KeyboardInterrupt is."""
    return all(isinstance(leaf, (Exception, asyncio.CancelledError)) for leaf in leaves(error))


def is_in_doubt(error: BaseException, in_doubt_on: Classes) -> bool:
    """Whether the step may have taken effect: one such error within a group is enough."""
    return any(isinstance(leaf, (OutcomeUnknown, asyncio.CancelledError, *in_doubt_on)) for leaf in leaves(error))


def is_retryable(error: BaseException, retry_on: Classes) -> bool:
    """Whether a policy retries after this error; for a group, after each error in it, or if it names the group."""
    if not isinstance(error, BaseExceptionGroup):
        return isinstance(error, retry_on)
    groups = tuple(each for each in retry_on if issubclass(each, BaseExceptionGroup))
    return isinstance(error, groups) or all(is_retryable(each, retry_on) for each in error.exceptions)


def is_conflict(error: BaseException) -> bool:
    """Whether the database ended a transaction because of another one: a deadlock, or a serialization failure."""
    # SQLAlchemy and Django wrap the driver's error.
    causes = (error, getattr(error, "orig", None), error.__cause__)
    return any(getattr(cause, "sqlstate", None) in ("40001", "40P01") for cause in causes)


def message_of(error: BaseException) -> str:
    """Return what the error says; for a group also what each error in it says."""
    try:
        text = str(error)
    except Exception as broken:
        text = f"(its message cannot be shown: str() of it raised {type(broken).__name__})"
    if not isinstance(error, BaseExceptionGroup):
        return text
    return f"{text}: {'; '.join(f'{type(leaf).__name__}: {message_of(leaf)}' for leaf in leaves(error))}"

"""Errors that come in groups: each counts as what it holds, at any depth."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import anyio
import pytest

from sagas import Call, MemorySagaStorage, OutcomeUnknown, RetryPolicy, SagaStatus
from sagas.errors import StepTimedOut
from sagas.failures import is_in_doubt, is_of_the_step, is_retryable, message_of
from tests.samples import QuickEngine, Stage, Trip, always

LOST = OutcomeUnknown("no answer from the bank")
FULL = ConnectionError("fully booked")
WRONG = ValueError("no such card")


def group(*errors: BaseException) -> BaseExceptionGroup[BaseException]:
    return BaseExceptionGroup("several", errors)


class TimeLimit(Exception):
    """Raised into a step from outside."""


@pytest.mark.parametrize(
    ("error", "in_doubt"),
    [
        (WRONG, False),
        (group(WRONG, FULL), False),
        (LOST, True),
        (group(WRONG, LOST), True),
        (group(WRONG, group(group(LOST))), True),
        (group(asyncio.CancelledError(), WRONG), True),
        (group(group(TimeLimit())), True),
        (group(StepTimedOut("late")), True),
    ],
    ids=repr,
)
def test_group_is_in_doubt_if_one_of_its_errors_is(error: BaseException, in_doubt: bool) -> None:
    assert is_in_doubt(error, (TimeLimit,)) is in_doubt


class BothFull(ExceptionGroup[Exception]):
    """A group that a policy may name."""


@pytest.mark.parametrize(
    ("error", "retry_on", "retryable"),
    [
        (FULL, (ConnectionError,), True),
        (group(FULL), (ConnectionError,), True),
        (group(FULL, group(FULL)), (ConnectionError,), True),
        (group(FULL, group(WRONG)), (ConnectionError,), False),
        (group(FULL, WRONG), (ConnectionError, ValueError), True),
        (group(FULL, WRONG), (Exception,), True),
        (group(FULL, asyncio.CancelledError()), (Exception,), False),
        (BothFull("both", [WRONG]), (BothFull,), True),
        (group(FULL, BothFull("both", [WRONG])), (ConnectionError, BothFull), True),
        (group(WRONG), (BothFull,), False),
    ],
    ids=repr,
)
def test_group_is_retried_if_each_of_its_errors_is(
    error: BaseException, retry_on: tuple[type[BaseException], ...], retryable: bool
) -> None:
    assert is_retryable(error, retry_on) is retryable


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(3), GeneratorExit()])
def test_group_with_an_error_that_ends_the_process_is_not_the_steps(error: BaseException) -> None:
    assert is_of_the_step(group(WRONG, asyncio.CancelledError()))
    assert not is_of_the_step(error)
    assert not is_of_the_step(group(WRONG, group(error)))


def test_cause_of_an_error_is_not_looked_at() -> None:
    decided = ValueError("it was not charged: asked later")
    decided.__cause__ = LOST

    assert not is_in_doubt(decided, ())


def test_message_of_a_group_tells_what_is_in_it() -> None:
    assert message_of(group(WRONG, group(LOST))) == (
        "several (2 sub-exceptions): ValueError: no such card; OutcomeUnknown: no answer from the bank"
    )


# -- in a saga ----------------------------------------------------------------------------------------------------


async def by_asyncio(*errors: Exception) -> None:
    async def fail(error: Exception) -> None:
        raise error

    async with asyncio.TaskGroup() as tasks:
        for error in errors:
            tasks.create_task(fail(error))


async def by_anyio(*errors: Exception) -> None:
    async def fail(error: Exception) -> None:
        raise error

    async with anyio.create_task_group() as outer, anyio.create_task_group() as inner:
        outer.start_soon(fail, errors[0])
        for error in errors[1:]:
            inner.start_soon(fail, error)


async def by_except_star(*errors: Exception) -> None:
    try:
        await by_asyncio(*errors)
    except* OutcomeUnknown:
        raise
    except* ConnectionError:
        raise


async def by_hand(*errors: Exception) -> None:
    raise group(*errors)


@pytest.mark.parametrize("raise_group", [by_asyncio, by_anyio, by_except_star, by_hand])
@pytest.mark.parametrize("timeout", [None, 20.0])
def test_step_whose_task_is_in_doubt_is_undone(
    stage: Stage, raise_group: Callable[..., Any], timeout: float | None
) -> None:
    def act(context: Trip, call: Call) -> Any:
        return raise_group(LOST)

    report = QuickEngine(MemorySagaStorage()).run(stage.saga(stage.step("pay", [act], timeout=timeout)), Trip())

    assert report.outcome == "compensated"
    assert stage.seen == ["act pay", "compensate pay"]


@pytest.mark.parametrize("raise_group", [by_asyncio, by_anyio, by_except_star, by_hand])
def test_step_is_tried_again_after_errors_that_its_policy_names(stage: Stage, raise_group: Callable[..., Any]) -> None:
    policy = RetryPolicy(max_attempts=3, first_delay=0, retry_on=(ConnectionError,))
    full = [lambda *_: raise_group(FULL, FULL)]
    wrong = always(lambda *_: by_hand(FULL, group(WRONG)))

    saga = stage.saga(stage.step("hotel", full, retry=policy), stage.step("car", wrong, retry=policy))
    report = QuickEngine(MemorySagaStorage()).run(saga, Trip())

    assert report.outcome == "compensated"
    assert stage.attempts("act hotel") == [1, 2]
    assert stage.attempts("act car") == [1]


def test_interrupt_within_a_group_ends_the_process_once_the_attempt_is_counted(stage: Stage) -> None:
    engine = QuickEngine(MemorySagaStorage())
    interrupted = group(WRONG, group(KeyboardInterrupt()))

    with pytest.raises(BaseExceptionGroup) as caught:
        engine.run(stage.saga(stage.step("hotel", [lambda *_: by_hand(*interrupted.exceptions)])), Trip())

    assert caught.group_contains(KeyboardInterrupt)
    stored = engine.stored()
    assert (stored.status, stored.recovery_attempts, stored.lease_owner) == (SagaStatus.FAILED, 1, None)


def test_log_tells_what_was_in_the_group(stage: Stage) -> None:
    engine = QuickEngine(MemorySagaStorage())

    engine.run(stage.saga(stage.step("pay", [lambda *_: by_asyncio(LOST)])), Trip())

    failed = engine.stored().log[0]
    assert failed.error_type == "ExceptionGroup"
    assert failed.message == (
        "unhandled errors in a TaskGroup (1 sub-exception): OutcomeUnknown: no answer from the bank"
    )

"""A user's steps and waits, with a place to crash before and after each call of their code."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

from sagas.definition import Call, Step, Wait
from sagas.framework import Framework
from sagas.progress import Action
from sagas.testing.crashes.crash_plan import Failure, How
from sagas.testing.crashes.places import Moment, Waiting
from sagas.testing.crashes.script import Script


class SimulatedStep(Step[Any]):
    """A user's step with its planned failure, and a place to crash before and after each action."""

    def __init__(self, kind: type[Step[Any]], step: Step[Any], script: Script) -> None:
        self._kind = kind
        self._step = step
        self._script = script

    def act(self, context: Any, call: Call) -> Any:
        return self._perform(Action.ACT, self._step.act, context, call)

    def compensate(self, context: Any, call: Call) -> Any:
        return self._perform(Action.COMPENSATE, self._step.compensate, context, call)

    def _perform(self, action: Action, method: Callable[[Any, Call], Any], context: Any, call: Call) -> Any:
        reach = partial(self._script.reach, step=call.step_name, action=action, attempt=call.attempt)
        failure = partial(self._script.failure_of, action, call)
        return _perform(self._script, partial(method, context, call), reach, lambda: self._planned(failure()))

    def _planned(self, failure: Failure | None) -> tuple[How, Exception] | None:
        return None if failure is None else (failure.how, failure.error(self._kind))


class SimulatedWaits(Framework):
    """Adds places to crash before and after each call of `received`.

    Args:
        script: the script of the run.
        attempt_of: returns the number of the present attempt of a wait, by its name.
    """

    def __init__(self, script: Script, attempt_of: Callable[[str], int]) -> None:
        self._script = script
        self._attempt_of = attempt_of

    def around(self, action: Callable[[], Any]) -> Callable[[], Any]:
        wait = getattr(action.func, "__self__", None) if isinstance(action, partial) else None
        if not isinstance(wait, Wait):
            return action
        reach = partial(
            self._script.reach,
            step=wait.name,
            action=Action.ACT,
            attempt=self._attempt_of(wait.name),
            waiting=Waiting.RECEIVES,
        )
        return partial(_perform, self._script, action, reach)


def _perform(
    script: Script,
    action: Callable[[], Any],
    reach: Callable[[Moment], None],
    failure: Callable[[], tuple[How, Exception] | None] = lambda: None,
) -> Any:
    """Call user code, await what it returns, and fail as planned."""
    with ExitStack() as attempt:
        attempt.enter_context(_attempt(script, reach, failure))
        result = action()
        return _awaited(result, attempt.pop_all()) if inspect.isawaitable(result) else result


async def _awaited(result: Awaitable[Any], attempt: ExitStack) -> Any:
    with attempt:
        return await result


@contextmanager
def _attempt(
    script: Script, reach: Callable[[Moment], None], failure: Callable[[], tuple[How, Exception] | None]
) -> Iterator[None]:
    reach(Moment.BEFORE)
    planned = failure()
    if planned is not None and planned[0] is not How.ANSWER_LOST:
        reach(Moment.AFTER)
        raise planned[1]
    script.turn += 1
    turn = script.turn
    try:
        yield
    except (Exception, asyncio.CancelledError) as error:
        if script.turn == turn:
            script.raised = error
            reach(Moment.AFTER)
        raise
    if script.turn != turn:
        return  # the saga went on after the action's timeout
    reach(Moment.AFTER)
    if planned is not None:
        raise planned[1]

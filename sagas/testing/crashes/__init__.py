"""The crash matrix: run a saga once for each place at which it can crash; each run must end like one without a crash.

from sagas.testing import crash_matrix

def test_place_order_survives_every_crash() -> None:
    crash_matrix(PlaceOrder, lambda: Order("lamp", 2), world=Shop)
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from sagas.context import ContextT
from sagas.definition import Saga, Step, steps_of
from sagas.deprecation import former_names
from sagas.progress import SagaStatus
from sagas.testing.crashes.crash_plan import CrashPlan, EarlySignal, Failure, How, InjectedFailure
from sagas.testing.crashes.matrix import Matrix
from sagas.testing.crashes.places import Moment, Place, Waiting
from sagas.testing.crashes.report import CrashFinding, CrashMatrix, CrashMatrixFailed, Fault
from sagas.testing.crashes.signals import signals_as_text
from sagas.testing.crashes.simulated_process import SAGA_ID
from sagas.testing.crashes.simulation import Case, Outcome
from sagas.testing.crashes.snapshot import content, shows_data

__all__ = [
    "SAGA_ID",
    "CrashFinding",
    "CrashMatrix",
    "CrashMatrixFailed",
    "CrashPlan",
    "EarlySignal",
    "Failure",
    "Fault",
    "How",
    "InjectedFailure",
    "Moment",
    "Outcome",
    "Place",
    "Waiting",
    "crash_matrix",
]

WorldT = TypeVar("WorldT")


def crash_matrix(
    saga: type[Saga[ContextT]],
    make_context: Callable[[], ContextT] | Callable[[WorldT], ContextT],
    *,
    world: Callable[[], WorldT] | None = None,
    resolver: Callable[[type[Step[Any]]], Step[Any]] | Callable[[type[Step[Any]], WorldT], Step[Any]] | None = None,
    signals: Mapping[str, object] | None = None,
    check: Callable[[WorldT, Outcome[ContextT]], object] | None = None,
    snapshot: Callable[[WorldT], object] | None = None,
    ends: SagaStatus = SagaStatus.COMPLETED,
    pairs: bool = True,
) -> CrashMatrix:
    """Run a saga in memory once for each way in which it can be cut off, and recover it each time until it has ended.

    The saga crashes before and after each act and compensate, and before and after each checkpoint. It does so in runs
    in which no step fails, and in runs in which one step fails: cleanly, in doubt (with or without having taken
    effect), or, if it is retried, only once. A fallback fails so, too, after the steps before it have failed.

    The saga also crashes twice in a run. If no step fails, the two places are any two between which something happens.
    If a step fails for good, the first crash comes after an action that it makes run again, and the second one later.
    Of a step's attempts, only the first, the second and the last crash. No real time passes: leases, backoffs,
    retries, waits and sleeps wait on a fake clock, which jumps.

    A signal comes when the saga waits for it. In further runs it comes earlier, or just before a crash, or, if the wait
    has a timeout, never. The saga also crashes before and after each checkpoint with which a wait or a sleep begins or
    is over, and each call of `received`.

    Each run must end, satisfy `check`, and leave the world in the same state as the run without crashes.

    Args:
        saga: the saga's class.
        make_context: makes the context of a run; if it has a parameter without default, the world is passed.
        world: makes a new object for each run that the steps act on: fakes of your services, as one object.
        resolver: builds a step from its class; if it has a second parameter without default, the world is passed, too.
            Default: call the class; if its constructor has a parameter without default, pass the world.
        signals: what the signal for each wait brings, by the name of the wait. A wait that is not named times out.
        check: called with the world and the `Outcome` of each run that ended; an AssertionError, or False, is a bug.
        snapshot: returns the part of the world that is compared; default: all attributes, items and fields. Leave out
            values that may differ when a request is repeated: counters of calls, times, random ids.
        ends: the status in which the saga ends when nothing goes wrong.
        pairs: whether to simulate runs with two crashes, too.

    Raises:
        CrashMatrixFailed: bugs were found; an AssertionError whose message lists all of them.
        TypeError: the world's content cannot be read: pass a `snapshot`. Or the saga has transactional steps.
        ContextError: the context from `make_context` cannot be stored.
        ValueError: `signals` names no wait of the saga, has data of another type, or leaves out a wait without timeout.
    """
    __tracebackhide__ = True
    case: Case[ContextT, Any] = Case(
        saga=saga,
        make_world=world or (lambda: None),
        make_context=_fit(make_context, world),
        make_step=_resolver(saga, world) if resolver is None else _fit(resolver, world, given=1),
        look=snapshot or (lambda here: here),
        check=check,
        signals=signals_as_text(saga, signals or {}),
    )
    _require_sense(case)
    matrix = Matrix(case, ends=ends, pairs=pairs)
    result = matrix.run()
    if result.findings:
        raise CrashMatrixFailed(result) from matrix.cause
    return result


def _require_sense(case: Case[Any, Any]) -> None:
    """Call the user's functions once, so that their errors are not taken for a step's failure."""
    if inspect.iscoroutinefunction(case.check):
        raise TypeError("check is async, and nothing would await it: make it a plain function.")
    if inside := [step.__name__ for step in case.saga.steps if step.kind == "transaction"]:
        raise TypeError(
            f"crash_matrix has no database, whose transactions {', '.join(inside)} needs: test transactional steps "
            "with PostgresSagaStorage, or with MemorySagaStorage(sessions=...)."
        )
    world = case.make_world()
    case.make_context(world)
    for step in steps_of(case.saga):
        case.make_step(step, world)
    seen = case.look(world)
    if seen is not None and not shows_data(content(seen)):
        raise TypeError(
            f"crash_matrix cannot look into a {type(seen).__name__} to compare what runs leave behind: "
            "pass snapshot=, a function that returns it as plain data."
        )


def _resolver(saga: type[Saga[Any]], world: object) -> Callable[[type[Step[Any]], Any], Step[Any]]:
    """Build steps by calling their classes."""
    fitting = {step: _fit(step, world) for step in steps_of(saga)}
    return lambda step, here: fitting[step](here)


def _fit(function: Callable[..., Any], world: object, *, given: int = 0) -> Callable[..., Any]:
    """Return the function; drop its last argument, the world, unless there is a world and the function requires it."""
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):  # some functions written in C have no signature
        parameters = []
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    asked = sum(parameter.kind in positional and parameter.default is parameter.empty for parameter in parameters)
    if world is not None and asked > given:
        return function
    return lambda *arguments: function(*arguments[:given])


if TYPE_CHECKING:
    Plan = CrashPlan
    Finding = CrashFinding
else:
    __getattr__ = former_names(
        __name__,
        {"Plan": (CrashPlan, f"{__name__}.CrashPlan"), "Finding": (CrashFinding, f"{__name__}.CrashFinding")},
    )

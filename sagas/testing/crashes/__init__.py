"""The crash matrix: a saga is run once for every place at which it can crash, and must end as if nothing had happened.

from sagas.testing import crash_matrix

def test_place_order_survives_every_crash() -> None:
    crash_matrix(PlaceOrder, lambda: Order("lamp", 2), world=Shop)
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable
from typing import Any, TypeVar

from sagas.context import ContextT
from sagas.definition import Saga, Step
from sagas.progress import SagaStatus
from sagas.testing.crashes.crash_plan import CrashPlan, Failure, How, InjectedFailure, Moment, Place
from sagas.testing.crashes.matrix import Matrix
from sagas.testing.crashes.report import CrashFinding, CrashMatrix, CrashMatrixFailed, Fault
from sagas.testing.crashes.simulated_process import SAGA_ID
from sagas.testing.crashes.simulation import Case, Outcome
from sagas.testing.crashes.snapshot import content, shows_data

__all__ = [
    "SAGA_ID",
    "CrashFinding",
    "CrashMatrix",
    "CrashMatrixFailed",
    "CrashPlan",
    "Failure",
    "Fault",
    "How",
    "InjectedFailure",
    "Moment",
    "Outcome",
    "Place",
    "crash_matrix",
]

WorldT = TypeVar("WorldT")


def crash_matrix(
    saga: type[Saga[ContextT]],
    make_context: Callable[[], ContextT] | Callable[[WorldT], ContextT],
    *,
    world: Callable[[], WorldT] | None = None,
    resolver: Callable[[type[Step[Any]]], Step[Any]] | Callable[[type[Step[Any]], WorldT], Step[Any]] | None = None,
    check: Callable[[WorldT, Outcome[ContextT]], object] | None = None,
    snapshot: Callable[[WorldT], object] | None = None,
    ends: SagaStatus = SagaStatus.COMPLETED,
    pairs: bool = True,
) -> CrashMatrix:
    """Run a saga in memory once for every way in which it can be cut off, and recover it each time until it ended.

    It crashes before and after each act and compensate and before and after each checkpoint: when nothing else goes
    wrong, and when any one step fails, be it cleanly, in doubt (having taken effect or not), or once if it is tried
    again. And it crashes twice: at any two places between which something happens when no step fails; when one fails
    for good, after an action that the crash makes run again, and once more. Of a step's attempts, those between the
    second and the last see no crashes. No time passes: leases, backoffs and retries wait on a fake clock.

    Every run must end, satisfy `check`, and leave the same world behind as the run without crashes.

    Args:
        saga: the class.
        make_context: makes the context of a run; it is given the world, if it has a parameter without default.
        world: makes what the steps act on, new for each run: fakes of your services, as one object.
        resolver: builds a step from its class, and from the world, if it has a second parameter without default;
            default: call the class, with the world, if its constructor has a parameter without default.
        check: sees the world and the `Outcome` of each run that ended; an AssertionError, or False, is a bug.
        snapshot: returns what of the world counts; default: everything in its attributes, items and fields. Leave out
            what may differ when a request is repeated: counters of calls, times, random ids.
        ends: how the saga ends when nothing goes wrong.
        pairs: whether to simulate two crashes in a run, too.

    Raises:
        CrashMatrixFailed: an AssertionError, whose message lists all bugs found.
        TypeError: the world cannot be looked into: pass a `snapshot`.
        ContextError: the context that `make_context` makes cannot be stored.
    """
    __tracebackhide__ = True
    case: Case[ContextT, Any] = Case(
        saga=saga,
        make_world=world or (lambda: None),
        make_context=_fit(make_context, world),
        make_step=_resolver(saga, world) if resolver is None else _fit(resolver, world, given=1),
        look=snapshot or (lambda here: here),
        check=check,
    )
    _require_sense(case)
    matrix = Matrix(case, ends=ends, pairs=pairs)
    result = matrix.run()
    if result.findings:
        raise CrashMatrixFailed(result) from matrix.cause
    return result


def _require_sense(case: Case[Any, Any]) -> None:
    """Let what the user wrote fail where it is not taken for a failure of a step."""
    if inspect.iscoroutinefunction(case.check):
        raise TypeError("check is async, and nothing would await it: make it a plain function.")
    world = case.make_world()
    case.make_context(world)
    for step in case.saga.steps:
        case.make_step(step, world)
    seen = case.look(world)
    if seen is not None and not shows_data(content(seen)):
        raise TypeError(
            f"crash_matrix cannot look into a {type(seen).__name__} to compare what runs leave behind: "
            "pass snapshot=, a function that returns it as plain data."
        )


def _resolver(saga: type[Saga[Any]], world: object) -> Callable[[type[Step[Any]], Any], Step[Any]]:
    """Build steps by calling their classes."""
    fitting = {step: _fit(step, world) for step in saga.steps}
    return lambda step, here: fitting[step](here)


def _fit(function: Callable[..., Any], world: object, *, given: int = 0) -> Callable[..., Any]:
    """Return the function, with the world as its last argument if there is one and it asks for more than is given."""
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):  # some of what is written in C has no signature
        parameters = []
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    asked = sum(parameter.kind in positional and parameter.default is parameter.empty for parameter in parameters)
    if world is not None and asked > given:
        return function
    return lambda *arguments: function(*arguments[:given])


def __getattr__(name: str) -> Any:
    """Find `Plan` and `Finding`, the former names of `CrashPlan` and `CrashFinding`."""
    if (renamed := {"Plan": CrashPlan, "Finding": CrashFinding}.get(name)) is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    new = f"{__name__}.{renamed.__name__}"
    warnings.warn(f"{__name__}.{name} is now called {new}.", DeprecationWarning, stacklevel=2)
    return renamed

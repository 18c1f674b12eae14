"""Simulate one run of a saga by plan: real engine, storage in memory, processes that die at the planned places.

A crash is like SIGKILL: no code of the engine or of the step runs after it. The next process begins with new steps,
after the lease of the dead process has expired.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, Generic, TypeVar

from sagas.context import ContextT
from sagas.definition import Saga, Step
from sagas.progress import SagaStatus
from sagas.testing.crashes.crash_plan import CrashPlan, EarlySignal, Failure
from sagas.testing.crashes.places import Place
from sagas.testing.crashes.script import Script
from sagas.testing.crashes.simulated_parts import SimulatedStep
from sagas.testing.crashes.simulated_process import LogEntry, SimulatedSaga, describe
from sagas.testing.crashes.snapshot import Content, content

WorldT = TypeVar("WorldT")

#: More processes than any saga needs to end.
_MOST_PROCESSES: Final = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome(Generic[ContextT]):
    """How a run ended, for a `check` of your own.

    Attributes:
        status: COMPLETED or COMPENSATED.
        context: the context as it was stored last.
        plan: what went wrong in this run: `plan.failure`, `plan.crashes` and `plan.early`; `str(plan)` is one line.
        log: the saga's log, oldest row first.
    """

    status: SagaStatus
    context: ContextT
    plan: CrashPlan
    log: tuple[LogEntry, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Case(Generic[ContextT, WorldT]):
    """The parts that all runs share: the saga, and the user's functions to make and read the rest.

    Attributes:
        signals: what the signals bring that the saga waits for, as JSON, by the name of the wait.
    """

    saga: type[Saga[ContextT]]
    make_world: Callable[[], WorldT]
    make_context: Callable[[WorldT], ContextT]
    make_step: Callable[[type[Step[Any]], WorldT], Step[Any]]
    look: Callable[[WorldT], object]
    check: Callable[[WorldT, Outcome[ContextT]], object] | None
    signals: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """The observations of one run.

    Attributes:
        plan: the failure, the early signal and the crashes.
        trace: the places that the run reached, including those of its crashes.
        status: the saga's last status; FAILED if it did not end.
        error: the last failure of a step, or the reason why the saga did not end.
        failures: the log's rows of actions that failed.
        raised: the last exception that came from the user's code in a step.
        struck: whether the planned failure of a step happened.
        world: the content of the world at the end.
        context: the content of the stored context at the end; None if it cannot be compared with another run's.
        refused: the objection of `check`.
    """

    plan: CrashPlan
    trace: tuple[Place, ...]
    status: SagaStatus
    error: str | None
    failures: tuple[LogEntry, ...]
    raised: BaseException | None
    struck: bool
    world: Content
    context: Content | None
    refused: str | None


def simulate(
    case: Case[ContextT, WorldT],
    failure: Failure | None = None,
    crashes: Collection[int] = (),
    early: tuple[str, int] | None = None,
) -> Run:
    """Run the saga until it has ended.

    Args:
        case: the saga.
        failure: the step that fails.
        crashes: positions in the run's trace at which the process crashes.
        early: the wait whose signal comes early, and the position in the run's trace at which it comes; -1 is before
            the saga begins.
    """
    world = case.make_world()
    script = Script(failure, crashes, early)
    saga = SimulatedSaga(case.saga, case.make_context(world), script, case.signals)
    for number in range(1, _MOST_PROCESSES):
        if not saga.run_process(number, lambda step: SimulatedStep(step, case.make_step(step, world), script)):
            break
    record, failures = saga.record, saga.failures
    context = case.saga.codec.load(record.context)
    plan = CrashPlan(
        failure,
        tuple(script.trace[index] for index in sorted(crashes) if index < len(script.trace)),
        early and EarlySignal(early[0], script.trace[early[1]] if early[1] >= 0 else None),
    )
    refused = None
    if record.status.finished and case.check is not None:
        outcome = Outcome(status=record.status, context=context, plan=plan, log=record.log)
        refused = _refusal(partial(case.check, world, outcome))
    return Run(
        plan=plan,
        trace=tuple(script.trace),
        status=record.status if record.status.finished else SagaStatus.FAILED,
        error=describe(failures[-1]) if failures else record.last_error,
        failures=failures,
        raised=script.raised,
        struck=script.struck,
        world=content(case.look(world)),
        context=content(context),
        refused=refused,
    )


def _refusal(check: Callable[[], object]) -> str | None:
    try:
        verdict = check()
    except Exception as error:
        # pytest adds lines that show the compared values.
        text = next(iter(str(error).strip().splitlines()), "")
        return text if isinstance(error, AssertionError) and text else f"{type(error).__name__}: {text}".rstrip(": ")
    return "it returned False" if verdict is False else None

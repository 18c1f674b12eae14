"""The steps that one saga takes: those it was started with, under the names they had then, whatever code runs it now.

So a change of the class is for the sagas started after it. A step that may have begun and left no row in the log is
the same one for every worker, and every attempt at it carries the same idempotency key.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any

from sagas.definition import AnySaga, Step
from sagas.errors import LogDoesNotFit
from sagas.fingerprint import Fingerprint, step_code


@dataclass(frozen=True, slots=True)
class PlannedStep:
    """One step of a saga.

    Attributes:
        name: what it was called when the saga was started: in the log, in `Call.step_name`, in idempotency keys.
        kind: the class that does it today.
    """

    name: str
    kind: type[Step[Any]]


@dataclass(frozen=True, slots=True)
class Plan:
    """The steps of one saga, in order.

    Attributes:
        owner: its class's name, for messages.
        compensate_past_failures: whether earlier steps are compensated while a later one's compensation fails.
    """

    owner: str
    steps: tuple[PlannedStep, ...]
    compensate_past_failures: bool = False


def plan_of(saga: AnySaga) -> Plan:
    """Return the plan of a saga that is started now."""
    return _plan(saga, (PlannedStep(step.name, step) for step in saga.steps))


def plan_as_started(saga: AnySaga, definition_version: str) -> Plan:
    """Return the plan of a saga that was started with the definition of this `definition_version`.

    Raises:
        LogDoesNotFit: it was started with a step that the class does not have, or has changed too much.
    """
    stored = Fingerprint.parse(definition_version)
    if stored.codes == saga.fingerprint.codes:
        return plan_of(saga)
    if not stored.codes:
        # From before steps were written down, and so from before any alias: each had the first of its names.
        return _plan(saga, (PlannedStep((*step.aliases, step.name)[0], step) for step in saga.steps))
    found = {code: planned for step in saga.steps for code, planned in _codes(step)}
    steps: dict[type[Step[Any]], PlannedStep] = {}
    for place, code in enumerate(stored.codes, start=1):
        if code not in found:
            raise _does_not_fit(saga, _what_became_of(code, place, saga, stored))
        step = found[code]
        if (first := steps.setdefault(step.kind, step)) is not step:
            names = f"{first.name!r} and {step.name!r}"
            raise _does_not_fit(saga, f"{step.kind.__name__} stands for two steps of this saga, {names}")
    return _plan(saga, steps.values())


def _plan(saga: AnySaga, steps: Iterable[PlannedStep]) -> Plan:
    return Plan(saga.__name__, tuple(steps), saga.compensate_past_failures)


def _does_not_fit(saga: AnySaga, why: str) -> LogDoesNotFit:
    return LogDoesNotFit(
        f"{why}: run the code that this saga was started with, or keep that class beside {saga.__name__} and give "
        f"{saga.__name__} a higher `version` (docs/changing-sagas.md)."
    )


def _codes(step: type[Step[Any]]) -> Iterator[tuple[str, PlannedStep]]:
    """The codes under which a saga may have been started with this step."""
    for name in (step.name, *step.aliases):
        yield step_code(name, pivot=step.pivot, can_compensate=step.can_compensate()), PlannedStep(name, step)
        if step.can_compensate():
            # It could not be undone then and can be now, which no saga is the worse for.
            yield step_code(name, pivot=step.pivot, can_compensate=False), PlannedStep(name, step)


def _what_became_of(code: str, place: int, saga: AnySaga, stored: Fingerprint) -> str:
    """Why a step is not found, for the operator."""
    if stored.of_long_definition:
        return f"this saga was started with other steps than {saga.__name__} has, too many to tell which"
    for step, pivot, can_compensate in product(saga.steps, (False, True), (False, True)):
        for name in (step.name, *step.aliases):
            if code == step_code(name, pivot=pivot, can_compensate=can_compensate):
                return f"{step.__name__} {_difference(step, pivot)} since this saga was started"
    names = ", ".join(step.name for step in saga.steps)
    return (
        f"step {place} of the {len(stored.codes)} that this saga was started with is none of those of {saga.__name__} "
        f"({names}), so it was removed, or renamed without its former name in `aliases`"
    )


def _difference(step: type[Step[Any]], pivot: bool) -> str:
    if pivot is not step.pivot:
        return "became the pivot" if step.pivot else "ceased to be the pivot"
    return "lost its compensate()"

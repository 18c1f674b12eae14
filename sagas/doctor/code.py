"""Can the code of the sagas be loaded, and are its retries such as somebody can wait for?"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Final

from sagas.definition import RetryPolicy
from sagas.doctor.check import Check
from sagas.doctor.finding import Finding, problem, warning
from sagas.doctor.installation import Installation
from sagas.duration import duration
from sagas.engine import named_resolver
from sagas.errors import SagaError
from sagas.registry import Registry

#: A step that is tried again for longer than this holds its saga, and whatever the saga reserved, for days.
_LONG_RETRIES: Final = 24 * 3600.0

MODULES_UNSET: Final = problem(
    "modules-unset",
    what="no module of sagas is named",
    why="A worker with this environment declines every saga, and no saga in the database can be compared with its "
    "code.",
    cure="Set SAGAS_MODULES to the modules that define your sagas, as the workers have it.",
)
CODE_UNUSABLE: Final = problem(
    "code-unusable",
    what="the code of the sagas cannot be loaded",
    why="No worker starts with this environment, and no saga in the database can be compared with its code.",
    cure="See to what the sentence names, where the workers run as well as here.",
)
RETRIES_LONG: Final = warning(
    "retries-long",
    what="a step is tried again for more than a day",
    why="Its saga is neither done nor undone meanwhile, and keeps what earlier steps reserved. Nobody is told before "
    "the last attempt.",
    cure="Give the `retry` of {step} fewer attempts or a lower max_delay; a saga whose attempts are spent is undone.",
)


def _load(installation: Installation) -> Iterator[Finding | str]:
    settings, registry = installation.settings, Registry()
    if not settings.modules:
        yield MODULES_UNSET("SAGAS_MODULES is empty.")
        return
    try:
        registry.load(settings.modules)
        if settings.resolver:
            named_resolver(settings.resolver)
    except SagaError as error:
        yield CODE_UNUSABLE(str(error))
        return
    installation.registry = registry
    sagas = list(registry)
    yield f"{len(sagas)} {'saga' if len(sagas) == 1 else 'sagas'} in {', '.join(settings.modules)}"
    for saga in sagas:
        for step in saga.steps:
            if (waits := _longest_wait(step.retry)) > _LONG_RETRIES:
                yield RETRIES_LONG(
                    f"{step.__name__} of {saga.__name__} is tried {step.retry.max_attempts} times, with waits of "
                    f"{duration(waits)} in all.",
                    step=step.__name__,
                )


def _longest_wait(retry: RetryPolicy) -> float:
    """All waits of a policy together, in seconds; not added up, as there may be a billion of them."""
    waits, first, factor, cap = retry.max_attempts - 1, retry.first_delay, retry.factor, retry.max_delay
    if first == 0 or first >= cap or factor == 1:
        return waits * min(first, cap)
    growing = min(waits, math.ceil(math.log(cap / first) / math.log(factor)))
    return first * (factor**growing - 1) / (factor - 1) + (waits - growing) * cap


CODE: Final = Check("code", _load, (MODULES_UNSET, CODE_UNUSABLE, RETRIES_LONG), needs=("settings",), seconds=20)

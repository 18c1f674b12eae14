"""The classes that a user writes: `Saga`, its parts `Step`, `Wait` and `Sleep`, and `RetryPolicy`.

They are validated when they are defined.
"""

from sagas.definition.names import MAX_NAME_LENGTH
from sagas.definition.parts import Part
from sagas.definition.retry_policy import ONCE, PATIENT, RetryPolicy, backoff
from sagas.definition.sagas import AnySaga, Saga, parts_of, steps_of
from sagas.definition.steps import Call, Resolver, Step
from sagas.definition.waits import OnTimeout, PayloadT, Sleep, Wait

__all__ = [
    "MAX_NAME_LENGTH",
    "ONCE",
    "PATIENT",
    "AnySaga",
    "Call",
    "OnTimeout",
    "Part",
    "PayloadT",
    "Resolver",
    "RetryPolicy",
    "Saga",
    "Sleep",
    "Step",
    "Wait",
    "backoff",
    "parts_of",
    "steps_of",
]

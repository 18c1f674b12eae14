"""What a person is told of an error: a sentence, without the commands of a shell."""

from __future__ import annotations

from uuid import UUID

import pytest
from starlette.exceptions import HTTPException

from sagas.console.failures import failure_of, sentence_of
from sagas.console.visit import Refused
from sagas.errors import ActionRefused, InvalidSagaId, QueryTimeout, SagaHeld
from sagas.storage.errors import not_found

SAGA_ID = UUID("01890a5d-ac96-774b-bcce-b302099a8057")


@pytest.mark.parametrize(
    ("message", "sentence"),
    [
        ("saga 7 unwinds already: `sagas recover 7` speeds it up.", "Saga 7 unwinds already."),
        (
            "saga 7 is past its pivot: skip the step (`sagas skip`), or settle it by hand (`sagas resolve`).",
            "Saga 7 is past its pivot: skip the step, or settle it by hand.",
        ),
        ("saga 7 has nothing left to do but to end: `sagas recover 7`.", "Saga 7 has nothing left to do but to end."),
        (
            "saga 7 is COMPLETED already: nothing is left to act on.",
            "Saga 7 is COMPLETED already: nothing is left to act on.",
        ),
    ],
)
def test_commands_of_the_shell_are_left_out(message: str, sentence: str) -> None:
    assert sentence_of(ActionRefused(message)) == sentence


def test_a_holder_is_named_and_what_was_asked_of_it() -> None:
    said = sentence_of(SagaHeld("give it more time with --wait", "worker-1"))

    assert said.startswith("worker-1 holds the saga")
    assert "--wait" not in said


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (Refused("no", 413), 413),
        (HTTPException(404), 404),
        (HTTPException(405), 405),
        (not_found(SAGA_ID), 404),
        (InvalidSagaId("no"), 404),
        (ActionRefused("no"), 409),
        (QueryTimeout("no"), 503),
        (ZeroDivisionError("secret"), 500),
    ],
)
def test_each_error_has_its_status_and_a_fault_says_nothing_of_itself(error: Exception, status: int) -> None:
    failure = failure_of(error)

    assert failure.status == status
    assert "secret" not in failure.message

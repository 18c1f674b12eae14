"""What a saga does next, as this process's code has it."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from sagas import Call, MemorySagaStorage, Saga, Sleep, Step, Wait
from sagas.cli.next_step import NextStep, next_step
from sagas.definitions import Definitions
from sagas.errors import ConfigurationError
from sagas.ids import new_saga_id
from sagas.progress import Action, EntryStatus, SagaStatus, Verdict
from sagas.registry import Registry
from sagas.storage.records import LogEntry, NewSaga, SagaRecord, completed, failed


class Reserve(Step[dict[str, str]]):
    def act(self, context: dict[str, str], call: Call) -> None: ...

    def compensate(self, context: dict[str, str], call: Call) -> None: ...


class Pay(Reserve):
    pass


class PlaceOrder(Saga[dict[str, str]]):
    steps = [Reserve, Pay]


KNOWN = Definitions(MemorySagaStorage(), Registry([PlaceOrder]))
RESERVED = completed("reserve", Action.ACT)
REFUSED = failed("pay", Action.ACT, Verdict.ABORT)
LOST = LogEntry(step="holder", action=Action.HOLDER, status=EntryStatus.LOST, in_flight=("pay",))


def record(*log: LogEntry) -> SagaRecord:
    new = NewSaga(id=new_saga_id(), name="place-order", context="{}", definition=PlaceOrder.graph.hash)
    return replace(new.as_record(now=datetime.now(UTC)), log=log)


@pytest.mark.parametrize(
    ("log", "words"),
    [
        ((), "act reserve, attempt 1"),
        ((RESERVED,), "act pay, attempt 1"),
        ((RESERVED, failed("pay", Action.ACT, Verdict.RETRY)), "act pay, attempt 2"),
        ((RESERVED, LOST), "act pay, attempt 1, which may have begun before"),
        ((RESERVED, REFUSED), "compensate reserve, attempt 1"),
        ((RESERVED, LOST, REFUSED), "compensate pay, attempt 1, which may have begun before"),
        ((RESERVED, completed("pay", Action.ACT)), "none is left: it ends as COMPLETED"),
        ((RESERVED, REFUSED, completed("reserve", Action.COMPENSATE)), "none is left: it ends as COMPENSATED"),
    ],
)
def test_the_direction_the_attempt_and_the_doubt_are_told(log: tuple[LogEntry, ...], words: str) -> None:
    told = next_step(record(*log), KNOWN)

    assert told is not None
    assert told.words == words


def test_programs_get_the_step_the_action_and_the_attempt() -> None:
    told = next_step(record(RESERVED, REFUSED), KNOWN)

    assert told == NextStep(words="compensate reserve, attempt 1", step="reserve", action=Action.COMPENSATE, attempt=1)


@pytest.mark.parametrize(
    ("definitions", "why"),
    [
        (Definitions(MemorySagaStorage(), Registry()), PlaceOrder.graph.hash),
        (ConfigurationError("SAGAS_MODULES names\nnothing"), "SAGAS_MODULES names nothing"),
    ],
    ids=["a saga that is not in the code", "code that cannot be loaded"],
)
def test_code_that_is_not_here_is_said_instead(definitions: Definitions | ConfigurationError, why: str) -> None:
    told = next_step(record(), definitions)

    assert told is not None
    assert told.words.startswith("unknown to this shell: ")
    assert why in told.words
    assert (told.step, told.action, told.attempt) == (None, None, None)


def test_a_log_that_the_code_cannot_have_written_is_said_instead() -> None:
    told = next_step(record(completed("bake", Action.ACT)), KNOWN)

    assert told is not None
    assert "'bake'" in told.words


@pytest.mark.parametrize("status", [SagaStatus.COMPLETED, SagaStatus.COMPENSATED])
def test_a_finished_saga_has_no_next_step(status: SagaStatus) -> None:
    assert next_step(replace(record(RESERVED), status=status), KNOWN) is None


class Answer(Wait[None]):
    pass


class Nap(Sleep):
    duration = timedelta(hours=1)


class Ask(Saga[dict[str, str]]):
    steps = [Answer, Nap, Reserve]


@pytest.mark.parametrize(
    ("log", "words", "step"),
    [
        ((), "wait for answer", "answer"),
        ((completed("answer", Action.ACT),), "sleep: nap", "nap"),
        ((completed("answer", Action.ACT), completed("nap", Action.ACT)), "act reserve, attempt 1", "reserve"),
    ],
)
def test_what_a_saga_waits_for_is_its_next_step(log: tuple[LogEntry, ...], words: str, step: str) -> None:
    new = NewSaga(id=new_saga_id(), name="ask", context="{}", definition=Ask.graph.hash)
    waiting = replace(new.as_record(now=datetime.now(UTC)), log=log)

    told = next_step(waiting, Definitions(MemorySagaStorage(), Registry([Ask])))

    assert told is not None
    assert (told.words, told.step, told.action) == (words, step, Action.ACT)

"""Databases of other encodings than UTF8: what they can hold comes back as it was, the rest is refused by name."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import pytest
import sqlalchemy as sa

from sagas import Saga, SagaEngine, SagaStatus
from sagas.cli.migrate import migrate_database
from sagas.errors import CharacterNotStorable
from sagas.storage import PostgresSagaStorage
from sagas.storage.saga_filter import SagaFilter
from tests.databases import database
from tests.samples import Stage, Trip, always

#: PostgreSQL's name of an encoding → a text that it can hold. All that Python has a codec for were tried; these few
#: stand for them: one byte a character, several, an alphabet of its own, and none at all.
ENCODINGS: Final = {"LATIN1": "Grüße für Zoë", "WIN1251": "Привет", "EUC_JP": "注文", "SQL_ASCII": "Grüße 注文 🙂"}
#: A character that only UTF8 has, and SQL_ASCII, which stores whatever bytes it is sent.
ONLY_UTF8: Final = "🙂"


@pytest.fixture(scope="module", params=ENCODINGS)
def encoding(request: pytest.FixtureRequest) -> str:
    """PostgreSQL's name of an encoding."""
    return str(request.param)


@pytest.fixture(scope="module")
def encoded_url(server_url: sa.URL, encoding: str) -> Iterator[str]:
    """The URL of a migrated database of this encoding."""
    clause = f"ENCODING '{encoding}' TEMPLATE template0 LOCALE_PROVIDER libc LC_COLLATE 'C' LC_CTYPE 'C'"
    with database(server_url, clause) as engine:
        url = engine.url.render_as_string(hide_password=False)
        migrate_database(url)
        yield url


@pytest.fixture
def encoded(encoded_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[PostgresSagaStorage]:
    """A storage on it, in a process whose environment asks for another encoding."""
    monkeypatch.setenv("PGCLIENTENCODING", "LATIN1")
    storage = PostgresSagaStorage(encoded_url)
    yield storage
    storage.close()


def _saga(outcome: Any) -> type[Saga[Trip]]:
    stage = Stage()
    return stage.saga("flight", stage.step("hotel", act=always(outcome)))


def test_what_the_encoding_can_hold_comes_back_as_it_was(encoded: PostgresSagaStorage, encoding: str) -> None:
    text = ENCODINGS[encoding]
    trip = _saga(ValueError(f"no room: {text}"))
    engine = SagaEngine(encoded, sagas=[trip])

    saga_id = engine.start(trip, Trip(note=text), idempotency_key=text)
    assert engine.start(trip, Trip(), idempotency_key=text) == saga_id
    assert engine.start_many(trip, [Trip()] * 2, idempotency_keys=[text, text]) == [saga_id] * 2
    engine.recover(saga_id)

    saga = encoded.load(saga_id)
    assert saga.status is SagaStatus.COMPENSATED
    assert saga.idempotency_key == text
    assert text in saga.context
    assert saga.log[1].message == f"no room: {text}"


@pytest.mark.parametrize("place", ["key", "context", "many", "filter"])
def test_what_the_encoding_cannot_hold_is_refused_by_name(
    encoded: PostgresSagaStorage, encoding: str, place: str
) -> None:
    if encoding == "SQL_ASCII":
        pytest.skip("it stores whatever bytes it is sent")
    trip = Stage().saga("hotel")
    engine = SagaEngine(encoded, sagas=[trip])
    before = len(encoded.find(SagaFilter()))
    calls: dict[str, Any] = {
        "key": lambda: engine.start(trip, Trip(), idempotency_key=ONLY_UTF8),
        "context": lambda: engine.start(trip, Trip(note=ONLY_UTF8)),
        "many": lambda: engine.start_many(trip, [Trip(), Trip(note=ONLY_UTF8)]),
        "filter": lambda: encoded.find(SagaFilter(name=ONLY_UTF8)),
    }

    with pytest.raises(CharacterNotStorable, match=rf'encoding "{encoding}".*UTF8, which holds all') as caught:
        calls[place]()

    assert "\n" not in str(caught.value)
    assert len(encoded.find(SagaFilter())) == before


def test_an_error_whose_message_the_encoding_cannot_hold_is_spelled_out(
    encoded: PostgresSagaStorage, encoding: str
) -> None:
    trip = _saga(ValueError(f"no room {ONLY_UTF8}"))
    engine = SagaEngine(encoded, sagas=[trip])

    saga_id = engine.start(trip, Trip())
    report = engine.recover(saga_id)

    saga = encoded.load(saga_id)
    assert report.outcome == "compensated"
    assert saga.log[1].message == ("no room 🙂" if encoding == "SQL_ASCII" else r"no room \U0001f642")
    assert saga.last_error is not None
    assert "no room" in saga.last_error


def test_a_change_of_the_context_that_the_encoding_cannot_hold_counts_as_a_failed_attempt(
    encoded: PostgresSagaStorage, encoding: str
) -> None:
    if encoding == "SQL_ASCII":
        pytest.skip("it stores whatever bytes it is sent")

    def note(context: Trip, _: Any) -> None:
        context.note = ONLY_UTF8

    trip = _saga(note)
    engine = SagaEngine(encoded, sagas=[trip])

    saga_id = engine.start(trip, Trip())
    report = engine.recover(saga_id)

    saga = encoded.load(saga_id)
    assert report.outcome == "failed"
    assert (saga.recovery_attempts, saga.lease_owner) == (1, None)
    assert saga.last_error is not None
    assert encoding in saga.last_error

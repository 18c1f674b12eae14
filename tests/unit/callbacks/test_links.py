"""Making links: what is refused with a sentence, and what never shows the secret."""

from __future__ import annotations

import subprocess
import sys
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from sagas import MemorySagaStorage, SagaEngine, Settings, api, callback_url
from sagas.callbacks.links import LONGEST_URL, Links
from sagas.errors import ConfigurationError, InvalidSagaId, UnstorableText

SAGA_ID = UUID("01890a5d-ac96-774b-bcce-b302099a8057")
SECRET, FORMER = "x" * 31 + "1", "y" * 40


def engine(**settings: Any) -> SagaEngine:
    values = {"callback_secret": (SECRET,), "callback_url": "https://shop.example/callbacks", **settings}
    return SagaEngine(MemorySagaStorage(), settings=Settings(**values))


def link(**options: Any) -> str:
    return callback_url(
        options.pop("saga_id", SAGA_ID),
        options.pop("name", "courier"),
        options.pop("payload", None),
        **{"expires": timedelta(days=2), "engine": engine(), **options},
    )


def test_a_link_is_below_the_public_url_and_says_what_was_asked_for() -> None:
    url = link(choices={"Yes": {"at": datetime(2027, 1, 1)}, "No": None}, question="Soon?", link_id="a")

    base, _, token = url.rpartition("/")
    read = Links([SECRET]).read(token)

    assert base == "https://shop.example/callbacks"
    assert read is not None
    assert (read.saga_id, read.wait, read.question, read.link_id) == (SAGA_ID, "courier", "Soon?", "a")
    assert dict(read.choices) == {"Yes": {"at": "2027-01-01T00:00:00"}, "No": None}
    assert not read.expired


def test_the_engine_of_the_process_makes_links_by_default() -> None:
    api.configure(engine())
    try:
        assert callback_url(SAGA_ID, "courier", expires=timedelta(days=1)).startswith("https://shop.example/callbacks/")
    finally:
        api.configure(None)


def test_a_saga_is_named_by_its_id_as_text_too() -> None:
    assert link(saga_id=str(SAGA_ID))[:60] == link()[:60]
    with pytest.raises(InvalidSagaId):
        link(saga_id="order-7")


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"name": ""}, "name is '': give text of 1 to 255 characters"),
        ({"name": 7}, "name is 7: give text"),
        ({"expires": timedelta(0)}, "expires is .*: give a time from now of up to ten years, as timedelta"),
        ({"expires": timedelta(days=-1)}, "expires is"),
        ({"expires": timedelta(days=5000)}, "expires is"),
        ({"expires": 3600}, "expires is 3600"),
        ({"choices": {}}, "choices are {}: give 1 to 10 payloads by their labels"),
        ({"choices": {str(n): n for n in range(11)}}, "give 1 to 10 payloads"),
        ({"choices": {"": 1}}, "label is '': give text of 1 to 100"),
        ({"choices": {"a" * 101: 1}}, "label is 'aaa"),
        ({"choices": {7: 1}}, "label is 7"),
        ({"choices": ["Yes"]}, "choices are"),
        ({"choices": {"Yes": 1}, "payload": 2}, "got a payload and choices: give one of them"),
        ({"question": ""}, "question is '': give text"),
        ({"link_id": "a" * 201}, "link_id is 'aaa"),
        ({"payload": object()}, "a payload cannot be written as JSON .*: give data that the wait's type takes"),
        ({"payload": float("nan")}, "a payload cannot be written as JSON"),
        ({"payload": "x" * LONGEST_URL}, f"the link would have .* and more than {LONGEST_URL} may be cut off"),
        ({"question": "x" * LONGEST_URL}, "shorten the payloads and the question"),
    ],
)
def test_what_cannot_be_in_a_link_is_refused(options: dict[str, Any], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        link(**options)


def test_text_that_no_database_holds_is_refused() -> None:
    with pytest.raises(UnstorableText):
        link(link_id="a\0b")


# -- settings -------------------------------------------------------------------------------------------------------


def test_without_a_secret_or_an_address_no_link_is_made() -> None:
    with pytest.raises(ConfigurationError, match="SAGAS_CALLBACK_SECRET is not set: set it to a random text of 32"):
        link(engine=engine(callback_secret=()))
    with pytest.raises(ConfigurationError, match="SAGAS_CALLBACK_URL is not set: set it to the public URL where"):
        link(engine=engine(callback_url=None))


def test_several_secrets_are_separated_by_commas_and_the_first_signs() -> None:
    settings = Settings.from_environment({"SAGAS_CALLBACK_SECRET": f"{SECRET}, {FORMER},"})

    token = link(engine=engine(callback_secret=settings.callback_secret)).rpartition("/")[2]

    assert settings.callback_secret == (SECRET, FORMER)
    assert Links([SECRET]).read(token) is not None
    assert Links([FORMER]).read(token) is None
    assert Links([FORMER, SECRET]).read(token) is not None


def test_a_short_secret_is_refused_and_not_shown() -> None:
    short = "hunter2-but-longer"
    with pytest.raises(ConfigurationError) as refused:
        Settings.from_environment({"SAGAS_CALLBACK_SECRET": f"{SECRET},{short}"})

    assert "SAGAS_CALLBACK_SECRET: a secret has fewer than 32 characters: make one with `python -c" in str(
        refused.value
    )
    assert short not in str(refused.value)
    assert SECRET not in str(refused.value)


def test_a_secret_is_not_in_the_text_of_the_settings() -> None:
    made = engine()

    assert SECRET not in repr(made.settings)
    assert SECRET not in str(made.settings)
    assert SECRET not in repr(Links([SECRET]))


@pytest.mark.parametrize(
    "url",
    [
        *("shop.example/callbacks", "ftp://shop.example", "https://", "https://shop.example/?a=1"),
        *("https://shop.example/#a", "https://user@shop.example/", "https://shop.example/a b", "https://höst.example"),
    ],
)
def test_an_address_to_which_no_path_can_be_added_is_refused(url: str) -> None:
    with pytest.raises(ConfigurationError, match=r"SAGAS_CALLBACK_URL .*it is no URL to which a path can be added"):
        Settings.from_environment({"SAGAS_CALLBACK_URL": url})


def test_empty_variables_are_no_settings() -> None:
    settings = Settings.from_environment({"SAGAS_CALLBACK_URL": "", "SAGAS_CALLBACK_SECRET": ""})

    assert (settings.callback_url, settings.callback_secret) == (None, ())


def test_itsdangerous_is_imported_for_links_only_and_its_absence_has_a_sentence() -> None:
    script = """
import sys
sys.modules["itsdangerous"] = None
import sagas.callbacks
from sagas import Settings, MemorySagaStorage, SagaEngine, callback_url
from datetime import timedelta
engine = SagaEngine(MemorySagaStorage(), settings=Settings(callback_secret=("x" * 32,), callback_url="http://a"))
try:
    callback_url("01890a5d-ac96-774b-bcce-b302099a8057", "courier", expires=timedelta(days=1), engine=engine)
except sagas.callbacks.links.ConfigurationError as error:
    print(error)
"""
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)

    assert ran.stdout == (
        "callback links need itsdangerous, which is not installed: run `pip install 'celery-sagas[callbacks]'`.\n"
    )

"""URLs: no password is shown, wherever it stands, and one that cannot be read is refused with a sentence."""

from __future__ import annotations

import pytest

from sagas import Settings
from sagas.errors import ConfigurationError
from sagas.urls import check_broker_url, redacted

#: Each holds the password s3cr3t, as it should be written or as people write it.
HOLDING_A_PASSWORD = {
    "redis://:ab://cd@h/0": "redis://***@h/0",
    "redis://:s3cr3t@h:2/0": "redis://***@h:2/0",
    "redis://:s3cr3t/x@h:2/0": "redis://***@h:2/0",
    "redis://:s3cr3t?x@h:2/0": "redis://***@h:2/0",
    "redis://:s3cr3t#x@h:2/0": "redis://***@h:2/0",
    "redis://u:s3@s3cr3t@h:2/0": "redis://***@h:2/0",
    "redis://u:s3;s3cr3t@h:2/0": "redis://***@h:2/0",
    "redis://u:s3 s3cr3t@h:2/0": "redis://***@h:2/0",
    "redis://s3cr3t@h": "redis://***@h",
    "redis://:s3cr3t@[::1]:2/0": "redis://***@[::1]:2/0",
    "redis://h/0;redis://:s3cr3t@h2/0": "redis://h/0;redis://***@h2/0",
    "sentinel://:s3cr3t@h:1;sentinel://:s3cr3t@h2:1": "sentinel://***@h:1;sentinel://***@h2:1",
    "redis://:s3cr3t/h:6379/0": "redis://:***/h:6379/0",
    "redis://:s3cr3t": "redis://:***",
    "redis://u:s3cr3t": "redis://u:***",
    "redis://u:1-s3cr3t/0": "redis://u:***/0",
    "redis://u:s3cr3t:6379/0": "redis://u:***/0",
    "redis://h/0?password=s3cr3t&socket_timeout=3": "redis://h/0?password=***&socket_timeout=3",
    "redis://h/0?x=1&SENTINEL_PASSWD=s3cr3t": "redis://h/0?x=1&SENTINEL_PASSWD=***",
    "amqp://u:s3cr3t@h:5672//": "amqp://***@h:5672//",
    "postgresql+psycopg://u:s3cr3t/x@h:5432/shop": "postgresql+psycopg://***@h:5432/shop",
    "postgresql+psycopg://h/shop?user=u&password=s3cr3t": "postgresql+psycopg://h/shop?user=u&password=***",
    "db+postgresql://u:s3cr3t@h/results": "db+postgresql://***@h/results",
}
#: None of them holds a password.
HARMLESS = [
    "redis://",
    "redis://h",
    "redis://h:6379/0",
    "redis://[::1]:6379/0",
    "redis+socket:///run/redis.sock?virtual_host=3",
    "sentinel://h:26379;sentinel://h2:26379",
    "amqp://h:5672/shop%2Forders",
    "memory://",
]


@pytest.mark.parametrize(("url", "shown"), HOLDING_A_PASSWORD.items())
def test_no_password_is_shown_wherever_it_stands_in_a_url(url: str, shown: str) -> None:
    assert redacted(url) == shown
    assert redacted(f"the broker at {url} is away") == f"the broker at {shown} is away"


@pytest.mark.parametrize("url", HARMLESS)
def test_urls_without_a_password_are_shown_as_they_are_and_accepted(url: str) -> None:
    message = f"the broker at {url} did not answer (see {url}, or ({url}))."
    assert redacted(message) == message
    assert check_broker_url(url) == url


@pytest.mark.parametrize(
    "url",
    [
        *("redis://h:notaport/0", "redis://h:99999/0", "redis://h:0/0", "redis://[h/0", "redis://h..x/0"),
        *("redis://:s3cr3t/x@h:2/0", "redis://:s3cr3t?x@h:2/0", "redis://h/0?x@s3cr3t", "amqp://u:s3cr3t/x@h//"),
        *("redis://u:s3 s3cr3t@h/0", "redis://h/0\ns3cr3t", "redis://h/\udcff"),
        *("redis://h/notadb", "redis://h/0/1", "redis://h/-1", "valkeys://h/s3cr3t", "rediss://h/0;redis://h/s3cr3t"),
        *("", "localhost", "bogus://h", "http://h/0", "redis:/h", "://h", "redis://h/0;s3cr3t", "redis://h/0;"),
        *("s3cr3t://h", "redis://u:s3;s3cr3t@h/0"),
    ],
)
def test_a_broker_url_that_cannot_be_read_is_one_sentence_without_it(url: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Settings.from_environment({"SAGAS_BROKER_URL": url})

    sentence = str(caught.value)
    assert sentence.startswith("SAGAS_BROKER_URL: ")
    assert "s3cr3t" not in sentence
    assert "redis://" in sentence or "write it as " in sentence


@pytest.mark.parametrize("url", ["redis://h:notaport/0", "redis://h/s3cr3t", "redis://:s3cr3t/x@h:2/0"])
def test_a_result_backend_that_cannot_be_read_is_one_sentence_without_it(url: str) -> None:
    with pytest.raises(ConfigurationError, match=r"^SAGAS_RESULT_BACKEND: ") as caught:
        Settings.from_environment({"SAGAS_RESULT_BACKEND": url})

    assert "s3cr3t" not in str(caught.value)


@pytest.mark.parametrize("url", ["rpc://", "db+postgresql://u:a/b@h/results", "django-db", "cache+memcached://h:1/"])
def test_other_result_backends_are_celerys_to_read(url: str) -> None:
    assert Settings.from_environment({"SAGAS_RESULT_BACKEND": url}).result_backend == url


def test_settings_made_in_code_do_not_show_a_url_that_is_refused() -> None:
    with pytest.raises(ValueError, match="broker_url") as caught:
        Settings(broker_url="redis://:s3cr3t/x@h:2/0")

    assert "s3cr3t" not in str(caught.value)

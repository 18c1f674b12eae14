"""Settings: read from the environment, each bad value named with its cure."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from sagas import Settings
from sagas.errors import ConfigurationError

NUMBERS = [
    "LEASE_SECONDS",
    "SCAN_INTERVAL_SECONDS",
    "SCAN_LIMIT",
    "MAX_RECOVERY_ATTEMPTS",
    "BACKOFF_SECONDS",
    "MAX_BACKOFF_SECONDS",
    "RETENTION_DAYS",
]
SECRET = "postgresql+psycopg://shop:hunter2@db/shop"


def refused(**environment: str) -> str:
    with pytest.raises(ConfigurationError) as caught:
        Settings.from_environment(environment)
    return str(caught.value)


def test_defaults_are_those_of_the_documentation() -> None:
    settings = Settings.from_environment({})

    assert settings == Settings()
    assert settings.model_dump(exclude={"database_url", "broker_url"}) == {
        "database_pool_size": 20,
        "result_backend": None,
        "celery_app": None,
        "modules": (),
        "resolver": None,
        "lease_seconds": 30.0,
        "scan_interval_seconds": 5.0,
        "scan_limit": 1000,
        "max_recovery_attempts": 5,
        "backoff_seconds": 5.0,
        "max_backoff_seconds": 300.0,
        "retention_days": None,
        "metrics_port": None,
        "callback_secret": (),
        "callback_url": None,
        "console_password": None,
        "console_viewer_password": None,
        "console_secret": None,
    }


def test_every_setting_has_a_variable_of_its_name() -> None:
    settings = Settings.from_environment(
        {
            "SAGAS_DATABASE_URL": SECRET,
            "SAGAS_DATABASE_POOL_SIZE": "7",
            "SAGAS_BROKER_URL": "redis://other/3",
            "SAGAS_RESULT_BACKEND": "redis://other/4",
            "SAGAS_CELERY_APP": "shop.celery:app",
            "SAGAS_MODULES": "shop.orders, shop.refunds,",
            "SAGAS_RESOLVER": "shop.container:resolve",
            "SAGAS_LEASE_SECONDS": "12.5",
            "SAGAS_SCAN_INTERVAL_SECONDS": "1",
            "SAGAS_SCAN_LIMIT": "20",
            "SAGAS_MAX_RECOVERY_ATTEMPTS": "7",
            "SAGAS_BACKOFF_SECONDS": "2",
            "SAGAS_MAX_BACKOFF_SECONDS": "20",
            "SAGAS_RETENTION_DAYS": "30",
            "SAGAS_METRICS_PORT": "9809",
            "SAGAS_CALLBACK_SECRET": f"{'n' * 32},{'o' * 32}",
            "SAGAS_CALLBACK_URL": "https://shop.example/callbacks",
            "SAGAS_CONSOLE_PASSWORD": "an-operators-password",
            "SAGAS_CONSOLE_VIEWER_PASSWORD": "a-viewers-password",
            "SAGAS_CONSOLE_SECRET": "c" * 32,
            "LEASE_SECONDS": "99",
        }
    )

    assert settings.model_dump() == {
        "database_url": SECRET,
        "database_pool_size": 7,
        "broker_url": "redis://other/3",
        "result_backend": "redis://other/4",
        "celery_app": "shop.celery:app",
        "modules": ("shop.orders", "shop.refunds"),
        "resolver": "shop.container:resolve",
        "lease_seconds": 12.5,
        "scan_interval_seconds": 1,
        "scan_limit": 20,
        "max_recovery_attempts": 7,
        "backoff_seconds": 2,
        "max_backoff_seconds": 20,
        "retention_days": 30,
        "metrics_port": 9809,
        "callback_secret": ("n" * 32, "o" * 32),
        "callback_url": "https://shop.example/callbacks",
        "console_password": "an-operators-password",
        "console_viewer_password": "a-viewers-password",
        "console_secret": "c" * 32,
    }


def test_environment_is_that_of_the_process_unless_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAGAS_SCAN_LIMIT", "3")

    assert Settings.from_environment().scan_limit == 3


@pytest.mark.parametrize("name", ["RESULT_BACKEND", "RESOLVER", "RETENTION_DAYS"])
def test_empty_variable_of_an_optional_setting_means_none(name: str) -> None:
    assert getattr(Settings.from_environment({f"SAGAS_{name}": ""}), name.lower()) is None


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("value", ["0", "-1"])
def test_number_that_is_not_above_zero_is_refused(name: str, value: str) -> None:
    assert refused(**{f"SAGAS_{name}": value}) == f"SAGAS_{name} (it is '{value}'): Input should be greater than 0."


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("value", ["soon", "1e", "inf", "nan", "1e99"])
def test_number_that_is_none_or_without_bound_is_refused(name: str, value: str) -> None:
    assert refused(**{f"SAGAS_{name}": value}).startswith(f"SAGAS_{name} (it is '{value}'): Input should be ")


def test_first_backoff_above_the_longest_is_refused() -> None:
    message = refused(SAGAS_BACKOFF_SECONDS="10", SAGAS_MAX_BACKOFF_SECONDS="5")

    assert message == "SAGAS settings: backoff_seconds must not exceed max_backoff_seconds."


def test_every_bad_value_gets_a_sentence() -> None:
    message = refused(SAGAS_SCAN_LIMIT="-1", SAGAS_LEASE_SECONDS="long")

    assert "SAGAS_SCAN_LIMIT (it is '-1'): Input should be greater than 0." in message
    assert "SAGAS_LEASE_SECONDS (it is 'long'): Input should be a valid number" in message


def test_urls_with_their_passwords_are_never_shown() -> None:
    settings = Settings(database_url=SECRET, broker_url="redis://:hunter2@h/0", result_backend=SECRET)

    assert "hunter2" not in f"{settings!r} {settings}"
    assert "hunter2" not in refused(
        SAGAS_DATABASE_URL=SECRET,
        SAGAS_BROKER_URL=SECRET,
        SAGAS_RESULT_BACKEND=SECRET,
        SAGAS_BACKOFF_SECONDS="10",
        SAGAS_MAX_BACKOFF_SECONDS="5",
    )


def test_settings_cannot_be_changed_and_unknown_ones_are_refused() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Settings().scan_limit = 3
    with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
        Settings(scan_limits=3)  # type: ignore[call-arg]

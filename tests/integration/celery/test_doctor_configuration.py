"""The check of a Celery application's settings, each set as a user would set it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from celery import Celery

from sagas import Saga, Settings, Step, api
from sagas.celery import install
from sagas.celery.configuration import configuration
from sagas.celery.doctor import CONFIGURATION
from sagas.celery.doctor import configuration as check_configuration
from sagas.doctor import Finding, Installation
from sagas.registry import Registry
from tests.integration.celery.samples import Job

_OURS = configuration(Settings())
_TRANSPORT = _OURS["broker_transport_options"]


class Slow(Step[Job]):
    timeout = 3600.0

    def act(self, context: Job, call: object) -> None:
        pass


class Slower(Slow):
    timeout = 100_000.0


class SlowSaga(Saga[Job]):
    steps = [Slow, Slower]


@pytest.fixture
def found(monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, Finding]]:
    """Returns what is found of our settings with these changes, by id."""
    monkeypatch.setattr(api, "_defaults", {})

    def find(
        ours: dict[str, Any] = _OURS, sagas: tuple[type[Saga[Job]], ...] = (), **changed: Any
    ) -> dict[str, Finding]:
        app = Celery("shop", set_as_current=False)
        app.config_from_object({**ours, **changed})
        install(app)
        installation = Installation({}, settings=Settings(), registry=Registry(sagas))
        findings = {each.id: each for each in check_configuration(app, installation) if isinstance(each, Finding)}
        assert set(findings) <= {finding.id for finding in CONFIGURATION.findings}
        return findings

    return find


def test_our_own_settings_are_well(found: Callable[..., dict[str, Finding]]) -> None:
    assert not found()


@pytest.mark.parametrize(
    ("changed", "expected", "what"),
    [
        ({"accept_content": ["json", "pickle"]}, "pickle-accepted", "accept_content is ['json', 'pickle']."),
        (
            {"result_accept_content": ["application/x-python-serialize"]},
            "pickle-accepted",
            "result_accept_content is ['application/x-python-serialize'].",
        ),
        ({"task_serializer": "pickle"}, "pickle-accepted", "task_serializer is 'pickle'."),
        (
            {"accept_content": ["yaml"]},
            "celery-settings-refused",
            "accept_content of the Celery application shop is ['yaml'], and sagas travel as JSON: add 'json' to it, "
            "or let a worker of another application take the queues of sagas.",
        ),
        (
            {"task_always_eager": True},
            "celery-settings-refused",
            "task_always_eager of the Celery application shop is on, so a scan would run every saga by itself: turn it "
            "off for workers; it is meant for tests.",
        ),
        ({"worker_prefetch_multiplier": 4}, "prefetch", "worker_prefetch_multiplier is 4."),
        ({"worker_prefetch_multiplier": 0}, "prefetch", "worker_prefetch_multiplier is 0, no limit."),
        (
            {"worker_cancel_long_running_tasks_on_connection_loss": True},
            "cancelled-on-connection-loss",
            "worker_cancel_long_running_tasks_on_connection_loss is on.",
        ),
        (
            {"broker_transport_options": {**_TRANSPORT, "visibility_timeout": 10}},
            "visibility-timeout-short",
            "visibility_timeout is 10 s, and a saga may hold its message for 30 s.",
        ),
        (
            {"broker_transport_options": {**_TRANSPORT, "socket_timeout": None}},
            "broker-link-unwatched",
            "broker_transport_options have no socket_timeout.",
        ),
        (
            {"broker_url": "amqp://guest@127.0.0.1:1//", "broker_transport_options": {}, "broker_heartbeat": 0},
            "broker-link-unwatched",
            "broker_heartbeat is off.",
        ),
    ],
)
def test_each_setting_that_works_against_sagas_is_reported_alone(
    found: Callable[..., dict[str, Finding]], changed: dict[str, Any], expected: str, what: str
) -> None:
    (finding,) = found(**changed).values()
    assert (finding.id, finding.what) == (expected, what)


@pytest.mark.parametrize(
    "changed",
    [
        {"task_time_limit": 1, "task_soft_time_limit": 1},
        {"task_acks_late": False},
        {"task_reject_on_worker_lost": True},
        {"task_ignore_result": True},
        {"result_backend": None},
        {"task_routes": {"sagas.*": {"queue": "elsewhere"}}},
        {"beat_schedule": {}},
        {"beat_scheduler": "celery.beat:PersistentScheduler"},
    ],
)
def test_what_the_tasks_say_for_themselves_is_no_finding(
    found: Callable[..., dict[str, Finding]], changed: dict[str, Any]
) -> None:
    assert not found(**changed)


def test_a_visibility_timeout_below_all_steps_together_is_reported_with_the_one_to_set(
    found: Callable[..., dict[str, Finding]],
) -> None:
    (finding,) = found(sagas=(SlowSaga,)).values()
    assert finding.id == "visibility-timeout-short"
    assert "at least to 103600" in finding.cure


def test_an_application_with_celerys_defaults_gets_warnings_only(found: Callable[..., dict[str, Finding]]) -> None:
    findings = found(ours={"broker_url": "redis://127.0.0.1:1/0"})
    assert set(findings) == {"prefetch", "broker-link-unwatched"}

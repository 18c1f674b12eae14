"""What `install(app)` adds to an application, and that it changes nothing else of it."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Iterator
from typing import Any

import pytest
from celery import Celery, _state, current_app, signals
from celery.beat import Service
from celery.contrib.testing.worker import start_worker
from celery.schedules import crontab

import sagas.celery
from sagas import SagaStatus, Settings, api
from sagas.celery import application, install, installation
from sagas.celery.dispatch import CeleryDispatcher
from sagas.celery.installation import add_sagas
from sagas.celery.names import QUEUES, ROUTES
from sagas.errors import ConfigurationError
from tests.integration.celery.samples import Job, ThreeSteps
from tests.integration.celery.shop import ContextTask, make

NOWHERE = "redis://127.0.0.1:1/0"


@pytest.fixture(autouse=True)
def process_without_sagas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "_defaults", {})
    monkeypatch.setattr(installation, "_installed", [])
    monkeypatch.setattr(application, "_own", None)
    for name in ("SAGAS_CELERY_APP", "SAGAS_BROKER_URL"):
        monkeypatch.delenv(name, raising=False)


def queue_of(app: Celery, task: str) -> str:
    name: str = app.amqp.router.route({}, task, (), {})["queue"].name
    return name


@pytest.mark.parametrize("theirs", [{"shop.*": {"queue": "mail"}}, [{"shop.*": "mail"}], ({"shop.*": "mail"},), None])
@pytest.mark.parametrize("when", ["before", "after", "between"])
def test_the_applications_routes_stay_its_own(theirs: Any, when: str) -> None:
    app = Celery("shop", broker=NOWHERE, set_as_current=False)
    if when == "before":
        app.conf.task_routes = theirs
    install(app)
    if when == "between":
        assert queue_of(app, "sagas.scan") == "sagas.scan"
    if when != "before":
        app.conf.update(task_routes=theirs)
    assert app.conf.task_routes == theirs
    assert {task: queue_of(app, task) for task in ROUTES} == ROUTES
    assert queue_of(app, "shop.mail") == ("mail" if theirs else "celery")
    assert queue_of(app, "other") == "celery"
    assert not set(QUEUES) & set(app.amqp.queues)


def test_settings_of_the_old_names_are_kept_too() -> None:
    app = Celery("shop", set_as_current=False)
    app.config_from_object(
        {
            "BROKER_URL": NOWHERE,
            "CELERY_ROUTES": {"sagas.*": {"queue": "x"}, "shop.*": {"queue": "mail"}},
            "CELERY_DEFAULT_QUEUE": "shop",
            "CELERYD_TASK_TIME_LIMIT": 5,
            "CELERY_ACKS_LATE": False,
        }
    )
    install(app)
    assert {task: queue_of(app, task) for task in ROUTES} == ROUTES
    assert (queue_of(app, "shop.mail"), queue_of(app, "other")) == ("mail", "shop")
    assert app.tasks["sagas.run_saga"].acks_late


def test_tasks_of_sagas_are_as_they_must_be_whatever_the_application_has() -> None:
    app = make(NOWHERE, set_as_current=False)
    for name in ROUTES:
        task = app.tasks[name]
        assert isinstance(task, ContextTask)
        assert (task.acks_late, task.reject_on_worker_lost, task.acks_on_failure_or_timeout) == (True, False, True)
        assert (task.serializer, task.queue, task.expires, task.rate_limit) == ("json", None, None, 0)
        assert (task.time_limit, task.soft_time_limit, task.ignore_result) == (0, 0, False)
        assert not hasattr(task, "_orig_run"), "Celery would retry it by itself"


def test_beat_of_an_application_keeps_its_entries_and_sends_scans(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAGAS_RETENTION_DAYS", "30")
    app = make(NOWHERE, set_as_current=False, beat_scheduler="celery.beat:Scheduler")
    mine = {"schedule": crontab(minute="7"), "task": "sagas.prune"}
    app.conf.beat_schedule["sagas.prune"] = mine
    before = dict(app.conf.beat_schedule)
    service = Service(app)
    signals.beat_init.send(sender=service)
    signals.beat_init.send(sender=Service(make(NOWHERE, set_as_current=False, sagas=False)))
    assert set(service.scheduler.schedule) >= {"tick", "sagas.scan", "sagas.prune"}
    assert service.scheduler.schedule["sagas.prune"].schedule == mine["schedule"]
    assert app.conf.beat_schedule == before


def test_the_application_that_install_was_called_for_last_carries_sagas() -> None:
    early = CeleryDispatcher()
    first, second = (Celery(name, broker=NOWHERE, set_as_current=False) for name in ("first", "second"))
    install(first)
    install(second)
    assert application.own_application().main == "sagas"
    assert CeleryDispatcher().app is second
    install(first)
    assert early.app is first
    assert api._defaults["dispatcher"].app is first


def test_a_proxy_is_the_application_behind_it(monkeypatch: pytest.MonkeyPatch) -> None:
    shop = Celery("shop", broker=NOWHERE, set_as_current=False)
    monkeypatch.setattr(_state._tls, "current_app", shop, raising=False)
    install(current_app)
    assert installation.installed() is shop
    assert "sagas.scan" in shop.tasks


def test_an_unreadable_broker_is_an_error_for_programs_and_ends_commands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAGAS_BROKER_URL", "sentinel://:s3cr3t@h:1/0")
    with pytest.raises(ConfigurationError, match="SAGAS_BROKER_URL names a Sentinel"):
        CeleryDispatcher().send([])
    with pytest.raises(SystemExit, match="error: SAGAS_BROKER_URL names a Sentinel"):
        sagas.celery.app  # noqa: B018


@pytest.mark.parametrize("url", ["redis://h/0?s3cr3t=1", "amqp://u:s3cr3t@h//?foo=bar", "redis://h/0;redis://h2/0?x=1"])
def test_options_that_celery_does_not_take_are_one_sentence(url: str) -> None:
    with pytest.raises(ConfigurationError, match="has an option after its") as caught:
        application.SagaCelery(Settings(broker_url=url))
    assert "s3cr3t" not in str(caught.value)


def test_sagas_started_before_and_after_install_travel_as_the_last_one_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "_defaults", {})
    api.configure(None)
    first, second = (Celery(name, set_as_current=False) for name in ("first", "second"))
    try:
        for app in (first, second):
            install(app)
            assert api.current_engine().dispatcher.app is app
    finally:
        api.configure(None)


@pytest.fixture
def logging_as_before() -> Iterator[None]:
    """Undoes what a worker within this process makes of the root logger."""
    root = logging.getLogger()
    level, handlers = root.level, [*root.handlers]
    yield
    root.setLevel(level)
    root.handlers[:] = handlers


@pytest.mark.usefixtures("logging_as_before")
def test_worker_that_ended_leaves_its_process_as_it_was(
    database_url: str, broker_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api, "_defaults", {})
    app = Celery("shop", broker=broker_url, set_as_current=False)
    install(app, Settings(database_url=database_url, modules=("tests.integration.celery.samples",)))
    with start_worker(app, pool="solo", queues=["sagas.run"], perform_ping_check=False, shutdown_timeout=60):
        pass
    try:
        assert api.run(ThreeSteps, Job()).status is SagaStatus.COMPLETED
    finally:
        api.configure(None)


def test_an_applications_url_that_cannot_be_read_shows_no_password() -> None:
    app = Celery("shop", broker="redis://:s3cr3t/x@127.0.0.1:2/0", set_as_current=False)
    add_sagas(app)
    with pytest.raises(ConfigurationError, match="the broker's URL of the Celery application shop") as caught:
        CeleryDispatcher(app).length("sagas.run")
    assert "s3cr3t" not in "".join(traceback.format_exception(caught.value))

"""What is told of Celery's settings, each set as a user would: after ours, in a module of their own."""

from __future__ import annotations

import importlib
import itertools
from collections.abc import Callable
from pathlib import Path

import pytest
from celery import Celery

from sagas import Saga, Settings, Step
from sagas.celery.doctor.configuration import CONFIGURATION, contradictions
from sagas.doctor import Finding
from sagas.registry import Registry
from tests.tasks.samples import Job

_numbers = itertools.count(1)


class Slow(Step[Job]):
    timeout = 3600.0

    def act(self, context: Job, call: object) -> None:
        pass


class Slower(Slow):
    timeout = 100_000.0


class SlowSaga(Saga[Job]):
    steps = [Slow, Slower]


@pytest.fixture
def found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, Finding]]:
    """Returns what is found of ours and these lines, by id."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delenv("SAGAS_BROKER_URL", raising=False)

    def find(*lines: str, sagas: tuple[type[Saga[Job]], ...] = (), ours: str = "celeryconfig") -> dict[str, Finding]:
        name = f"users_config_{next(_numbers)}"
        begin = [f"from {ours} import *"] if ours else []
        (tmp_path / f"{name}.py").write_text("\n".join([*begin, *lines]))
        importlib.invalidate_caches()
        app = Celery("test", set_as_current=False)
        app.config_from_object(name, force=True)
        findings = {each.id: each for each in contradictions(app, Settings(), Registry(sagas))}
        assert set(findings) <= {kind.id for kind in CONFIGURATION.kinds}
        return findings

    return find


def test_our_own_settings_are_well(found: Callable[..., dict[str, Finding]]) -> None:
    assert not found()


@pytest.mark.parametrize(
    ("line", "expected", "told"),
    [
        ("accept_content = ['json', 'pickle']", "pickle-accepted", "accept_content holds 'pickle'."),
        (
            "result_accept_content = ['application/x-python-serialize']",
            "pickle-accepted",
            "result_accept_content holds 'application/x-python-serialize'.",
        ),
        ("task_serializer = 'pickle'", "pickle-accepted", "task_serializer is 'pickle'."),
        ("result_backend = None", "results-missing", "there is no result backend."),
        ("task_ignore_result = True", "results-missing", "task_ignore_result is on."),
        (
            "task_routes = {'sagas.*': {'queue': 'sagas.run'}}",
            "route-lost",
            "sagas.recover_saga is sent to the queue sagas.run, and belongs into sagas.recover.",
        ),
        ("beat_schedule = {}", "scan-not-scheduled", "none of the 0 entries of beat_schedule is a scan."),
        (
            "beat_scheduler = 'celery.beat:PersistentScheduler'",
            "beat-scheduler",
            "beat_scheduler is celery.beat:PersistentScheduler.",
        ),
        ("task_time_limit = 600", "time-limit", "task_time_limit is 600 s."),
        ("task_acks_late = False", "acks-early", "task_acks_late is off."),
        ("task_reject_on_worker_lost = True", "reject-on-worker-lost", "task_reject_on_worker_lost is on."),
        ("worker_prefetch_multiplier = 4", "prefetch", "worker_prefetch_multiplier is 4."),
        ("worker_prefetch_multiplier = 0", "prefetch", "worker_prefetch_multiplier is 0, no limit."),
        ("worker_enable_remote_control = False", "remote-control-off", "worker_enable_remote_control is off."),
        (
            "broker_transport_options = {**broker_transport_options, 'visibility_timeout': 10}",
            "visibility-timeout-short",
            "visibility_timeout is 10 s, and a saga may hold its message for 30 s.",
        ),
        (
            "broker_transport_options = {**broker_transport_options, 'socket_timeout': None}",
            "broker-link-unwatched",
            "broker_transport_options have no socket_timeout.",
        ),
        (
            "broker_url = 'amqp://guest@127.0.0.1:1//'; broker_transport_options = {}; broker_heartbeat = 0",
            "broker-link-unwatched",
            "broker_heartbeat is off.",
        ),
    ],
)
def test_each_setting_that_works_against_sagas_is_told_alone(
    found: Callable[..., dict[str, Finding]], line: str, expected: str, told: str
) -> None:
    (finding,) = found(line).values()
    assert (finding.id, finding.what) == (expected, told)


def test_a_time_limit_below_a_steps_own_is_told_with_the_step(found: Callable[..., dict[str, Finding]]) -> None:
    findings = found("task_time_limit = 3600", sagas=(SlowSaga,))
    assert findings["time-limit-below-timeout"].what == "Slower may take 100000 s, and task_time_limit is 3600 s."
    assert "`timeout` of Slower" in findings["time-limit-below-timeout"].cure


def test_a_visibility_timeout_below_all_steps_together_is_told_with_the_one_to_set(
    found: Callable[..., dict[str, Finding]],
) -> None:
    (finding,) = found(sagas=(SlowSaga,)).values()
    assert finding.id == "visibility-timeout-short"
    assert "at least to 103600" in finding.cure


def test_a_module_that_begins_without_ours_is_told_all_that_it_lacks(found: Callable[..., dict[str, Finding]]) -> None:
    assert set(found("broker_url = 'redis://127.0.0.1:1/0'", ours="")) == {
        "results-missing",
        "route-lost",
        "scan-not-scheduled",
        "beat-scheduler",
        "acks-early",
        "prefetch",
        "broker-link-unwatched",
    }

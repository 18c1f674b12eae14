"""Plain Celery with the settings of sagas and a task that does nothing, to measure the cost of a message alone."""

from __future__ import annotations

from celery import Celery

from sagas.celery.configuration import configuration
from sagas.celery.tasks import OPTIONS
from sagas.settings import Settings

app = Celery("no-op", set_as_current=False)
app.config_from_object(configuration(Settings.from_environment()))


@app.task(name="bench.no_op", **OPTIONS)
def no_op(saga_id: str, version: int) -> None:
    """Do nothing, under the settings of sagas."""

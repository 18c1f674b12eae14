"""The sagas' own application, and one more task that does nothing: what a message through Celery costs by itself."""

from __future__ import annotations

from sagas.celery import app
from sagas.celery.tasks import OPTIONS

__all__ = ["app"]


@app.task(name="bench.no_op", **OPTIONS)
def no_op(saga_id: str, version: int) -> None:
    """Do nothing, under the settings of sagas."""

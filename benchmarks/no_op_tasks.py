"""The application of `tasks`, and one more task that does nothing: what a message through Celery costs by itself."""

from __future__ import annotations

from tasks.application import app

__all__ = ["app"]


@app.task(name="bench.no_op")
def no_op(saga_id: str, version: int) -> None:
    """Do nothing, under the settings of sagas."""

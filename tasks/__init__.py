"""The Celery application of the sagas: `celery -A tasks worker`, `celery -A tasks beat`."""

from tasks.application import app

__all__ = ["app"]

"""A worker's answers to `sagas doctor`, through Celery's remote control."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from celery import Celery
from celery.worker.control import inspect_command

from sagas import api
from sagas.urls import address


def register(_: Celery) -> None:
    """Make workers of this process answer; Celery keeps one list of remote commands for all applications."""
    inspect_command()(sagas_settings)


def sagas_settings(_: Any, **__: Any) -> dict[str, Any]:
    """Return the address of the database that this worker uses."""
    return {"database": address(sa.make_url(api.settings().database_url))}

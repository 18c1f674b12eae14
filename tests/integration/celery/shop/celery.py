"""The application as its workers and its beat have it, and what the shop does at Celery's signals."""

from __future__ import annotations

import json
import logging
import os
from typing import Any

from celery import signals

from tests.integration.celery.shop import make, note

app = make(os.environ["SHOP_BROKER"], **json.loads(os.environ.get("SHOP_SETTINGS", "{}")))


@signals.setup_logging.connect
def set_logging_up(**_: Any) -> None:
    logging.basicConfig(level=logging.INFO, format="shop's own: %(message)s")
    note("setup_logging")


@signals.celeryd_init.connect
def worker_begins(**_: Any) -> None:
    note("celeryd_init")


@signals.worker_init.connect
def worker_is_made(**_: Any) -> None:
    note("worker_init")


@signals.beat_init.connect
def beat_begins(**_: Any) -> None:
    note("beat_init")


@signals.task_prerun.connect
def task_begins(sender: Any, **_: Any) -> None:
    note(f"prerun-{sender.name.rpartition('.')[2]}")


@signals.task_postrun.connect
def task_ended(sender: Any, **_: Any) -> None:
    note(f"postrun-{sender.name.rpartition('.')[2]}")


@app.task(bind=True)
def who(self: Any) -> str:
    """Return what the base class has set up."""
    return f"{self.name} in {self.context}"


@app.task(bind=True, rate_limit="100/s")
def unsteady(self: Any) -> int:
    """Fail once with what is retried automatically."""
    if self.request.retries == 0:
        raise ValueError("once")
    return int(self.request.retries)

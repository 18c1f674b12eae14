"""A shop that had a Celery application before it had sagas; `celery -A tests.integration.celery.shop` runs it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from celery import Celery, Task
from celery.beat import PersistentScheduler
from kombu import Exchange, Queue

from sagas.celery import install

#: The queues of the shop, which are all that its workers take without -Q.
QUEUES = "shop,mail"
HARD_LIMIT_SECONDS = 2


def note(what: str) -> None:
    """Write down that something happened, one file for each event."""
    folder = Path(os.environ["SHOP_FOLDER"])
    (folder / f"{what}.{len(list(folder.iterdir()))}.{os.getpid()}").touch()


def noted(folder: Path, what: str) -> int:
    """Return how often something happened."""
    return len(list(folder.glob(f"{what}.*")))


class ContextTask(Task):
    """The base of all tasks of the shop, which has options that would be wrong for sagas."""

    context: str | None = None
    queue = "mail"
    expires = 3600
    acks_late = False
    autoretry_for = (ValueError,)
    max_retries = 1
    default_retry_delay = 0
    time_limit = 3600

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the task in a context, as applications for Flask do."""
        type(self).context = self.name
        try:
            return super().__call__(*args, **kwargs)
        finally:
            type(self).context = None


class ShopScheduler(PersistentScheduler):
    """Keeps what is scheduled in a place of its own, as schedulers do that keep it in a database."""

    def setup_schedule(self) -> None:
        """Begin with what was kept."""
        self.kept: dict[str, Any] = {}
        self.update_from_dict(self.app.conf.beat_schedule)

    @property
    def schedule(self) -> dict[str, Any]:
        """Return what is scheduled."""
        return self.kept

    def update_from_dict(self, entries: dict[str, Any]) -> None:
        """Keep these, too."""
        self.kept.update({name: self._maybe_entry(name, entry) for name, entry in entries.items()})

    def sync(self) -> None:
        """Everything is kept already."""


def by_name(name: str, args: Any, kwargs: Any, options: Any, task: Any = None, **_: Any) -> dict[str, str] | None:
    """Send what is about mail to its queue."""
    return {"queue": "mail"} if name.endswith(".mail") else None


def make(broker_url: str, *, set_as_current: bool = True, sagas: bool = True, **changed: Any) -> Celery:
    """Return the shop's application, whose settings have a prefix of their own."""
    app = Celery(
        "shop", task_cls=ContextTask, include=["tests.integration.celery.shop.tasks"], set_as_current=set_as_current
    )
    settings = {
        "broker_url": broker_url,
        "result_backend": broker_url if broker_url.startswith("redis") else "rpc://",
        "task_serializer": "yaml",
        "result_serializer": "yaml",
        "accept_content": ["yaml", "json"],
        "task_default_queue": "shop",
        "task_queues": [Queue("shop", Exchange("shop"), "shop"), Queue("mail", Exchange("mail"), "mail")],
        "task_create_missing_queues": False,
        "task_routes": [{"*.report": {"queue": "mail"}, "sagas.*": {"queue": "shop"}}, by_name],
        # Once, and then not for an hour: whatever this limit reaches comes to nothing in a test.
        "task_default_rate_limit": "1/h",
        "task_annotations": {"*": {"time_limit": HARD_LIMIT_SECONDS, "acks_late": False}},
        "task_acks_late": True,
        "task_reject_on_worker_lost": True,
        "task_ignore_result": False,
        "task_time_limit": HARD_LIMIT_SECONDS,
        "task_soft_time_limit": HARD_LIMIT_SECONDS,
        "worker_prefetch_multiplier": 4,
        "worker_max_tasks_per_child": 3,
        "worker_hijack_root_logger": False,
        "beat_scheduler": "tests.integration.celery.shop:ShopScheduler",
        **changed,
    }
    app.config_from_object({f"SHOP_{name.upper()}": value for name, value in settings.items()}, namespace="SHOP")
    if sagas:
        install(app)
    app.conf.beat_schedule = {"tick": {"task": "tests.integration.celery.shop.tasks.tick", "schedule": 0.5}}
    return app

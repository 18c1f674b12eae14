"""The engine connects storage, registry, settings and dispatcher. It starts, runs and recovers sagas."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sagas.engine.reading import Reading
from sagas.engine.recovering import Recovering
from sagas.engine.running import Running
from sagas.engine.signalling import Signalling
from sagas.engine.starting import Starting
from sagas.plugins import installed_dispatcher, named_resolver
from sagas.settings import Settings
from sagas.storage.contract import ISagaStorage
from sagas.storage.postgres import PostgresSagaStorage

__all__ = ["SagaEngine"]


class SagaEngine(Starting, Running, Signalling, Recovering, Reading):
    """Starts, runs and recovers sagas.

    Args:
        storage: stores the sagas.
        dispatcher: sends sagas to workers; without one, sagas that `start` stores wait for a scan of another process.
        settings: leases, attempts and backoff.
        sagas: classes that this process can run; `start` and `run` add theirs.
        resolver: builds a step from its class; default: call the class. A DI container plugs in here.
        node: the name of this worker or host, shown as the holder of leases.
        stopping: whether this process was asked to stop at the next step's boundary.
        in_doubt_on: exceptions raised into a step from outside, after which it may have taken effect.
        observer: is notified of what happens. OpenTelemetry is notified too if this process has set it up.
        framework: the framework that the application is built on; integrations pass it.
        shared: whether this process may hold several sagas at once. Its crash then spends no attempt of any of them.
            Each of them becomes suspect, and runs alone until it makes progress.
    """

    @classmethod
    def from_environment(
        cls,
        settings: Settings | None = None,
        *,
        storage: Callable[[Settings], ISagaStorage] | None = None,
        **options: Any,
    ) -> SagaEngine:
        """Return the engine that the `SAGAS_...` variables describe, with Celery as its dispatcher if installed.

        Args:
            settings: used instead of the variables.
            storage: returns the storage for these settings; default: PostgreSQL.
            options: arguments of the class.

        Raises:
            ConfigurationError: a setting cannot work.
        """
        settings = settings or Settings.from_environment()
        options.setdefault("dispatcher", installed_dispatcher())
        if settings.resolver:
            options.setdefault("resolver", named_resolver(settings.resolver))
        engine = cls((storage or _storage)(settings), settings=settings, **options)
        engine.registry.load(settings.modules)
        return engine


def _storage(settings: Settings) -> ISagaStorage:
    return PostgresSagaStorage(settings.database_url, pool_size=settings.database_pool_size)

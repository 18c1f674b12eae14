"""The application for INSTALLED_APPS: at Django's start, it finds sagas and connects the engine to Django."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from django.apps import AppConfig, apps
from django.db.models.signals import post_migrate
from django.utils.module_loading import autodiscover_modules

from sagas import api
from sagas.django import tables
from sagas.django.binding import DjangoFramework, make_storage
from sagas.django.checks import register_checks
from sagas.django.configuration import read_settings
from sagas.registry import sagas_of
from sagas.settings import Settings


class SagasConfig(AppConfig):
    """Sagas in Django."""

    name = "sagas.django"
    label = "sagas"
    verbose_name = "Sagas"

    def ready(self) -> None:
        """Find the module `sagas` of each application, and have the engine use Django's settings."""
        api.set_defaults(settings=_settings, framework=DjangoFramework(), storage=make_storage)
        autodiscover_modules("sagas")
        register_checks()
        post_migrate.connect(_after_migrating, sender=self)


def _settings(environment: Mapping[str, str]) -> Settings:
    return read_settings(environment, _discovered())


def _discovered() -> tuple[str, ...]:
    """Return the modules `sagas` of the installed applications that define or import sagas."""
    names = [f"{config.name}.sagas" for config in apps.get_app_configs()]
    return tuple(name for name in names if name in sys.modules and sagas_of(sys.modules[name]))


def _after_migrating(using: str, **_: Any) -> None:
    tables.make_where_migrations_are_off(using)

"""Django's start, for processes that Django does not start itself."""

from __future__ import annotations

import os
import sys

import django
from django.apps import apps

from sagas.errors import ConfigurationError


def set_up() -> None:
    """Set Django up if that has not been done; do nothing while its settings or its applications are being imported.

    Raises:
        ConfigurationError: Django cannot be set up.
    """
    name = os.environ["DJANGO_SETTINGS_MODULE"]
    if apps.ready or apps.loading or _being_imported(name):
        return
    if (here := os.getcwd()) not in sys.path:  # noqa: PTH109
        sys.path.append(here)  # where manage.py would look, and an installed command would not
    try:
        django.setup()
    except Exception as error:
        raise ConfigurationError(
            f"DJANGO_SETTINGS_MODULE is {name!r}, and Django cannot be set up with it ({type(error).__name__}: "
            f"{error}): correct what the error names, or unset the variable if sagas here do not need Django."
        ) from error


def _being_imported(name: str) -> bool:
    module = sys.modules.get(name)
    # As importlib itself tells a module that is only half there.
    return bool(getattr(getattr(module, "__spec__", None), "_initializing", False))

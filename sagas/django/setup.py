"""Set Django up in processes that Django did not start."""

from __future__ import annotations

import os
import sys

import django
from django.apps import apps

from sagas.errors import ConfigurationError


def set_up() -> None:
    """Set Django up unless it is set up already; do nothing while its settings or applications are being imported.

    Raises:
        ConfigurationError: Django cannot be set up.
    """
    name = os.environ["DJANGO_SETTINGS_MODULE"]
    if apps.ready or apps.loading or _being_imported(name):
        return
    if (here := os.getcwd()) not in sys.path:  # noqa: PTH109
        sys.path.append(here)  # manage.py has this directory on sys.path, and an installed command does not
    try:
        django.setup()
    except Exception as error:
        raise ConfigurationError(
            f"DJANGO_SETTINGS_MODULE is {name!r}, and Django cannot be set up with it ({type(error).__name__}: "
            f"{error}): correct what the error names, or unset the variable if sagas here do not need Django."
        ) from error


def _being_imported(name: str) -> bool:
    module = sys.modules.get(name)
    # importlib itself detects a partly imported module by this attribute.
    return bool(getattr(getattr(module, "__spec__", None), "_initializing", False))

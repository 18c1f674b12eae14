"""The user's saga classes, for commands that only read: they help if they are there, and hinder nothing if not."""

from __future__ import annotations

import contextlib
import logging
import os
import sys

from sagas import api
from sagas.errors import ConfigurationError, SagaError
from sagas.registry import Registry
from sagas.settings import Settings


def known_sagas(settings: Settings) -> Registry:
    """Return the sagas of SAGAS_MODULES; what their modules print goes to stderr, as stdout is the command's.

    Raises:
        SagaError: a module cannot be used.
    """
    registry = Registry()
    with contextlib.redirect_stdout(sys.stderr):
        try:
            registry.load(settings.modules)
        except SystemExit as error:
            raise ConfigurationError(
                f"SAGAS_MODULES names a module that ends the process when it is imported (exit code {error.code}): "
                "name modules that only define things."
            ) from error
    return registry


def complete_name(incomplete: str) -> list[str]:
    """Return the saga names that begin so; none if the code cannot be loaded, and never a word about it."""
    logging.disable()
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):  # noqa: PTH123
        try:
            registry = known_sagas(api.settings())
        except SagaError:
            return []
    return sorted({saga.stored_name() for saga in registry if saga.stored_name().startswith(incomplete)})

"""Saga name → class, and the loading of the modules that define them."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from sagas.definition import AnySaga, Saga
from sagas.errors import ConfigurationError, DefinitionError, SagaError, UnknownSaga


class Registry:
    """The sagas that this process can run.

    Args:
        sagas: classes to begin with.
    """

    def __init__(self, sagas: Iterable[AnySaga] = ()) -> None:
        self._by_name: dict[str, AnySaga] = {}
        for saga in sagas:
            self.add(saga)

    def add(self, saga: AnySaga) -> None:
        """Make a saga known; adding the same one again does nothing.

        Raises:
            DefinitionError: another class has its name.
        """
        known = self._by_name.setdefault(saga.name, saga)
        if known is not saga and _path(known) != _path(saga):
            raise DefinitionError(
                f"{_path(known)} and {_path(saga)} are both sagas named {saga.name!r}, and the database could not "
                "tell them apart: give one another `name`."
            )
        self._by_name[saga.name] = saga

    def load(self, modules: Iterable[str]) -> None:
        """Import the modules, from the working directory too, and make every saga known that they define or import.

        Raises:
            ConfigurationError: a module cannot be imported, or holds no saga.
        """
        if (here := str(Path.cwd())) not in sys.path:
            sys.path.append(here)  # where `python -m` would look, and an installed command would not
        for name in modules:
            try:
                module = importlib.import_module(name)
            except SagaError:
                raise  # a sentence already
            except Exception as error:
                raise ConfigurationError(
                    f"SAGAS_MODULES names {name!r}, which cannot be imported ({type(error).__name__}: {error}): "
                    "correct it, or put the module where Python finds it (PYTHONPATH, or beside celery-sagas)."
                ) from error
            found = [value for value in vars(module).values() if _is_saga(value)]
            if not found:
                raise ConfigurationError(
                    f"SAGAS_MODULES names {name!r}, which holds no Saga class: name the module that defines them."
                )
            for saga in found:
                self.add(saga)

    def get(self, name: str) -> AnySaga:
        """Return the saga of this name.

        Raises:
            UnknownSaga: none is known here.
        """
        try:
            return self._by_name[name]
        except KeyError:
            known = ", ".join(sorted(self._by_name)) or "none"
            raise UnknownSaga(
                f"no saga named {name!r} is known here (known: {known}): add the module that defines it to "
                "SAGAS_MODULES, or correct the name."
            ) from None

    def __iter__(self) -> Iterator[AnySaga]:
        return iter(self._by_name.values())


def _is_saga(value: object) -> bool:
    return isinstance(value, type) and issubclass(value, Saga) and value is not Saga


def _path(saga: AnySaga) -> str:
    return f"{saga.__module__}.{saga.__qualname__}"

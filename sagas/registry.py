"""Finds a saga's class by name and version, and loads the modules that define saga classes and schedules."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Final

from sagas.definition import AnySaga, Saga
from sagas.errors import ConfigurationError, DefinitionError, SagaError, UnknownSaga
from sagas.framework import set_up_framework
from sagas.schedule import AnySchedule, Schedule

_OWN_NAME: Final = "sagas"


class Registry:
    """The sagas that this process can run.

    Args:
        sagas: the first classes.
    """

    def __init__(self, sagas: Iterable[AnySaga] = ()) -> None:
        self._classes: dict[str, dict[int, AnySaga]] = {}  # by name or alias, then by version
        self._schedules: dict[str, AnySchedule] = {}
        for saga in sagas:
            self.add(saga)

    def add(self, saga: AnySaga) -> None:
        """Register a saga class. Registering the same class again does nothing.

        Raises:
            DefinitionError: another class has one of its names, and is not the same saga at other versions.
        """
        for name in (saga.name, *saga.aliases):
            for known in self._classes.get(name, {}).values():
                _check_side_by_side(known, saga, name)
        for name in (saga.name, *saga.aliases):
            self._classes.setdefault(name, {}).update(dict.fromkeys(_versions(saga), saga))

    def add_schedule(self, schedule: AnySchedule) -> None:
        """Register a schedule and its saga. Registering the same one again does nothing.

        Raises:
            DefinitionError: another schedule has its name, or as `add`.
        """
        known = self._schedules.setdefault(schedule.name, schedule)
        if known is not schedule:
            raise DefinitionError(
                f"{known!r} and {schedule!r} have the same name, so that each tick would start the saga of one of them "
                "only: give one another `name`."
            )
        self.add(schedule.saga)

    @property
    def schedules(self) -> tuple[AnySchedule, ...]:
        """The schedules, in the order in which they were registered."""
        return tuple(self._schedules.values())

    def load(self, modules: Iterable[str]) -> None:
        """Import modules, also from the working directory, and register the sagas and schedules that they hold.

        If DJANGO_SETTINGS_MODULE is set, Django is set up first.

        Raises:
            ConfigurationError: a module cannot be imported or holds no saga, or Django cannot be set up.
        """
        set_up_framework()
        if (here := str(Path.cwd())) not in sys.path:
            sys.path.append(here)  # an installed command does not look there, and `python -m` does
        for name in modules:
            try:
                module = importlib.import_module(name)
            except SagaError:
                raise  # its message is a sentence already
            except Exception as error:
                raise ConfigurationError(
                    f"SAGAS_MODULES names {name!r}, which cannot be imported ({type(error).__name__}: {error}): "
                    "correct it, or put the module where Python finds it (PYTHONPATH, or beside celery-sagas)."
                ) from error
            found, schedules = sagas_of(module), schedules_of(module)
            if not found and name == _OWN_NAME:
                raise ConfigurationError(
                    f"SAGAS_MODULES names {name!r}, which is this library itself: rename your own module of that name"
                    f"{f' ({hidden[0]})' if (hidden := namesakes()) else ''}, and name it as it is then called."
                )
            if not (found or schedules):
                raise ConfigurationError(
                    f"SAGAS_MODULES names {name!r}, which holds no Saga class: name the module that defines them."
                )
            for saga in found:
                self.add(saga)
            for schedule in schedules:
                self.add_schedule(schedule)

    def get(self, name: str) -> AnySaga:
        """Return the class for starting a saga of this name or alias: the one with the highest version.

        Raises:
            UnknownSaga: none is known here.
        """
        versions = self._named(name)
        return versions[max(versions)]

    def fitting(self, name: str, version: int) -> AnySaga:
        """Return the class that continues sagas of this name that were started at this version.

        Raises:
            UnknownSaga: no class of this process does.
        """
        versions = self._named(name)
        if version not in versions:
            known = ", ".join(map(str, sorted(versions)))
            raise UnknownSaga(
                f"no class here goes on with version {version} of saga {name!r} (known: {known}): run the code that "
                f"has it, or list {version} in `continues` of the class that can."
            )
        return versions[version]

    def __iter__(self) -> Iterator[AnySaga]:
        return iter(dict.fromkeys(saga for versions in self._classes.values() for saga in versions.values()))

    def _named(self, name: str) -> dict[int, AnySaga]:
        try:
            return self._classes[name]
        except KeyError:
            known = ", ".join(sorted(self._classes)) or "none"
            raise UnknownSaga(
                f"no saga named {name!r} is known here (known: {known}): add the module that defines it to "
                "SAGAS_MODULES, or correct the name."
            ) from None


def namesakes() -> list[Path]:
    """Return files of the user that have this library's name. Such a file hides the library, or is hidden by it."""
    own = Path(__file__).parent
    found = []
    for place in dict.fromkeys([Path.cwd(), *(Path(place or ".").absolute() for place in sys.path)]):
        for file in (place / f"{_OWN_NAME}.py", place / _OWN_NAME / "__init__.py"):
            if file.is_file() and file.resolve().parent != own.resolve():
                found.append(file)
    return found


def _check_side_by_side(known: AnySaga, saga: AnySaga, name: str) -> None:
    """Refuse two classes of one name, unless they are one saga at different versions or the same class again."""
    if known is saga or _path(known) == _path(saga):
        return
    both = f"{_path(known)} and {_path(saga)} are both sagas named {name!r}"
    if known.name != saga.name:
        raise DefinitionError(
            f"{both}, one by an alias, and the database could not tell them apart: give one another name, or take "
            "the alias away."
        )
    if known.aliases != saga.aliases:
        raise DefinitionError(f"{both}, but with different aliases: give both the same `aliases`, or one another name.")
    if claimed := _versions(known) & _versions(saga):
        raise DefinitionError(
            f"{both} for version {min(claimed)}, and the database could not tell them apart: give one another `name`, "
            "or, if they are one saga before and after a change, the later one a higher `version`."
        )


def _versions(saga: AnySaga) -> set[int]:
    return {saga.version, *saga.continues}


def sagas_of(module: ModuleType) -> list[AnySaga]:
    """Return the sagas that a module defines or imports."""
    values = vars(module).values()
    return [value for value in values if isinstance(value, type) and issubclass(value, Saga) and value is not Saga]


def schedules_of(module: ModuleType) -> list[AnySchedule]:
    """Return the schedules that a module makes or imports."""
    return [value for value in vars(module).values() if isinstance(value, Schedule)]


def _path(saga: AnySaga) -> str:
    return f"{saga.__module__}.{saga.__qualname__}"

"""Checks the `SAGAS_...` variables, and that the saga modules import."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from sagas import api
from sagas.doctor.check import Check, Installation
from sagas.doctor.finding import Finding, problem, warning
from sagas.doctor.server import Server
from sagas.errors import ConfigurationError, SagaError
from sagas.plugins import named_resolver
from sagas.registry import Registry
from sagas.settings import PREFIX, Settings

SETTINGS_UNUSABLE: Final = problem(
    "settings-unusable",
    what="a setting has a value that cannot work",
    why="Workers, beat, and programs that start sagas stop with this message.",
    cure="Correct the variables in the message. docs/settings.md lists each with its unit.",
)
SETTING_UNKNOWN: Final = warning(
    "setting-unknown",
    what="a variable begins with SAGAS_ and is no setting",
    why="If it is misspelled, the setting that it was meant for keeps its default.",
    cure="Correct the name or remove the variable. docs/settings.md lists the settings.",
)
MODULES_UNSET: Final = problem(
    "modules-unset",
    what="no saga module is named",
    why="A worker with this environment declines every saga.",
    cure="Set SAGAS_MODULES to the modules that define your sagas, with the same value as on the workers.",
)
CODE_UNUSABLE: Final = problem(
    "code-unusable",
    what="the saga modules cannot be imported",
    why="No worker starts with this environment.",
    cure="Fix the error in the message, here and where the workers run.",
)


def _settings(installation: Installation) -> Iterator[Finding | str]:
    known = {PREFIX + name.upper() for name in Settings.model_fields}
    for variable in sorted(installation.environment):
        if variable.startswith(PREFIX) and variable not in known:
            yield SETTING_UNKNOWN.seen(f"{variable} is set, and no setting has this name.")
    try:
        settings = api.settings(installation.environment)
        Server(settings.database_url)
    except ConfigurationError as error:
        yield SETTINGS_UNUSABLE.seen(str(error))
    else:
        installation.settings = settings


def _code(installation: Installation) -> Iterator[Finding | str]:
    settings, registry = installation.settings, Registry()
    if not settings.modules:
        yield MODULES_UNSET.seen("SAGAS_MODULES is empty.")
        return
    try:
        registry.load(settings.modules)
        if settings.resolver:
            named_resolver(settings.resolver)
    except SagaError as error:
        yield CODE_UNUSABLE.seen(str(error))
        return
    installation.registry = registry
    count = len(list(registry))
    yield f"{count} {'saga' if count == 1 else 'sagas'} in {', '.join(settings.modules)}"


# Both import the user's code, which may take long.
SETTINGS: Final = Check("settings", _settings, (SETTING_UNKNOWN, SETTINGS_UNUSABLE), seconds=20)
CODE: Final = Check("code", _code, (MODULES_UNSET, CODE_UNUSABLE), needs=("settings",), seconds=20)

"""The doctor's quick checks, which wait for no worker and no broker, as system checks of Django."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from typing import Any, Final

from django.core.checks import CheckMessage, Error, Tags, Warning, register  # noqa: A004

from sagas.django.configuration import database_alias
from sagas.doctor import Finding, Installation, every_check, examine
from sagas.errors import ConfigurationError

#: The doctor's checks without a query, and those that query the database.
QUICK: Final = ("settings", "code", "celery", "configuration")
OF_THE_DATABASE: Final = ("database", "schema", "privileges")
#: The doctor's finding → its id in Django. A number is never given to another finding. This holds for removed findings,
#: too (E004, E006, W002 to W006, W008, W010, W012, W014, W021, W024, W026). An error keeps Django's commands from
#: running. So a finding is an error only if sagas cannot be started: `migrate` must run while tables are missing, and
#: tests must run while Celery executes tasks at once.
IDS: Final = {
    "settings-unusable": "E001",
    "code-unusable": "E002",
    "celery-unusable": "E003",
    "database-down": "E005",
    "database-read-only": "E007",
    "setting-unknown": "W001",
    "modules-unset": "W007",
    "celery-settings-refused": "W009",
    "pickle-accepted": "W011",
    "prefetch": "W013",
    "visibility-timeout-short": "W015",
    "broker-link-unwatched": "W016",
    "schema-behind": "W017",
    "privileges-missing": "W018",
    "no-answer": "W019",
    "check-failed": "W020",
    "session-settings": "W022",
    "row-security": "W023",
    "cancelled-on-connection-loss": "W025",
}
#: The cure of a finding in Django, if it differs from the usual one.
_CURES: Final = {
    "settings-unusable": "Correct SAGAS in Django's settings, or the variable that is named.",
    "modules-unset": "Define sagas in the module `sagas` of an installed application, such as shop/sagas.py.",
    "schema-behind": "Run `manage.py migrate`, or `manage.py sagas migrate`.",
}


def register_checks() -> None:
    """Register the checks with Django."""
    register(_quick, "sagas")
    register(_of_the_database, Tags.database)


def _quick(app_configs: Sequence[Any] | None, **_: Any) -> list[CheckMessage]:
    return _examined(QUICK, app_configs)


def _of_the_database(
    app_configs: Sequence[Any] | None, databases: Collection[str] | None = None, **_: Any
) -> list[CheckMessage]:
    try:
        if database_alias() not in (databases or ()):
            return []
    except ConfigurationError:
        return []  # the other check reports this finding
    return _examined(("settings", *OF_THE_DATABASE), app_configs, shown=OF_THE_DATABASE)


def _examined(
    names: Collection[str], app_configs: Sequence[Any] | None, *, shown: Collection[str] | None = None
) -> list[CheckMessage]:
    if app_configs is not None and not any(config.label == "sagas" for config in app_configs):
        return []
    checks = [check for check in every_check() if check.name in names]
    results = examine(Installation(os.environ), checks)
    return [_message(finding) for each in results if each.name in (shown or names) for finding in each.findings]


def _message(finding: Finding) -> CheckMessage:
    number = IDS[finding.id]
    kind = Error if number.startswith("E") else Warning
    hint = f"{finding.why} {_CURES.get(finding.id, finding.cure)}"
    return kind(f"{finding.id}: {finding.what}", hint=hint, id=f"sagas.{number}")

"""Read the engine's settings from Django's: from `SAGAS`, and the database from DATABASES."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any, Final

import sqlalchemy as sa
from django.conf import settings as django_settings
from django.core.exceptions import ImproperlyConfigured
from django.db import connections
from django.db.utils import DEFAULT_DB_ALIAS, ConnectionDoesNotExist

from sagas.errors import ConfigurationError
from sagas.settings import PREFIX, Settings

#: The key of SAGAS that names an alias of DATABASES.
DATABASE: Final = "DATABASE"
#: Key of SAGAS → field of `Settings`.
_FIELDS: Final = {name.upper(): name for name in Settings.model_fields if name != "database_url"}
#: Keys of OPTIONS that are not passed to libpq: they are Django's or psycopg's, or sagas set them on their own
#: connections.
_NOT_LIBPQ: Final = ("client_encoding", "prepare_threshold", "autocommit")


def read_settings(environment: Mapping[str, str], modules: tuple[str, ...] = ()) -> Settings:
    """Return the settings in `SAGAS`; a missing key is read from its `SAGAS_...` variable.

    Args:
        environment: the environment variables.
        modules: modules of sagas in addition to those that the settings name.

    Raises:
        ConfigurationError: a key is unknown, a value cannot work, or the database cannot store sagas.
    """
    if PREFIX + "DATABASE_URL" in environment:
        raise ConfigurationError(
            "SAGAS_DATABASE_URL is set, and in Django sagas are stored in a database of DATABASES: unset it, and name "
            "the alias of that database in SAGAS['DATABASE'] if it is not 'default'."
        )
    given = {key: value for key, value in _given().items() if key != DATABASE}
    values: dict[str, Any] = {_FIELDS[key]: value for key, value in given.items()}
    names = {_FIELDS[key]: f"SAGAS[{key!r}]" for key in given}
    read = Settings.from_environment(environment, given=values, names=names)
    changes = {
        "database_url": url_of(_connection()).render_as_string(hide_password=False),
        "modules": tuple(dict.fromkeys((*read.modules, *modules))),
    }
    return read.model_copy(update=changes)


def database_alias() -> str:
    """Return the alias in DATABASES of the database that stores sagas.

    Raises:
        ConfigurationError: `SAGAS` has an unknown key.
    """
    return str(_given().get(DATABASE, DEFAULT_DB_ALIAS))


def url_of(connection: Any) -> sa.URL:
    """Return the current URL of a database of DATABASES; a test runner may have renamed the database.

    Args:
        connection: an item of `django.db.connections`.

    Raises:
        ConfigurationError: the database is not PostgreSQL, or has no name.
    """
    alias, options = connection.alias, connection.settings_dict["OPTIONS"]
    if connection.vendor != "postgresql":
        raise ConfigurationError(
            f"DATABASES[{alias!r}] has the engine {connection.settings_dict['ENGINE']}, and sagas are stored in "
            "PostgreSQL: name the alias of a PostgreSQL database in SAGAS['DATABASE']."
        )
    try:
        parameters = connection.get_connection_params()
    except ImproperlyConfigured as error:
        raise ConfigurationError(f"DATABASES[{alias!r}] cannot be used: {error}") from error
    query = {
        name: str(int(value) if isinstance(value, bool) else value)
        for name, value in parameters.items()
        if isinstance(value, (str, int)) and name not in _NOT_LIBPQ
    }
    if "prepare_threshold" in options:
        query["prepare_threshold"] = str(options["prepare_threshold"]).lower()
    if role := options.get("assume_role"):
        query["options"] = f"{query.get('options', '')} -c role={_escaped(role)}".strip()
    user, password, database = (query.pop(name, None) for name in ("user", "password", "dbname"))
    host, port = query.get("host", ""), query.get("port", "")
    if host and not set(host) & set("/,@") and (not port or port.isdecimal()):
        del query["host"]
        query.pop("port", None)
        return sa.URL.create(
            "postgresql+psycopg", user, password, host, int(port) if port else None, database, query=query
        )
    # The host is a directory of sockets, or there are several hosts.
    return sa.URL.create("postgresql+psycopg", user, password, database=database, query=query)


def _given() -> Mapping[str, Any]:
    given = getattr(django_settings, "SAGAS", {})
    if not isinstance(given, Mapping):
        raise ConfigurationError(f"SAGAS is a {type(given).__name__}: make it a dict such as {{'LEASE_SECONDS': 30}}.")
    known = [*_FIELDS, DATABASE]
    for key in given:
        if key == "DATABASE_URL":
            raise ConfigurationError(
                "SAGAS['DATABASE_URL'] is no setting: sagas are stored in a database of DATABASES, whose alias is in "
                "SAGAS['DATABASE'] (default: 'default')."
            )
        if key not in known:
            wanted = str(key).upper().removeprefix(PREFIX)
            nearest = [wanted] if wanted in known else get_close_matches(wanted, known, n=1)
            cure = f"write {nearest[0]!r}" if nearest else f"the settings are {', '.join(sorted(known))}"
            raise ConfigurationError(f"SAGAS has the key {key!r}, which is no setting: {cure}.")
    return given


def _connection() -> Any:
    alias = database_alias()
    try:
        return connections[alias]
    except ConnectionDoesNotExist:
        known = ", ".join(sorted(connections.settings))
        raise ConfigurationError(
            f"SAGAS['DATABASE'] is {alias!r}, which is no alias in DATABASES (there are: {known}): correct it."
        ) from None
    except ImproperlyConfigured as error:
        raise ConfigurationError(f"DATABASES[{alias!r}] cannot be used: {error}") from error


def _escaped(value: str) -> str:
    return "".join(f"\\{character}" if character in "\\ \t\n" else character for character in value)

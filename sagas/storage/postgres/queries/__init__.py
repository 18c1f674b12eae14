"""The statements: one file each. `overview.sql` explains the tables, the isolation level and the order of locks."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from importlib.resources import files
from typing import Final

_COMMENT: Final = re.compile(r"^\s*--.*\n?", re.MULTILINE)
_PARAMETER: Final = re.compile(r":'(\w+)'")
#: Left out: of a statement that is longer than 4096 characters, psycopg parses the parameters anew each time.
_INDENT: Final = re.compile(r"\n\s+")


def loader(package: str) -> Callable[[str], str]:
    """Return a function that loads a statement of this package by its name, the file's without `.sql`.

    The statement is in psycopg's style: parameters written `:'name'` become `%(name)s`. Its comments and its
    indentation are left out.
    """

    @cache
    def query(name: str) -> str:
        text = files(package).joinpath(f"{name}.sql").read_text()
        bare = _INDENT.sub("\n", _COMMENT.sub("", text))
        return _PARAMETER.sub(r"%(\1)s", bare.replace("%", "%%")).strip()

    return query


query: Final = loader(__name__)

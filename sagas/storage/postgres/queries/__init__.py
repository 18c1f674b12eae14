"""The statements: one file each. `overview.sql` explains the tables, the isolation level and the order of locks."""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files
from typing import Final

_COMMENT: Final = re.compile(r"^\s*--.*\n?", re.MULTILINE)
_PARAMETER: Final = re.compile(r":'(\w+)'")


@cache
def query(name: str) -> str:
    """Return a statement in psycopg's style, its comments left out; parameters written `:'name'` become `%(name)s`."""
    text = files(__package__).joinpath(f"{name}.sql").read_text()
    return _PARAMETER.sub(r"%(\1)s", _COMMENT.sub("", text).replace("%", "%%")).strip()

"""Checks whether PostgreSQL can store a text."""

from __future__ import annotations

from sagas.errors import UnstorableText


def is_storable(text: str) -> bool:
    """Whether the text has neither a NUL nor half of a surrogate pair, which no UTF-8 has."""
    try:
        return b"\0" not in text.encode()
    except UnicodeEncodeError:
        return False


def require_storable(**values: str | None) -> None:
    """Refuse named arguments whose text cannot be stored.

    Raises:
        UnstorableText: the message names the argument and its value, escaped.
    """
    for name, value in values.items():
        if value is not None and not is_storable(value):
            raise UnstorableText(
                f"{name} is {value[:60]!a}, which no database can hold: give text without NUL (U+0000) and "
                "without halves of surrogate pairs (U+D800 to U+DFFF)."
            )

"""Hides the fields that sagas mark as secret: in contexts and payloads, and where errors quote their values."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any, Final

from sagas.inspection.models import Portrait

HIDDEN: Final = "••••••"
#: A shorter value is left in messages, as it would be found everywhere.
_LEAST_QUOTED: Final = 4
#: A page shows no more of one text than this.
MOST_CHARACTERS: Final = 50_000
UNREADABLE: Final = "This is nested too deeply to be shown, or is no JSON that this page can read."


class Secrets:
    """What is secret in one saga.

    Args:
        fields: names, as "card_number", or paths, as "customer.phone".
        contexts: JSON texts whose secret values must not be shown anywhere.
    """

    def __init__(self, fields: Iterable[str], contexts: Iterable[str | None] = ()) -> None:
        self._paths = [tuple(field.split(".")) for field in fields]
        values: set[str] = set()
        if self._paths:
            for text in contexts:
                values.update(self._values(text))
        self._values_found = sorted(values, key=len, reverse=True)

    def pretty(self, text: str | None) -> str:
        """Return JSON text for people, its secret fields hidden, and cut to what a page can show."""
        if text is None:
            return ""
        try:
            shown = json.dumps(self._hidden(json.loads(text), ()), indent=2, ensure_ascii=False)
        except (ValueError, RecursionError):
            return UNREADABLE
        if len(shown) > MOST_CHARACTERS:
            return f"{shown[:MOST_CHARACTERS]}\n… the first {MOST_CHARACTERS} of {len(shown)} characters"
        return shown

    def censored(self, text: str | None) -> str:
        """Return a message, with secret values hidden that it quotes."""
        shown = text or ""
        for value in self._values_found:
            shown = shown.replace(value, HIDDEN)
        return shown

    def censored_portrait(self, portrait: Portrait) -> Portrait:
        """Return a saga whose errors and reasons quote no secret value; its context is as it was.

        It is done before any text is cut, as half of a value would not be found.
        """
        if not self._values_found:
            return portrait
        record = portrait.details.record
        log = tuple(
            replace(
                entry,
                message=None if entry.message is None else self.censored(entry.message),
                reason=None if entry.reason is None else self.censored(entry.reason),
            )
            for entry in record.log
        )
        error = None if record.last_error is None else self.censored(record.last_error)
        details = replace(portrait.details, record=replace(record, log=log, last_error=error))
        return replace(portrait, details=details)

    def _is_secret(self, path: tuple[str, ...]) -> bool:
        return any(path[-len(secret) :] == secret for secret in self._paths)

    def _hidden(self, value: Any, path: tuple[str, ...]) -> Any:
        if path and self._is_secret(path):
            return HIDDEN
        if isinstance(value, dict):
            return {key: self._hidden(each, (*path, key)) for key, each in value.items()}
        if isinstance(value, list):
            return [self._hidden(each, path) for each in value]
        return value

    def _values(self, text: str | None) -> Iterator[str]:
        try:
            yield from self._within(json.loads(text or "null"), (), secret=False)
        except (ValueError, RecursionError):
            return

    def _within(self, value: Any, path: tuple[str, ...], *, secret: bool) -> Iterator[str]:
        secret = secret or (bool(path) and self._is_secret(path))
        if isinstance(value, dict):
            for key, each in value.items():
                yield from self._within(each, (*path, key), secret=secret)
        elif isinstance(value, list):
            for each in value:
                yield from self._within(each, path, secret=secret)
        elif secret and value is not None and not isinstance(value, bool) and len(str(value)) >= _LEAST_QUOTED:
            yield str(value)

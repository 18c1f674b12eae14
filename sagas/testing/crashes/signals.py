"""The signals that a test sends to the waits of a saga, checked before the first run."""

from __future__ import annotations

from collections.abc import Mapping

from sagas.definition import AnySaga, Wait
from sagas.errors import ContextError
from sagas.signals import text_for


def signals_as_text(saga: AnySaga, signals: Mapping[str, object]) -> dict[str, str]:
    """Return what the signals bring, as JSON, by the name of the wait.

    Raises:
        ValueError: a wait is unknown, its signal is of another type, or nothing would end it.
    """
    waits = {part.name: part for part in saga.steps if issubclass(part, Wait)}
    texts = {}
    for name, payload in signals.items():
        if name not in waits:
            known = f"it waits for {', '.join(map(repr, waits))}" if waits else "it has no waits"
            raise ValueError(f"signals names {name!r}, and {saga.name} has no wait of that name: {known}.")
        try:
            texts[name] = text_for(waits[name], payload)
        except ContextError as error:
            raise ValueError(f"the signal for {name!r} does not fit {waits[name].__name__}: {error}") from error
    for name, wait in waits.items():
        if wait.timeout is None and name not in signals:
            raise ValueError(
                f"{saga.name} waits for {name!r} without a timeout, so nothing would end that wait: "
                f"say what its signal brings, as signals={{{name!r}: ...}}."
            )
    return texts

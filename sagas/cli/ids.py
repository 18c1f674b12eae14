"""Which saga is meant: a whole id, a short one as a terminal shows it, or an idempotency key."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Annotated, Final
from uuid import UUID

import typer

from sagas.cli.errors import CommandFailed, complain
from sagas.cli.render import terminal_width
from sagas.errors import InvalidSagaId, SagaNotFound
from sagas.inspection import Inspector
from sagas.inspection.models import Match
from sagas.storage.errors import not_found
from sagas.text import printable

#: The first characters of an id say when its saga was started, to the millisecond: the shortest id that is shown.
_MILLISECOND: Final = 12
#: A shorter beginning would fit too many sagas.
_SHORTEST: Final = 8
_SHORT_ID: Final = re.compile(r"([0-9a-f-]+)(?:(?:\.\.|…)([0-9a-f-]+))?", re.IGNORECASE)
_CANDIDATES: Final = 10
#: Of NAME/KEY, at most so many slashes are tried as the one between the two.
_SLASHES: Final = 3
#: Sagas of so many names may have the same idempotency key.
_SAME_KEY: Final = 1000

WHICH: Final = (
    "A saga's id, as `sagas list` shows it or from its beginning, or its idempotency key, alone or as NAME/KEY."
)
SagaIds = Annotated[list[str], typer.Argument(metavar="ID...", help=WHICH)]


def saga_id_of(text: str, inspector: Inspector) -> UUID:
    """Return the id of the one saga that the text names: by its id, the beginning of that, or an idempotency key.

    Raises:
        SagaNotFound, InvalidSagaId: it names none.
        CommandFailed: it names several.
        StorageUnavailable: the database does not answer.
    """
    text = text.strip()
    first, last, ends = _range(text)
    # No key holds a NUL or half a character.
    key = None if re.search("[\x00\ud800-\udfff]", text) else text
    found = inspector.matching(key=key, first=first, last=last, ends=ends, limit=_CANDIDATES + 1)
    if not found and key is not None:
        found = _by_name_and_key(key, inspector)
    # A whole id is one saga's, also where it is another saga's idempotency key.
    found = [saga for saga in found if saga.id == first == last] or found
    if len(found) == 1:
        return found[0].id
    if found:
        shown = "; ".join(f"{saga.id} ({printable(saga.name)}, {saga.status})" for saga in found[:_CANDIDATES])
        more = " and more" if len(found) > _CANDIDATES else ""
        raise CommandFailed(
            f"{printable(text)!r} names several sagas: {shown}{more}. Give the whole id of one, or NAME/KEY."
        )
    if first is not None and first == last:
        raise not_found(first)
    raise InvalidSagaId(
        f"no saga has the id or the idempotency key {printable(text)[:300]!r}: copy an id from `sagas list`, as it is "
        f"there or from its beginning, at least {_SHORTEST} characters."
    )


def _by_name_and_key(text: str, inspector: Inspector) -> list[Match]:
    """Return the saga that the text names as NAME/KEY. Either may have a slash in it."""
    places = [place for place, character in enumerate(text) if character == "/"][:_SLASHES]
    return [
        saga
        for place in places
        for saga in inspector.matching(key=text[place + 1 :], limit=_SAME_KEY)
        if saga.name == text[:place]
    ]


def saga_ids_of(texts: Iterable[str], inspector: Inspector) -> list[UUID]:
    """Return the ids that the texts name, each once; complain of those that name none."""
    ids: dict[UUID, None] = {}
    for text in texts:
        try:
            ids[saga_id_of(text, inspector)] = None
        except (InvalidSagaId, SagaNotFound, CommandFailed) as error:
            complain(error)
    return list(ids)


def shown_ids(ids: Iterable[UUID], inspector: Inspector) -> Mapping[UUID, str]:
    """Return how ids are shown: short on a terminal, whole in a file or a pipe."""
    return {each: str(each) for each in ids} if terminal_width() is None else short_ids(ids, inspector)


def short_ids(ids: Iterable[UUID], inspector: Inspector) -> Mapping[UUID, str]:
    """Return the short form of each id: its millisecond, and its end where other ids have the same millisecond."""
    wanted = set(ids)
    together = inspector.ids_of_the_same_millisecond(wanted)
    return {saga_id: _short(saga_id, together.get(saga_id.int >> 80, ())) for saga_id in wanted}


def _short(saga_id: UUID, together: Iterable[UUID]) -> str:
    others = [other.hex for other in together if other != saga_id]
    begins = str(saga_id)[: _MILLISECOND + 1]
    if not others:
        return begins
    for length in range(4, len(saga_id.hex) - _MILLISECOND):
        ends = saga_id.hex[-length:]
        if not any(other.endswith(ends) for other in others):
            return f"{begins}..{ends}"
    return str(saga_id)


def _range(text: str) -> tuple[UUID | None, UUID | None, str]:
    """Return the first and the last id that the text may mean, and with which digits it ends; no ids if it is no id."""
    with suppress(ValueError):
        return UUID(text), UUID(text), ""
    matched = _SHORT_ID.fullmatch(text)
    begins, ends = ((part or "").replace("-", "").lower() for part in (matched.groups() if matched else ("", "")))
    if not (_SHORTEST <= len(begins) <= 32 and len(ends) <= 32):
        return None, None, ""
    return UUID(begins.ljust(32, "0")), UUID(begins.ljust(32, "f")), ends

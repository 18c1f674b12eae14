"""Which saga is meant: a whole id, a short one as a terminal shows it, or an idempotency key."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Annotated, Final
from uuid import UUID

import typer

from sagas.cli.errors import CommandFailed, complain
from sagas.cli.render import terminal_width
from sagas.errors import InvalidSagaId, SagaNotFound
from sagas.storage.base import not_found
from sagas.storage.operations import Operations
from sagas.text import printable

#: The first characters of an id say when its saga was started, to the millisecond: the shortest id that is shown.
_MILLISECOND: Final = 12
#: A shorter beginning would fit too many sagas.
_SHORTEST: Final = 8
_SHORT_ID: Final = re.compile(r"([0-9a-f-]+)(?:(?:\.\.|…)([0-9a-f-]+))?", re.IGNORECASE)
_CANDIDATES: Final = 10

WHICH: Final = "A saga's id, as `sagas list` shows it or from its beginning, or its idempotency key."
SagaIds = Annotated[list[str], typer.Argument(metavar="ID...", help=WHICH)]


def saga_id_of(text: str, operations: Operations) -> UUID:
    """Return the id of the one saga that the text names: by its id, the beginning of that, or an idempotency key.

    Raises:
        SagaNotFound, InvalidSagaId: it names none.
        CommandFailed: it names several.
        StorageUnavailable: the database does not answer.
    """
    text = text.strip()
    whole = _whole(text)
    begins, ends = _parts(text)
    found = operations.named(
        # No key holds a NUL or half a character.
        key=None if re.search("[\x00\ud800-\udfff]", text) else text,
        first=whole or _bound(begins, "0"),
        last=whole or _bound(begins, "f"),
        ends=ends,
        limit=_CANDIDATES + 1,
    )
    # A whole id is one saga's, also where it is another saga's idempotency key.
    found = [saga for saga in found if saga.id == whole] or found
    if len(found) == 1:
        return found[0].id
    if found:
        shown = "; ".join(f"{saga.id} ({printable(saga.name)}, {saga.status})" for saga in found[:_CANDIDATES])
        more = " and more" if len(found) > _CANDIDATES else ""
        raise CommandFailed(f"{printable(text)!r} names several sagas: {shown}{more}. Give the whole id of one.")
    if whole is not None:
        raise not_found(whole)
    raise InvalidSagaId(
        f"no saga has the id or the idempotency key {printable(text)[:300]!r}: copy an id from `sagas list`, as it is "
        f"there or from its beginning, at least {_SHORTEST} characters."
    )


def saga_ids_of(texts: Iterable[str], operations: Operations) -> list[UUID]:
    """Return the ids that the texts name, each once; complain of those that name none."""
    ids: dict[UUID, None] = {}
    for text in texts:
        try:
            ids[saga_id_of(text, operations)] = None
        except (InvalidSagaId, SagaNotFound, CommandFailed) as error:
            complain(error)
    return list(ids)


def shown_ids(ids: Iterable[UUID], operations: Operations) -> Mapping[UUID, str]:
    """Return how ids are shown: short on a terminal, whole in a file or a pipe."""
    return {each: str(each) for each in ids} if terminal_width() is None else short_ids(ids, operations)


def short_ids(ids: Iterable[UUID], operations: Operations) -> Mapping[UUID, str]:
    """Return the short form of each id: its millisecond, and its end where other ids have the same millisecond."""
    wanted = set(ids)
    together = operations.ids_of_the_same_millisecond(wanted)
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


def _whole(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None


def _parts(text: str) -> tuple[str, str]:
    """Return the hexadecimal digits with which an id begins and ends; none if the text is no short id."""
    matched = _SHORT_ID.fullmatch(text)
    if matched is None:
        return "", ""
    begins, ends = (part.replace("-", "").lower() for part in (matched[1], matched[2] or ""))
    return (begins, ends) if _SHORTEST <= len(begins) <= 32 and len(ends) <= 32 else ("", "")


def _bound(begins: str, fill: str) -> UUID | None:
    return UUID(begins.ljust(32, fill)) if begins else None

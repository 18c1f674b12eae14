"""Which saga is meant: a whole id, a short one as a terminal shows it, or an idempotency key."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Final
from uuid import UUID

from sagas.cli.errors import CommandFailed, complain
from sagas.errors import InvalidSagaId, SagaNotFound
from sagas.storage.contract import not_found
from sagas.storage.operations import Operations
from sagas.text import printable

#: The first characters of an id say when its saga was started, to the millisecond: what a short id has at least.
_MILLISECOND: Final = 12
#: A shorter beginning would match too many to be looked through for an end.
_SHORTEST: Final = 8
_SHORT_ID: Final = re.compile(r"([0-9a-f-]+)(?:(?:\.\.|…)([0-9a-f-]+))?", re.IGNORECASE)
_CANDIDATES: Final = 10
#: What the help says of an argument that is one.
WHICH: Final = "A saga's id, as `sagas list` shows it or from its beginning, or its idempotency key."


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
        key=_storable(text),
        first=whole or _bound(begins, "0"),
        last=whole or _bound(begins, "f"),
        ends=ends,
        limit=_CANDIDATES + 1,
    )
    # A whole id is one saga's, also where an id of yours is another saga's idempotency key.
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


def saga_ids_of(texts: Iterable[str], operations: Operations) -> tuple[list[UUID], bool]:
    """Return the ids that the texts name, each once, and whether all of them name a saga; tell of those that do not."""
    ids: dict[UUID, None] = {}
    well = True
    for text in texts:
        try:
            ids[saga_id_of(text, operations)] = None
        except (InvalidSagaId, SagaNotFound, CommandFailed) as error:
            complain(error)
            well = False
    return list(ids), well


def short_ids(ids: Iterable[UUID], operations: Operations) -> Mapping[UUID, str]:
    """Return for each id the short one to show: its millisecond, and its end where others began in the same one."""
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


def _storable(text: str) -> str | None:
    """Return the text if it can be a key: what holds a NUL or half a character is none's."""
    return None if re.search("[\x00\ud800-\udfff]", text) else text

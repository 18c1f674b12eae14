"""The filter of a list, as it is written in the address of a page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Final
from uuid import UUID

from starlette.datastructures import QueryParams

from sagas.errors import UnstorableText
from sagas.inspection.models import PageFilter
from sagas.progress import SagaStatus
from sagas.storage.records import SagaState

PAGE_SIZE: Final = 50
_MOST_CHARACTERS: Final = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class ListQuery:
    """A filter, and what of the address could not be understood.

    Attributes:
        wanted: the filter.
        texts: the fields of the form as they were written.
        problems: a sentence for each field that was left out.
    """

    wanted: PageFilter
    texts: Mapping[str, Sequence[str]]
    problems: tuple[str, ...] = ()

    @property
    def empty(self) -> bool:
        """Whether nothing is filtered."""
        return not self.texts

    def text(self, name: str) -> str:
        """Return a field as it was written, or an empty text."""
        return (self.texts.get(name) or [""])[0]

    def address(self) -> dict[str, Sequence[str]]:
        """Return the fields for the address of another page with this filter."""
        return dict(self.texts)


def read_query(query: QueryParams, *, limit: int = PAGE_SIZE) -> ListQuery:
    """Return the filter of an address. What cannot be understood is left out, with a sentence that says so."""
    problems: list[str] = []
    texts: dict[str, list[str]] = {}
    values: dict[str, object] = {}
    for name in ("status", "state", "name", "key", "tags", "since", "until", "error", "leased_by"):
        given = [text.strip()[:_MOST_CHARACTERS] for text in query.getlist(name) if text.strip()]
        if not given:
            continue
        try:
            values.update(_parsed(name, given))
            texts[name] = given
        except ValueError as error:
            problems.append(str(error))
    try:
        wanted = PageFilter(**{**values, "limit": limit})  # type: ignore[arg-type]
    except (UnstorableText, ValueError) as error:
        problems.append(str(error))
        wanted, texts = PageFilter(limit=limit), {}
    if after := query.get("after"):
        try:
            wanted = replace(wanted, after=UUID(after))
        except ValueError:
            problems.append("The page to begin with is no id, so this is the first page.")
    return ListQuery(wanted=wanted, texts=texts, problems=tuple(problems))


def _parsed(name: str, given: list[str]) -> dict[str, object]:
    match name:
        case "status":
            return {"statuses": tuple(map(_status, given))}
        case "state":
            return {"states": tuple(map(_state, given))}
        case "tags":
            return {"tags": dict(map(_tag, given[0].split()))}
        case "since":
            return {"created_after": _time(given[0])}
        case "until":
            return {"created_before": _time(given[0])}
        case _:
            return {name: given[0]}


def _status(text: str) -> SagaStatus:
    try:
        return SagaStatus(text.upper())
    except ValueError:
        raise ValueError(f"{text!r} is no status: choose one of the list.") from None


def _state(text: str) -> SagaState:
    try:
        return SagaState(text.lower())
    except ValueError:
        raise ValueError(f"{text!r} is no state: choose one of the list.") from None


def _tag(text: str) -> tuple[str, str]:
    tag, equals, value = text.partition("=")
    if not tag or not equals:
        raise ValueError(f"{text!r} is no tag with its value: write them as customer=c-7, with blanks between tags.")
    return tag, value


def _time(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{text!r} is no time: write it as 2026-11-26 14:30, in UTC.") from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)

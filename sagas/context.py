"""A saga's context as JSON and back, through pydantic: dataclasses, TypedDicts and models alike."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, Generic, TypeVar

from pydantic import TypeAdapter, ValidationError
from pydantic.errors import PydanticUserError
from pydantic_core import PydanticSerializationError

from sagas.context_schema import what_json_cannot_hold
from sagas.differences import first_difference, plainly_same
from sagas.errors import ContextError, DefinitionError

#: A context is rewritten whenever a step changes it and read whole at every recovery.
MAX_CONTEXT_BYTES: Final = 4 * 1024 * 1024

#: Made once: json.dumps would make an encoder for every call.
_ENCODE: Final = json.JSONEncoder(allow_nan=False, ensure_ascii=False, separators=(",", ":")).encode

_CANNOT_BE_STORED: Final = (PydanticSerializationError, ValueError, TypeError, AttributeError, RecursionError)

ContextT = TypeVar("ContextT")


@dataclass(frozen=True, slots=True)
class Stored(Generic[ContextT]):
    """A context as the database has it.

    Attributes:
        context: read from it, for steps to change.
        pristine: read from it too, and never changed: what `context` is compared with.
        beside: fields that reading does not look at, another definition's; to be kept. One that is read under another
            name, through an alias or a validator, is not among them.
        text: as `dump` would write the two, so that what did not change is not written; if that would lose or change
            anything, as it was stored.
    """

    context: ContextT
    pristine: ContextT
    beside: Mapping[str, Any]
    text: str


class ContextCodec(Generic[ContextT]):
    """Turns contexts of one type into JSON text and back.

    Args:
        context_type: what the saga was declared with, e.g. `Order` in `Saga[Order]`.
        owner: the saga class's name, for messages.

    Raises:
        DefinitionError: the type cannot be written as JSON and read back.
    """

    def __init__(self, context_type: Any, *, owner: str, what: str = "context") -> None:
        self._owner = owner
        self._what = what
        self._type = context_type
        self._type_name = getattr(context_type, "__name__", str(context_type))
        try:
            self._adapter: TypeAdapter[ContextT] = TypeAdapter(context_type)
            self._adapter.json_schema(mode="serialization")
            self._adapter.json_schema(mode="validation")
        except PydanticUserError as error:
            reason = str(error).splitlines()[0].rstrip(".")
            raise DefinitionError(
                f"{owner}: its {what} type {self._type_name} cannot be stored as JSON ({reason}): "
                "use a dataclass, TypedDict or pydantic model whose fields are JSON types, "
                "and keep collaborators in the steps' constructors."
            ) from error
        if problem := what_json_cannot_hold(self._adapter.core_schema):
            raise DefinitionError(
                f"{owner}: its {what} type {self._type_name} cannot be stored as JSON ({problem}): "
                "give that field another type or name."
            )

    def dump(self, context: ContextT, *, beside: Mapping[str, Any] | None = None) -> str:
        """Return the context as JSON text, with these further fields if there are any.

        Fields have their own names, whatever their aliases are, and nothing is written that is computed from them.

        Raises:
            ContextError: it is of another type, too large, or holds what JSON or PostgreSQL cannot (NUL, a cycle).
        """
        try:
            plain = self._adapter.dump_python(context, mode="json", warnings="error", by_alias=False, round_trip=True)
            if beside and isinstance(plain, dict):
                plain = {**beside, **plain}
            text = _ENCODE(plain)
            size = len(text.encode())
        except _CANNOT_BE_STORED as error:
            if _is_of_another_type(context, self._type):
                raise ContextError(
                    f"{self._owner}: its {self._what} is of type {type(context).__name__}, and it takes "
                    f"{self._type_name}: give an instance of {self._type_name}."
                ) from error
            raise ContextError(
                f"{self._owner}: its {self._what} cannot be stored as JSON ({_first_line(error)}): "
                "keep to text, finite numbers, booleans, None, lists and mappings, typed as they are."
            ) from error
        if "\\u0000" in text and _holds_nul(plain):
            raise ContextError(
                f"{self._owner}: its {self._what} holds a NUL character (U+0000), which PostgreSQL's jsonb cannot "
                "store, so that no query could look into it: strip it from the text."
            )
        if size > MAX_CONTEXT_BYTES:
            raise ContextError(
                f"{self._owner}: its {self._what} is {size / 2**20:.1f} MB as JSON, more than the "
                f"{MAX_CONTEXT_BYTES // 2**20} MB a saga may carry: store the document elsewhere and keep its key."
            )
        return text

    def load(self, text: str) -> ContextT:
        """Return the context that the JSON text describes, its fields under their names or their aliases.

        Raises:
            ContextError: it does not validate as this type; the message names the first field that is wrong.
        """
        try:
            return self._read(text)
        except ValidationError as error:
            raise ContextError(
                f"{self._owner}: its {self._what} does not validate as {self._type_name} ({_first_problem(error)}): "
                f"run code whose {self._what} type fits, or correct the data."
            ) from error

    def reopen(self, text: str) -> Stored[ContextT]:
        """Return the context that was stored as this text, perhaps by code with another definition.

        Raises:
            ContextError: as for `load`.
        """
        context, pristine = self.load(text), self.load(text)
        written = self.dump(context)
        if written == text:
            return Stored(context, pristine, {}, text)
        stored, kept = json.loads(text), json.loads(written)
        if stored == kept:
            return Stored(context, pristine, {}, written)
        if not (isinstance(stored, dict) and isinstance(kept, dict)):
            return Stored(context, pristine, {}, text)
        unknown = stored.keys() - kept.keys()
        beside = {field: stored[field] for field in stored if field in unknown and not self._reads(field, stored, kept)}
        whole = {**beside, **kept} == stored
        return Stored(context, pristine, beside, self.dump(context, beside=beside) if whole else text)

    def _reads(self, field: str, stored: dict[str, Any], kept: dict[str, Any]) -> bool:
        without = {name: value for name, value in stored.items() if name != field}
        try:
            return bool(json.loads(self.dump(self.load(json.dumps(without)))) != kept)
        except ContextError:
            return True

    def after_step(self, context: ContextT, last: Stored[ContextT]) -> Stored[ContextT]:
        """Return the context as it is to be stored after a step, read back; `last` itself if nothing changed.

        Args:
            context: the one of `last`, as the step left it, or another that the step returned.
            last: as stored before the step.

        Raises:
            ContextError: as for `dump_checked`.
        """
        if context is last.context and plainly_same(context, last.pristine):
            return last
        text = self.dump(context, beside=last.beside)
        if text == last.text:
            self._require_same(context, last.pristine)
            return last if context is last.context else replace(last, context=context)
        pristine = self._read_back(text)
        self._require_same(context, pristine)
        # Read once more: the next step is given what a worker would read, and there is something to compare it with.
        return replace(last, context=self._read_back(text), pristine=pristine, text=text)

    def dump_checked(self, context: ContextT) -> str:
        """Return the context as JSON after making sure that reading it back gives the same context.

        Raises:
            ContextError: as for `dump`, and when a value is lost or changes on the way: NaN, a set that comes back as
                a list, a number beyond its field's limits, an instance of a subclass, an attribute that is no field.
        """
        text = self.dump(context)
        self._require_same(context, self._read_back(text))
        return text

    def _require_same(self, before: ContextT, after: ContextT) -> None:
        try:
            difference = first_difference(before, after)
        except RecursionError:
            difference = "it is nested too deeply"
        if difference is not None:
            raise ContextError(
                f"{self._owner}: its {self._what} changes when stored as JSON and read back ({difference}): declare "
                "what is to be kept as fields, each of its exact type, and of a type that JSON has."
            )

    def _read_back(self, text: str) -> ContextT:
        try:
            return self._read(text)
        except ValidationError as error:
            raise ContextError(
                f"{self._owner}: its {self._what} could be stored as JSON, but not read back as {self._type_name} "
                f"({_first_problem(error)}): set the field to a value of its type, within its limits."
            ) from error

    def _read(self, text: str) -> ContextT:
        return self._adapter.validate_json(text, by_alias=True, by_name=True)

    def is_instance(self, value: object) -> bool:
        """Whether a value is an instance of this type; of a TypedDict, say, nothing is."""
        return not _is_of_another_type(value, self._type, unknown=True)

    def parse(self, data: Any) -> ContextT:
        """Return the context that plain data (from a JSON file, say) describes.

        Raises:
            ContextError: it does not validate, or is no plain data.
        """
        try:
            text = json.dumps(data)
        except (TypeError, ValueError) as error:
            raise ContextError(
                f"{self._owner}: its {self._what} is of type {type(data).__name__}, and it takes {self._type_name}: "
                f"give an instance of {self._type_name}, or plain data."
            ) from error
        return self.load(text)


def _is_of_another_type(context: object, expected: Any, *, unknown: bool = False) -> bool:
    try:
        return not isinstance(context, expected)
    except TypeError:  # of a TypedDict, say, nothing is an instance
        return unknown


def _first_problem(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_input=False)[0]
    return f"{'.'.join(str(part) for part in first['loc']) or 'the whole'}: {first['msg']}"


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = " ".join(lines[:2]).rstrip(".") if lines else type(error).__name__
    # A context may hold what no log may.
    return re.sub(r"input_value=.*?, (?=input_type=)", "", text)


def _holds_nul(value: Any) -> bool:
    match value:
        case str():
            return "\0" in value
        case dict():
            return any(_holds_nul(key) or _holds_nul(item) for key, item in value.items())
        case list():
            return any(map(_holds_nul, value))
        case _:
            return False

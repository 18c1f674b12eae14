"""Finds fields of a context's type that JSON could not give back. The check runs when the saga's class is defined."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

#: Key types that pydantic writes into a JSON object and cannot read back.
_NO_KEYS: Final = frozenset(
    {"tuple", "list", "set", "frozenset", "dict", "call", "named-tuple", "model", "dataclass", "typed-dict"}
)
#: Parts of a schema that contain no schemas.
_NO_SCHEMAS: Final = frozenset({"metadata", "default", "config", "serialization"})


def what_json_cannot_hold(schema: Any) -> str | None:
    """Return a phrase that names the first field which cannot be read back, and the reason. Return None if all can.

    Args:
        schema: pydantic's core schema of the type.
    """
    # A schema that occurs more than once is a definition, and other schemas refer to it.
    shared = {definition["ref"]: definition for definition in schema.get("definitions", ())}
    return next(_Reader(shared).unfit(schema, ""), None)


@dataclass(frozen=True)
class _Reader:
    shared: Mapping[str, Mapping[str, Any]]

    def unfit(self, schema: Any, path: str) -> Iterator[str]:
        if isinstance(schema, list | tuple):
            for part in schema:
                yield from self.unfit(part, path)
        if not isinstance(schema, Mapping):
            return
        fields = _fields(schema)
        for name, field in fields.items():
            here = f"{path}.{name}".lstrip(".")
            for alias in _aliases(field):
                if alias != name and alias in fields:
                    yield f"{here}: its alias {alias!r} is the name of another field"
            yield from self.unfit(field.get("schema"), here)
        if schema.get("type") == "dict" and (why := self._bad_key(schema.get("keys_schema", {}))):
            yield f"{path or 'it'}: the keys of a JSON object are text, from which {why} cannot be read back"
        for name, part in schema.items():
            if name not in _NO_SCHEMAS and not (name == "fields" and fields):
                yield from self.unfit(part, path)

    def _bad_key(self, keys: Mapping[str, Any]) -> str | None:
        match keys.get("type"):
            case "definition-ref":
                return self._bad_key(self.shared.get(keys["schema_ref"], {}))
            case "enum" if keys.get("sub_type") is None:
                return next((str(member) for member in keys["members"] if not isinstance(member.value, str)), None)
            case "literal":
                return next((repr(value) for value in keys["expected"] if not isinstance(value, str)), None)
            case "none":
                return "None"
            case kind if kind in _NO_KEYS:
                return f"a {keys['cls'].__name__ if 'cls' in keys else kind}"
            case _:
                return None


def _fields(schema: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    match schema.get("type"), schema.get("fields"):
        case "model-fields" | "typed-dict", dict() as fields:
            return fields
        case "dataclass-args" | "named-tuple", list() as fields:
            return {field["name"]: field for field in fields}
        case _:
            return {}


def _aliases(field: Mapping[str, Any]) -> Iterator[str]:
    alias = field.get("validation_alias")
    if isinstance(alias, str):
        yield alias
    elif isinstance(alias, list):
        paths = alias if all(isinstance(path, list) for path in alias) else [alias]
        yield from (path[0] for path in paths if len(path) == 1 and isinstance(path[0], str))

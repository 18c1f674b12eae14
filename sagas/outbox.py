"""The outbox: Celery tasks that steps ask for, written with the step's checkpoint and sent after it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID, uuid5

from sagas.storable import is_storable

#: The length of the column that has the task's name.
_MOST_CHARACTERS: Final = 255


@dataclass(frozen=True, slots=True)
class EnqueuedTask:
    """A task that a step asked for.

    Attributes:
        task: the task's name.
        arguments: JSON text of an object with `args`, `kwargs` and `options`.
    """

    task: str
    arguments: str


@dataclass(frozen=True, slots=True)
class OutboxTask:
    """A task in the outbox, which is to be sent.

    Attributes:
        id: the number of its row.
        saga_id: the saga whose step asked for it.
        task: the task's name.
        arguments: as for `EnqueuedTask`.
    """

    id: int
    saga_id: UUID
    task: str
    arguments: str

    @property
    def args(self) -> list[Any]:
        """The task's positional arguments."""
        return list(json.loads(self.arguments)["args"])

    @property
    def kwargs(self) -> dict[str, Any]:
        """The task's keyword arguments."""
        return dict(json.loads(self.arguments)["kwargs"])

    @property
    def options(self) -> dict[str, Any]:
        """The options of Celery's `apply_async`; `task_id` is always one of them."""
        return dict(json.loads(self.arguments)["options"])


def enqueued_task(
    task: Any, args: Sequence[Any], kwargs: Mapping[str, Any], *, saga_id: UUID, number: str
) -> EnqueuedTask:
    """Return what a step asked for.

    Args:
        task: a task of Celery, its name, or a signature of it, which may have options.
        args, kwargs: the task's arguments; a signature's own come before and below these.
        saga_id: the saga.
        number: distinguishes the tasks of one saga; the same one in each attempt gives the same task id.

    Raises:
        TypeError: it is no task, or an argument is not JSON.
        ValueError: the name cannot be stored.
    """
    options: dict[str, Any] = {}
    if isinstance(task, Mapping):
        if task.get("subtask_type") is not None or not isinstance(task.get("task"), str):
            raise TypeError(
                f"call.enqueue() got a {task.get('subtask_type') or 'mapping'}: give one task, its name, or its "
                "signature; a chain or a group can be started by that task."
            )
        own = tuple(task.get("args") or ())
        # An immutable signature, as `task.si()` makes it, takes no further arguments.
        args = own if task.get("immutable") else (*own, *args)
        kwargs = {**(task.get("kwargs") or {}), **({} if task.get("immutable") else kwargs)}
        options = dict(task.get("options") or {})
        name: Any = task["task"]
    else:
        name = task if isinstance(task, str) else getattr(task, "name", None)
    if not isinstance(name, str):
        raise TypeError(f"call.enqueue() got {task!r:.60}: give a task of Celery, its name, or its signature.")
    if not 0 < len(name) <= _MOST_CHARACTERS or not is_storable(name):
        raise ValueError(
            f"call.enqueue() got the task name {name!r:.60}: give text of 1 to {_MOST_CHARACTERS} characters."
        )
    # The same in each attempt: whoever gets the task twice can recognise it.
    options.setdefault("task_id", str(uuid5(saga_id, number)))
    return EnqueuedTask(name, _json(name, {"args": list(args), "kwargs": dict(kwargs), "options": options}))


def _json(name: str, arguments: dict[str, Any]) -> str:
    try:
        _require_json(arguments)
        return json.dumps(arguments, allow_nan=False, separators=(",", ":"))
    except (TypeError, ValueError, RecursionError) as error:
        raise TypeError(
            f"call.enqueue() cannot store the arguments of the task {name} as JSON ({error}): give text, finite "
            "numbers, booleans, None, lists, and mappings with keys of text; write times and ids as text."
        ) from error


def _require_json(value: Any) -> None:
    match value:
        case dict():
            for key, item in value.items():
                if not isinstance(key, str):
                    raise TypeError(f"the key {key!r:.60} is not text")
                _require_json(item)
        case list() | tuple():
            for item in value:
                _require_json(item)
        case None | bool() | int() | float():
            pass
        case str():
            if not is_storable(value):
                raise TypeError(f"{value!r:.60} has a character that no database can store")
        case _:
            raise TypeError(f"{value!r:.60} is of type {type(value).__name__}")

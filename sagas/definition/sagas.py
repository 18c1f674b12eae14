"""Sagas: their parts in order, and whether these can run correctly."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any, ClassVar, Generic

from sagas.context import ContextCodec, ContextT
from sagas.definition.generics import type_argument
from sagas.definition.names import is_name, own_aliases, own_name
from sagas.definition.parts import Part
from sagas.definition.steps import Step, check_fallbacks
from sagas.definition.waits import Sleep, Wait, check_duration
from sagas.errors import DefinitionError
from sagas.graph import Graph


class Saga(Generic[ContextT]):
    """A business process: its steps run in order, and are undone in reverse order when one of them fails finally.

    Declare the context's type as `Saga[Order]` and the steps as a list of classes.

    Attributes:
        name: stable name in the database; default: the class's name in kebab case, in whatever module the class is.
        aliases: its former names, the oldest first. The database keeps the oldest name.
        version: 1 or more. Raise it for a change that sagas already started cannot follow. Those sagas continue with
            the class of their version, which you may keep next to this one. New sagas use the highest version.
        continues: lower versions whose sagas this class continues too.
        steps: the step classes, in order.
        deadline: how long after its start the saga is to have ended. Later, it is undone; past the pivot, a log line
            says so instead. None for no deadline.
        compensate_past_failures: True to compensate earlier steps although the compensation of a later step still
            fails. That compensation is tried again after them. The saga is COMPENSATED once every step is.
        secret_fields: fields of the context that the console does not show, as ("card_number", "customer.phone"): a
            name hides the field wherever it is, a path hides it below those fields only.

    Raises:
        DefinitionError: when the class is defined, if it could not run correctly.
    """

    name: ClassVar[str] = ""
    aliases: ClassVar[Sequence[str]] = ()
    version: ClassVar[int] = 1
    continues: ClassVar[Sequence[int]] = ()
    steps: ClassVar[Sequence[type[Part]]] = ()
    deadline: ClassVar[timedelta | None] = None
    compensate_past_failures: ClassVar[bool] = False
    secret_fields: ClassVar[Sequence[str]] = ()
    codec: ClassVar[ContextCodec[Any]]
    graph: ClassVar[Graph]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.name = own_name(cls)
        cls.aliases = own_aliases(cls)
        cls.version, cls.continues = _own_versions(cls)
        if not isinstance(cls.compensate_past_failures, bool):
            raise DefinitionError(
                f"{cls.__name__}: compensate_past_failures is {cls.compensate_past_failures!r}: give True or False."
            )
        _check_steps(cls)
        cls.steps = tuple(cls.steps)
        if cls.deadline is not None:
            check_duration(cls, "deadline", cls.deadline, "timedelta(days=7), or None for no deadline")
        cls.secret_fields = _own_secret_fields(cls)
        nodes = [part.node() for part in cls.steps]
        cls.graph = Graph.chain(cls.stored_name(), cls.version, nodes, cls.secret_fields)
        cls.codec = ContextCodec(_context_type(cls), owner=cls.__name__)

    @classmethod
    def stored_name(cls) -> str:
        """The name in the database: the oldest one. With a later name, repeating a start would start a second saga."""
        return (*cls.aliases, cls.name)[0]


AnySaga = type[Saga[Any]]


def steps_of(saga: AnySaga) -> list[type[Step[Any]]]:
    """Return the steps of a saga in order, each followed by its fallbacks."""
    return [part for part in parts_of(saga) if issubclass(part, Step)]


def parts_of(saga: AnySaga) -> list[type[Part]]:
    """Return the parts of a saga in order, each followed by its fallbacks."""
    return [each for part in saga.steps for each in part.alternates()]


def _own_versions(cls: AnySaga) -> tuple[int, tuple[int, ...]]:
    version, continues = cls.__dict__.get("version", 1), cls.__dict__.get("continues", ())
    if not _is_version(version):
        raise DefinitionError(f"{cls.__name__}: version is {version!r}: give a whole number, 1 for the first.")
    if not isinstance(continues, Sequence) or not all(_is_version(lower) and lower < version for lower in continues):
        raise DefinitionError(
            f"{cls.__name__}: continues is {continues!r}: give a list of versions below its own, which is {version}."
        )
    return version, tuple(continues)


def _own_secret_fields(cls: AnySaga) -> tuple[str, ...]:
    fields = cls.secret_fields
    if isinstance(fields, str) or not isinstance(fields, Sequence) or not all(map(is_name, fields)):
        raise DefinitionError(
            f"{cls.__name__}: secret_fields is {fields!r}: give a list of field names, as ('card_number',)."
        )
    return tuple(fields)


def _is_version(version: object) -> bool:
    return isinstance(version, int) and not isinstance(version, bool) and version >= 1


def _context_type(cls: AnySaga) -> Any:
    if (context_type := type_argument(cls, Saga)) is not None:
        return context_type
    raise DefinitionError(
        f"{cls.__name__}: the type of its context is missing: "
        f"write class {cls.__name__}(Saga[YourContext]) with a dataclass, TypedDict or pydantic model."
    )


def _check_steps(cls: AnySaga) -> None:
    if not isinstance(cls.steps, Sequence):
        raise DefinitionError(f"{cls.__name__}: steps is {cls.steps!r}: give a list of Step classes.")
    if not cls.steps:
        raise DefinitionError(f"{cls.__name__}: it has no steps: list its Step classes in `steps`.")
    seen: dict[str, type[Part]] = {}
    pivot: str | None = None
    for step in cls.steps:
        _check_part(cls, step)
        for each in step.alternates():
            _check_names(cls, each, seen)
        if pivot and step.pivot:
            raise DefinitionError(
                f"{cls.__name__}: {pivot} and {step.__name__} are both pivots, and there is one point of no return: "
                "keep `pivot = True` on the one after which the saga must go forward."
            )
        for each in step.alternates():
            if pivot and each.can_compensate():
                raise DefinitionError(
                    f"{cls.__name__}: {each.__name__} comes after the pivot {pivot}, so its compensate() could never "
                    "run: remove it, or move the step before the pivot."
                )
        if pivot and issubclass(step, Wait) and step.timeout is not None and step.on_timeout == "abort":
            raise DefinitionError(
                f"{cls.__name__}: {step.__name__} comes after the pivot {pivot}, so its timeout could not abort the "
                'saga: set on_timeout = "go on", or timeout = None.'
            )
        if step.pivot:
            pivot = step.__name__


def _check_part(cls: AnySaga, step: type[Part]) -> None:
    if not (isinstance(step, type) and issubclass(step, Part)):
        raise DefinitionError(
            f"{cls.__name__}: steps holds {step!r}: list the Step class itself, not an instance or a function."
        )
    if step in (Part, Step, Wait, Sleep):
        raise DefinitionError(
            f"{cls.__name__}: steps holds {step.__name__} itself: list a subclass, which says what it does."
        )
    if issubclass(step, Step) and not step.defines_act():
        raise DefinitionError(f"{cls.__name__}: step {step.__name__} defines no act(): say what it does.")
    if issubclass(step, Step):
        check_fallbacks(step)


def _check_names(cls: AnySaga, step: type[Part], seen: dict[str, type[Part]]) -> None:
    for name in (step.name, *step.aliases):
        if (other := seen.get(name)) is step:
            raise DefinitionError(
                f"{cls.__name__}: {step.__name__} is in it twice, as a step or as a fallback, and the log could not "
                "tell the two apart: derive a class from it, and list that for one of them."
            )
        if other is not None:
            raise DefinitionError(
                f"{cls.__name__}: {other.__name__} and {step.__name__} are both named {name!r}"
                f"{'' if name == step.name else ', one by an alias'}, and the log could not tell them apart: "
                "give one another name."
            )
        seen[name] = step

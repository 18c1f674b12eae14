"""Reads what version 0.1.0 stored of a definition, such as `1.x7Qpb0aZ`: the version, and a code of each step in order.

A saga that version 0.1.0 started gets its definition from this text when it is first acquired.
"""

from __future__ import annotations

import base64
import hashlib
from dataclasses import replace
from itertools import product
from typing import Final

from sagas.definition import AnySaga, Part, parts_of
from sagas.errors import LogDoesNotFit
from sagas.graph import Graph, Node

#: A definition with more steps has one code for all of them, so it can only be recognized as a whole.
_MOST_STEPS: Final = 15
_CODE_CHARACTERS: Final = 4
_WHOLE: Final = "*"


def stored_version(definition_version: str) -> int:
    """Return the version that the saga's class declared, or 1 for a text that is older than versions."""
    version, dot, _ = definition_version.partition(".")
    return int(version) if dot and version.isdecimal() else 1


def graph_of(saga: AnySaga, definition_version: str) -> Graph:
    """Return the graph that a saga was started with, as its codes and this class determine it.

    Raises:
        LogDoesNotFit: the saga was started with a step that the class lacks or has changed too much.
    """
    version, dot, codes = definition_version.partition(".")
    if not (dot and version.isdecimal()):
        # The text is older than the codes of steps, and so older than any alias: each step had its oldest name.
        nodes = [_node((*step.aliases, step.name)[0], step) for step in saga.steps]
    elif codes.startswith(_WHOLE) or codes == _joined(saga):
        if codes != _joined(saga):
            raise _changed(saga, f"it was started with other steps than {saga.__name__} has, too many to tell which")
        nodes = [_node(step.name, step) for step in saga.steps]
    else:
        known = {code: node for step in parts_of(saga) for code, node in _codes(step)}
        starts = range(0, len(codes), _CODE_CHARACTERS)
        nodes = []
        for code in (codes[start : start + _CODE_CHARACTERS] for start in starts):
            if code not in known:
                place = f"step {len(nodes) + 1} of the {len(starts)} that it was started with"
                raise _changed(saga, _what_became_of(code, place, saga))
            nodes.append(known[code])
    return Graph.chain(saga.stored_name(), stored_version(definition_version), nodes)


def _joined(saga: AnySaga) -> str:
    codes = [_code(step.name, pivot=step.pivot, can_compensate=step.can_compensate()) for step in saga.steps]
    if len(codes) > _MOST_STEPS:
        return _WHOLE + hashlib.sha256("".join(codes).encode()).hexdigest()[:16]
    return "".join(codes)


def _node(name: str, step: type[Part]) -> Node:
    # Version 0.1.0 had no fallbacks: one that the class has now is for sagas that are started now.
    return replace(step.node(), name=name, fallbacks=())


def _codes(step: type[Part]) -> list[tuple[str, Node]]:
    """Return the codes that this step can have in the text of a saga."""
    # The step may have had no compensation then. A compensation that was added later harms no saga.
    possible = (False, True) if step.can_compensate() else (False,)
    return [
        (_code(name, pivot=step.pivot, can_compensate=can_compensate), _node(name, step))
        for name, can_compensate in product((step.name, *step.aliases), possible)
    ]


def _what_became_of(code: str, place: str, saga: AnySaga) -> str:
    for step, pivot, can_compensate in product(parts_of(saga), (False, True), (False, True)):
        for name in (step.name, *step.aliases):
            if code == _code(name, pivot=pivot, can_compensate=can_compensate):
                if pivot is not step.pivot:
                    change = "became the pivot" if step.pivot else "ceased to be the pivot"
                else:
                    change = "lost its compensate()"
                return f"{step.__name__} {change} since this saga was started"
    names = ", ".join(step.name for step in parts_of(saga))
    return (
        f"{place} is none of those of {saga.__name__} ({names}), so it was removed, or renamed without its former "
        "name in `aliases`"
    )


def _code(name: str, *, pivot: bool, can_compensate: bool) -> str:
    facts = f"{name}\n{pivot}\n{can_compensate}".encode()
    return base64.urlsafe_b64encode(hashlib.sha256(facts).digest()[:3]).decode()


def _changed(saga: AnySaga, why: str) -> LogDoesNotFit:
    return LogDoesNotFit(
        f"{why}: run the code that this saga was started with, or keep that class beside {saga.__name__} and give "
        f"{saga.__name__} a higher `version` (docs/changing-sagas.md)."
    )

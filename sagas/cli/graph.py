"""`sagas graph`: a saga's steps in both directions, as text, as a Mermaid flowchart, or for programs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import zip_longest
from typing import Annotated, Any, Final

import typer
from rich.text import Text

from sagas.cli.loading import KnownName, known_sagas
from sagas.cli.render import NOTHING, out, table, text
from sagas.cli.serialize import AsJson, print_json
from sagas.definition import AnySaga, Part, RetryPolicy, Sleep, Step, Wait
from sagas.duration import duration
from sagas.text import printable

_FORWARD: Final = ("   ", "STEP", "ATTEMPTS", "TIMEOUT", "IF IT FAILS FOR GOOD")
_BACKWARD: Final = ("   ", "COMPENSATES", "ATTEMPTS", "TIMEOUT")
#: Of more waits than these, the first ones and the longest are shown.
_WAITS_SHOWN: Final = 4
#: Characters without a meaning in Mermaid.
_HARMLESS: Final = frozenset(" -_.,:")


def graph(
    name: KnownName,
    mermaid: Annotated[bool, typer.Option("--mermaid/--text", help="As a Mermaid flowchart, or as text.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show the steps of a saga in both directions.

    They are those of the code in SAGAS_MODULES; no database is needed.
    """
    if mermaid and as_json:
        raise typer.BadParameter("--mermaid and --json are two forms of the same: choose one.")
    saga = known_sagas().get(name)
    if as_json:
        print_json(graph_as_json(saga))
    elif mermaid:
        typer.echo(mermaid_graph(saga))
    else:
        out(text_graph(saga))


@dataclass(frozen=True, slots=True)
class _Node:
    """A step in its place, or a fallback of it.

    Attributes:
        place: from 1. A fallback has the place of its step.
        rank: 0 for the step itself, 1 for its first fallback, and so on.
        undoes: what is compensated, as far as it was done, when this one fails for good, in that order; None if, being
            past the pivot, it is tried again instead.
        fallback: what is tried when this one fails for good.
    """

    place: int
    rank: int
    step: type[Part]
    undoes: tuple[type[Part], ...] | None
    fallback: type[Part] | None

    @property
    def may_be_undone(self) -> bool:
        return self.undoes is not None and self.step.can_compensate()

    @property
    def id(self) -> str:
        """Its place and rank, as a part of a name in a flowchart."""
        return f"{self.place}_{self.rank}" if self.rank else str(self.place)


def _nodes(saga: AnySaga) -> list[_Node]:
    nodes: list[_Node] = []
    past_pivot = False
    for place, step in enumerate(saga.steps, start=1):
        alternates = step.alternates()
        for rank, (each, fallback) in enumerate(zip_longest(alternates, alternates[1:])):
            before = tuple(node.step for node in reversed(nodes) if node.may_be_undone)
            nodes.append(_Node(place, rank, each, None if past_pivot else before, fallback))
        past_pivot = past_pivot or step.pivot
    return nodes


def text_graph(saga: AnySaga) -> Text:
    """Return the steps as a table, forward and then backward."""
    nodes = _nodes(saga)
    forward = [
        (
            "" if node.rank else f"{node.place:>3}",
            f"{'or ' if node.rank else ''}{node.step.name}{_mark(node.step)}",
            *_limits(node.step),
            _consequence(node),
        )
        for node in nodes
    ]
    backward = [("", node.step.name, *_limits(node.step)) for node in reversed(nodes) if node.may_be_undone]
    parts = [
        text(f"{saga.name}, version {saga.version} ({saga.__name__})", "bold"),
        text(""),
        text("forward, to COMPLETED", "bold"),
        table(_FORWARD, forward),
        text(""),
        text("backward, to COMPENSATED", "bold"),
    ]
    if backward:
        parts += [
            table(_BACKWARD, backward),
            text("  one that fails for good is tried again later, until the saga is dead"),
        ]
    else:
        parts.append(text("  no step has anything to undo"))
    return Text("\n").join(parts)


def _mark(step: type[Part]) -> str:
    kinds = [step.kind] if step.kind in ("wait", "sleep") else []
    marks = [*kinds, *["pivot"] * step.pivot]
    return f"  ({', '.join(marks)})" if marks else ""


def _consequence(node: _Node) -> str:
    if node.fallback is not None:
        return f"falls back to {node.fallback.name}"
    if issubclass(node.step, Sleep):
        return "goes on after that time"
    if issubclass(node.step, Wait):
        return _after_timeout(node, node.step)
    if node.undoes is None:
        return "past the pivot: tried again later, never undone"
    undone = _undone(node)
    if not node.step.can_compensate():
        return f"compensates {undone}" if undone else "nothing to undo"
    return f"compensates {undone}; itself before, if in doubt" if undone else "compensates itself, if in doubt"


def _undone(node: _Node) -> str:
    return ", ".join(step.name for step in node.undoes or ())


def _after_timeout(node: _Node, wait: type[Wait[Any]]) -> str:
    if wait.timeout is None:
        return "waits without a limit"
    if wait.on_timeout == "go on":
        return "without a signal in time: goes on"
    undone = _undone(node)
    return f"without a signal in time: compensates {undone}" if undone else "without a signal in time: ends"


def _limits(step: type[Part]) -> tuple[str, str]:
    limit = step.limit()
    shown = NOTHING if limit is None else f"{limit:g} s" if issubclass(step, Step) else duration(limit)
    return NOTHING if issubclass(step, Sleep) else _attempts(step.retry), shown


def _attempts(policy: RetryPolicy) -> str:
    retries = policy.max_attempts - 1
    if not retries:
        return "1"
    waits = [f"{policy.delay(failures, random=0):g}" for failures in range(1, min(retries, _WAITS_SHOWN) + 1)]
    if retries > _WAITS_SHOWN:
        waits[-1] = f"… {policy.delay(retries, random=0):g}"
    only = "" if policy.retry_on == (Exception,) else f", on {', '.join(e.__name__ for e in policy.retry_on)}"
    return f"{policy.max_attempts}, after {', '.join(waits)} s{only}"


def mermaid_graph(saga: AnySaga) -> str:
    """Return the steps as a Mermaid flowchart."""
    return "\n    ".join(["flowchart TD", *_mermaid(_nodes(saga))])


def _mermaid(nodes: list[_Node]) -> Iterator[str]:
    yield "start([start]) --> act1"
    undo = "compensated([COMPENSATED])"
    last = nodes[-1].place
    for node in nodes:
        act = f"act{node.id}"
        following = f"act{node.place + 1}" if node.place < last else "completed([COMPLETED])"
        yield f"{act}{_box(node)} --> {following}"
        if issubclass(node.step, Sleep) or (issubclass(node.step, Wait) and node.step.timeout is None):
            continue  # nothing in it can fail but code that only changes the context
        if issubclass(node.step, Wait):
            to = following if node.step.on_timeout == "go on" else undo
            yield f"{act} -. no signal in {duration(node.step.limit() or 0)} .-> {to}"
            continue
        if node.fallback is not None:
            yield f"{act} -. fails .-> act{node.place}_{node.rank + 1}"
        elif node.undoes is None:
            yield f"{act} -. fails, tried again later .-> {act}"
        else:
            yield f"{act} -. fails .-> {undo}"
        if node.may_be_undone:
            yield f'undo{node.id}["compensate {_escaped(node.step.name)}"] --> {undo}'
            undo = f"undo{node.id}"
            if node.fallback is None:
                yield f"{act} -. in doubt .-> {undo}"


def _box(node: _Node) -> str:
    """Return the shape of a node: rounded if it waits, with double sides if it is the pivot."""
    name = f"{node.place}. {_escaped(node.step.name)}"
    label = f"{name}{', a fallback' if node.rank else ''}{', the pivot' if node.step.pivot else ''}"
    if issubclass(node.step, Wait):
        return f'(["{label}, waits for a signal"])'
    if issubclass(node.step, Sleep):
        return f'(["{label}, sleeps {duration(node.step.duration.total_seconds())}"])'
    return f'[["{label}"]]' if node.step.pivot else f'["{label}"]'


def _escaped(name: str) -> str:
    return "".join(char if char.isalnum() or char in _HARMLESS else f"#{ord(char)};" for char in printable(name))


def graph_as_json(saga: AnySaga) -> dict[str, Any]:
    """Return the steps as plain data."""
    nodes = _nodes(saga)
    return {
        "name": saga.name,
        "stored_name": saga.stored_name(),
        "aliases": saga.aliases,
        "version": saga.version,
        "continues": saga.continues,
        "definition": saga.graph.hash,
        "class": f"{saga.__module__}.{saga.__qualname__}",
        "steps": [
            _node_as_json(step) | {"fallbacks": [_node_as_json(n) for n in nodes if n.place == step.place and n.rank]}
            for step in nodes
            if not step.rank
        ],
    }


def _node_as_json(node: _Node) -> dict[str, Any]:
    step = node.step
    return {
        "name": step.name,
        "aliases": step.aliases,
        "class": f"{step.__module__}.{step.__qualname__}",
        "pivot": step.pivot,
        "compensates": step.can_compensate(),
        "kind": step.kind,
        "timeout": step.limit(),
        "on_timeout": step.on_timeout if issubclass(step, Wait) and step.timeout is not None else None,
        "retry": {**asdict(step.retry), "retry_on": [error.__name__ for error in step.retry.retry_on]},
        "if_it_fails": {
            "falls_back_to": None if node.fallback is None else node.fallback.name,
            "tried_again": node.fallback is None and node.undoes is None,
            "compensates": [undone.name for undone in node.undoes or () if node.fallback is None],
        },
    }

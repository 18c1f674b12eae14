"""What `sagas graph` prints: a saga's steps in both directions, as text, as a Mermaid flowchart, or for programs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from rich.text import Text

from sagas.cli.words import NOTHING, columns
from sagas.definition import AnySaga, RetryPolicy, Step
from sagas.text import printable

_HEADERS: Final = ("   ", "STEP", "ATTEMPTS", "TIMEOUT", "IF IT FAILS FOR GOOD")
#: More waits than these are told by their first and their longest.
_WAITS_SHOWN: Final = 4
#: Mermaid reads all others as its own.
_HARMLESS: Final = frozenset(" -_.,:")


@dataclass(frozen=True, slots=True)
class _Node:
    """A step in its place.

    Attributes:
        place: from 1.
        undoes: the steps that are compensated when this one fails for good, in that order; None if, being past the
            pivot, it is tried again instead.
    """

    place: int
    step: type[Step[Any]]
    undoes: tuple[type[Step[Any]], ...] | None


def text_graph(saga: AnySaga, width: int | None = None) -> Text:
    """Return the steps as a table, forward and then backward."""
    nodes = _nodes(saga)
    lines = [Text(f"{printable(saga.name)}, version {saga.version} ({saga.__name__})", style="bold"), Text()]
    lines.append(Text("forward, to COMPLETED", style="bold"))
    lines.append(columns(_HEADERS, [_row(node) for node in nodes], width))
    backward = [[Text(), Text(printable(s.name)), *_limits(s)] for s in reversed(saga.steps) if s.can_compensate()]
    lines += [Text(), Text("backward, to COMPENSATED", style="bold")]
    if backward:
        lines.append(columns(("   ", "COMPENSATES", "ATTEMPTS", "TIMEOUT"), backward, width))
        lines.append(Text("  one that fails for good is tried again later, until the saga is dead"))
    else:
        lines.append(Text("  no step has anything to undo"))
    return Text("\n").join(lines)


def mermaid_graph(saga: AnySaga) -> str:
    """Return the steps as a Mermaid flowchart."""
    return "\n".join(["flowchart TD", *(f"    {line}" for line in _mermaid(saga))])


def graph_as_json(saga: AnySaga) -> dict[str, Any]:
    """Return the steps as plain data."""
    return {
        "name": saga.name,
        "stored_name": saga.stored_name(),
        "aliases": list(saga.aliases),
        "version": saga.version,
        "continues": list(saga.continues),
        "definition_version": saga.definition_version,
        "class": f"{saga.__module__}.{saga.__qualname__}",
        "steps": [_node_as_json(node) for node in _nodes(saga)],
    }


def _nodes(saga: AnySaga) -> list[_Node]:
    nodes: list[_Node] = []
    past_pivot = False
    for place, step in enumerate(saga.steps, start=1):
        before = tuple(s for s in reversed(saga.steps[: place - 1]) if s.can_compensate())
        nodes.append(_Node(place, step, None if past_pivot else before))
        past_pivot = past_pivot or step.pivot
    return nodes


def _row(node: _Node) -> list[Text]:
    pivot = "  (pivot)" if node.step.pivot else ""
    return [
        Text(f"{node.place:>3}"),
        Text(f"{printable(node.step.name)}{pivot}"),
        *_limits(node.step),
        Text(_consequence(node)),
    ]


def _consequence(node: _Node) -> str:
    if node.undoes is None:
        return "past the pivot: tried again later, never undone"
    undone = ", ".join(printable(step.name) for step in node.undoes)
    if not node.step.can_compensate():
        return f"compensates {undone}" if undone else "nothing to undo"
    return f"compensates {undone}; itself before, if in doubt" if undone else "compensates itself, if in doubt"


def _limits(step: type[Step[Any]]) -> list[Text]:
    return [Text(_attempts(step.retry)), Text(NOTHING if step.timeout is None else f"{step.timeout:g} s")]


def _attempts(policy: RetryPolicy) -> str:
    retries = policy.max_attempts - 1
    if not retries:
        return "1"
    waits = [f"{policy.delay(failures, random=0):g}" for failures in range(1, min(retries, _WAITS_SHOWN) + 1)]
    if retries > _WAITS_SHOWN:
        waits[-1] = f"… {policy.delay(retries, random=0):g}"
    only = "" if policy.retry_on == (Exception,) else f", on {', '.join(e.__name__ for e in policy.retry_on)}"
    return f"{policy.max_attempts}, after {', '.join(waits)} s{only}"


def _mermaid(saga: AnySaga) -> Iterator[str]:
    nodes = _nodes(saga)
    yield "start([start]) --> act1"
    for node in nodes:
        following = f"act{node.place + 1}" if node.place < len(nodes) else "completed([COMPLETED])"
        left, right = ("[[", "]]") if node.step.pivot else ("[", "]")
        yield f"act{node.place}{left}{_label(_title(node), *_details(node.step))}{right} --> {following}"
    undone = [node for node in nodes if node.step.can_compensate()]
    for node, earlier in zip(reversed(undone), [*reversed(undone[:-1]), None], strict=False):
        following = f"undo{earlier.place}" if earlier else "compensated"
        label = _label(f"compensate {node.step.name}", *_details(node.step))
        yield f"undo{node.place}[{label}] --> {following}"
    yield "compensated([COMPENSATED])"
    for node in nodes:
        yield from _failures(node, undone)


def _failures(node: _Node, undone: Sequence[_Node]) -> Iterator[str]:
    if node.undoes is None:
        yield f"act{node.place} -. fails, tried again later .-> act{node.place}"
        return
    before = [earlier for earlier in undone if earlier.place < node.place]
    yield f"act{node.place} -. fails .-> {f'undo{before[-1].place}' if before else 'compensated'}"
    if node.step.can_compensate():
        yield f"act{node.place} -. in doubt .-> undo{node.place}"


def _title(node: _Node) -> str:
    return f"{node.place}. {node.step.name}{', the pivot' if node.step.pivot else ''}"


def _details(step: type[Step[Any]]) -> Iterator[str]:
    if step.retry.max_attempts > 1:
        yield f"attempts: {_attempts(step.retry)}"
    if step.timeout is not None:
        yield f"timeout: {step.timeout:g} s"


def _label(*lines: str) -> str:
    return f'"{"<br/>".join(_escaped(printable(line)) for line in lines)}"'


def _escaped(text: str) -> str:
    return "".join(char if char.isalnum() or char in _HARMLESS else f"#{ord(char)};" for char in text)


def _node_as_json(node: _Node) -> dict[str, Any]:
    step = node.step
    return {
        "name": step.name,
        "aliases": list(step.aliases),
        "class": f"{step.__module__}.{step.__qualname__}",
        "pivot": step.pivot,
        "compensates": step.can_compensate(),
        "timeout": step.timeout,
        "retry": {
            "max_attempts": step.retry.max_attempts,
            "first_delay": step.retry.first_delay,
            "factor": step.retry.factor,
            "max_delay": step.retry.max_delay,
            "jitter": step.retry.jitter,
            "retry_on": [error.__name__ for error in step.retry.retry_on],
        },
        "if_it_fails": {
            "tried_again": node.undoes is None,
            "compensates": [undone.name for undone in node.undoes or ()],
        },
    }

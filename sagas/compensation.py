"""Compensation: which steps of an aborted saga are undone, and in which order."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from sagas.graph import Graph, Node


def owed(graph: Graph, *, begun: Collection[str], settled: Collection[str]) -> list[Node]:
    """Return the nodes and fallbacks that are still to be compensated, the last first.

    Args:
        graph: the saga's.
        begun: the names of those that have acted, or may have.
        settled: the names of those that were compensated, or that an operator settled.
    """
    return [
        node
        for place in reversed(graph.nodes)
        for node in reversed(graph.alternates[place.name])
        if node.undoable and node.name in begun and node.name not in settled
    ]


def free(graph: Graph, owed: Sequence[Node]) -> list[Node]:
    """Return those that may be compensated now: no node that depends on them is still to be undone.

    Of one node's alternates, the last is compensated first.

    Args:
        graph: the saga's.
        owed: what is still to be compensated, the last first.
    """
    blocked: set[str] = set()
    ready: list[Node] = []
    owes: dict[str, Node] = {}
    for node in owed:
        owes.setdefault(graph.owners[node.name].name, node)
    for node in reversed(graph.nodes):
        later = graph.successors[node.name]
        if any(name in blocked or name in owes for name in later):
            blocked.add(node.name)
        elif node.name in owes:
            ready.append(owes[node.name])
    return ready

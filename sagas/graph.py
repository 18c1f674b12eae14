"""The graph of a saga: its nodes and which of them come before which, as data.

A saga class makes its graph from its `steps`. Each distinct graph is stored once. So a saga can be drawn, explained and
continued by the graph that it was started with, although the code has changed since.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from itertools import pairwise
from typing import Any

from sagas.errors import DefinitionError


@dataclass(frozen=True, slots=True, kw_only=True)
class Fallback:
    """An alternate action of a node: it is tried once the action before it has failed for good.

    Attributes:
        name: stable name in the log.
        kind: as of a node.
        undoable: whether it has a compensation.
    """

    name: str
    kind: str = "step"
    undoable: bool = False

    @classmethod
    def of(cls, node: Node) -> Fallback:
        """Return the fallback that does what this node does."""
        return cls(name=node.name, kind=node.kind, undoable=node.undoable)


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """One node of a graph.

    Attributes:
        name: stable name in the log.
        kind: the kind of node. "step" acts and compensates; so does "transaction", in one transaction with its
            checkpoint. "wait" waits for a signal, "sleep" for a time.
        after: the nodes that must have succeeded before it begins.
        pivot: whether the saga only goes forward once it has succeeded.
        undoable: whether it has a compensation.
        fallbacks: its alternate actions, in the order in which they are tried.
    """

    name: str
    kind: str = "step"
    after: tuple[str, ...] = ()
    pivot: bool = False
    undoable: bool = False
    fallbacks: tuple[Fallback, ...] = ()

    @property
    def waits(self) -> bool:
        """Whether it waits for a signal or for a time, and so has no effect of its own."""
        return self.kind in ("wait", "sleep")

    @property
    def transactional(self) -> bool:
        """Whether it shares one transaction with its checkpoint."""
        return self.kind == "transaction"

    @property
    def doubtful(self) -> bool:
        """Whether it may have taken effect although the log does not say so. A transaction's effect is its commit."""
        return self.kind == "step"


@dataclass(frozen=True)
class Graph:
    """The nodes of one version of a saga, each after those that it depends on.

    Args:
        saga: the saga's name.
        version: the one that its class declares.
        nodes: the nodes, in an order in which they may run.
        secret_fields: the fields of the context that are not shown to people.

    Raises:
        DefinitionError: two nodes or fallbacks have one name, or a node comes before one that it depends on.
    """

    saga: str
    version: int
    nodes: tuple[Node, ...]
    secret_fields: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        seen: set[str] = set()
        names: set[str] = set()
        for node in self.nodes:
            for name in (node.name, *(fallback.name for fallback in node.fallbacks)):
                if name in names:
                    raise DefinitionError(f"saga {self.saga}: two nodes are named {name!r}: give one another name.")
                names.add(name)
            if missing := set(node.after) - seen:
                raise DefinitionError(
                    f"saga {self.saga}: node {node.name!r} depends on {', '.join(sorted(missing))}, which does not "
                    "come before it: list it earlier."
                )
            seen.add(node.name)

    @classmethod
    def chain(cls, saga: str, version: int, nodes: Iterable[Node], secret_fields: tuple[str, ...] = ()) -> Graph:
        """Return the graph of a list: each node after the one before it."""
        linked: list[Node] = []
        for node in nodes:
            after = (linked[-1].name,) if linked else ()
            linked.append(replace(node, after=after))
        return cls(saga, version, tuple(linked), secret_fields)

    @cached_property
    def alternates(self) -> dict[str, tuple[Node, ...]]:
        """For each node: the node itself, and then its fallbacks in order, each as a node in the same place."""
        return {
            node.name: (node, *(_in_place_of(node, fallback) for fallback in node.fallbacks)) for node in self.nodes
        }

    @cached_property
    def named(self) -> dict[str, Node]:
        """Each node by its name, and each fallback as a node in the same place."""
        return {each.name: each for alternates in self.alternates.values() for each in alternates}

    @cached_property
    def owners(self) -> dict[str, Node]:
        """By the name of each node and of each fallback: the node to which it belongs."""
        return {each.name: node for node in self.nodes for each in self.alternates[node.name]}

    @cached_property
    def next_alternate(self) -> dict[str, Node]:
        """By the name of each node and fallback that has one: the fallback that is tried after it."""
        return {each.name: after for found in self.alternates.values() for each, after in pairwise(found)}

    @cached_property
    def places(self) -> dict[str, int]:
        """The place of each node in the graph's order. A fallback has the place of its node."""
        return {each.name: place for place, node in enumerate(self.nodes) for each in self.alternates[node.name]}

    @cached_property
    def successors(self) -> dict[str, tuple[str, ...]]:
        """For each node, the names of the nodes that directly depend on it."""
        found: dict[str, list[str]] = {node.name: [] for node in self.nodes}
        for node in self.nodes:
            for name in node.after:
                found[name].append(node.name)
        return {name: tuple(names) for name, names in found.items()}

    @cached_property
    def text(self) -> str:
        """The graph as JSON, as it is stored."""
        nodes = [_without_defaults(node) for node in self.nodes]
        stored: dict[str, Any] = {"saga": self.saga, "version": self.version, "nodes": nodes}
        if self.secret_fields:  # a saga without any has the text that it had before there were any: its hash is stored
            stored["secret_fields"] = self.secret_fields
        return json.dumps(stored, separators=(",", ":"))

    @cached_property
    def hash(self) -> str:
        """SHA-256 of its text, in hexadecimal digits: the key under which it is stored."""
        return hashlib.sha256(self.text.encode()).hexdigest()

    @classmethod
    def parse(cls, text: str) -> Graph:
        """Return the graph of a stored text. Fields of a node that only a newer version knows are ignored."""
        stored: dict[str, Any] = json.loads(text)
        nodes = (
            Node(
                name=node["name"],
                kind=node.get("kind", "step"),
                after=tuple(node.get("after", ())),
                pivot=node.get("pivot", False),
                undoable=node.get("undoable", False),
                fallbacks=tuple(map(_fallback, node.get("fallbacks", ()))),
            )
            for node in stored["nodes"]
        )
        return cls(stored["saga"], stored["version"], tuple(nodes), tuple(stored.get("secret_fields", ())))


def _in_place_of(node: Node, fallback: Fallback) -> Node:
    return replace(node, name=fallback.name, kind=fallback.kind, undoable=fallback.undoable, fallbacks=())


def _without_defaults(node: Node | Fallback) -> dict[str, Any]:
    # A node without fallbacks must have the text that it had before there were any: its hash is stored.
    fields = {key: value for key, value in asdict(node).items() if value}
    if isinstance(node, Node) and node.fallbacks:
        fields["fallbacks"] = [_without_defaults(fallback) for fallback in node.fallbacks]
    return fields


def _fallback(stored: dict[str, Any]) -> Fallback:
    return Fallback(name=stored["name"], kind=stored.get("kind", "step"), undoable=stored.get("undoable", False))

"""The graph of a saga: its nodes and which of them come before which, as data.

A saga class makes its graph from its `steps`. Each distinct graph is stored once. So a saga can be drawn, explained and
continued by the graph that it was started with, although the code has changed since.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from sagas.errors import DefinitionError


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """One node of a graph.

    Attributes:
        name: stable name in the log.
        kind: the kind of node: "step" acts and compensates, "wait" is for a signal, "sleep" for a time.
        after: the nodes that must have succeeded before it begins.
        pivot: whether the saga only goes forward once it has succeeded.
        undoable: whether it has a compensation.
    """

    name: str
    kind: str = "step"
    after: tuple[str, ...] = ()
    pivot: bool = False
    undoable: bool = False

    @property
    def waits(self) -> bool:
        """Whether it waits for a signal or for a time, and so has no effect of its own."""
        return self.kind in ("wait", "sleep")


@dataclass(frozen=True)
class Graph:
    """The nodes of one version of a saga, each after those that it depends on.

    Args:
        saga: the saga's name.
        version: the one that its class declares.
        nodes: the nodes, in an order in which they may run.
        secret_fields: the fields of the context that are not shown to people.

    Raises:
        DefinitionError: two nodes have one name, or a node comes before one that it depends on.
    """

    saga: str
    version: int
    nodes: tuple[Node, ...]
    secret_fields: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        seen: set[str] = set()
        for node in self.nodes:
            if node.name in seen:
                raise DefinitionError(f"saga {self.saga}: two nodes are named {node.name!r}: give one another name.")
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
            linked.append(Node(**{**asdict(node), "after": after}))
        return cls(saga, version, tuple(linked), secret_fields)

    @cached_property
    def named(self) -> dict[str, Node]:
        """Each node by its name."""
        return {node.name: node for node in self.nodes}

    @cached_property
    def places(self) -> dict[str, int]:
        """The place of each node in the graph's order."""
        return {node.name: place for place, node in enumerate(self.nodes)}

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
        nodes = [{key: value for key, value in asdict(node).items() if value} for node in self.nodes]
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
            )
            for node in stored["nodes"]
        )
        return cls(stored["saga"], stored["version"], tuple(nodes), tuple(stored.get("secret_fields", ())))

"""A process's cache of the stored definitions: each definition is read or written once."""

from __future__ import annotations

from sagas.definition import AnySaga
from sagas.definition_version import graph_of, stored_version
from sagas.errors import DefinitionNotFound
from sagas.graph import Graph
from sagas.registry import Registry
from sagas.storage.contract import ISagaStorage
from sagas.storage.records import Definition, SagaHead, SagaRecord


class Definitions:
    """The graphs that sagas were started with.

    Args:
        storage: where they are stored.
        registry: the saga classes that this process can run.
    """

    def __init__(self, storage: ISagaStorage, registry: Registry) -> None:
        self._storage = storage
        self._registry = registry
        self._stored: dict[str, Graph] = {}

    def register(self, graph: Graph) -> str:
        """Store a graph unless this process has done so before, and return its hash.

        Raises:
            StorageUnavailable, SchemaBehind: as from the storage.
        """
        if graph.hash not in self._stored:
            self._storage.register_definition(Definition(hash=graph.hash, name=graph.saga, graph=graph.text))
            self._stored[graph.hash] = graph
        return graph.hash

    def knows(self, graph: Graph) -> bool:
        """Whether this process knows that a graph is stored."""
        return graph.hash in self._stored

    def fitting(self, record: SagaRecord | SagaHead) -> tuple[AnySaga, Graph]:
        """Return the class that continues a saga, and the graph that the saga was started with.

        A saga of version 0.1.0 has no definition. Its graph is made from the codes of its steps, and not stored here.

        Raises:
            UnknownSaga: no class in this process continues the saga.
            LogDoesNotFit: the class has changed too much.
            DefinitionNotFound: its definition is not stored.
            StorageUnavailable: as from the storage.
        """
        if record.definition is None:
            saga = self._registry.fitting(record.name, stored_version(record.definition_version))
            return saga, graph_of(saga, record.definition_version)
        graph = self._stored.get(record.definition) or self._known_here(record) or self._load(record.definition)
        return self._registry.fitting(record.name, graph.version), graph

    def graph_of(self, record: SagaRecord | SagaHead) -> Graph:
        """Return the graph that a saga was started with, also without its class; empty for one of version 0.1.0.

        Raises:
            DefinitionNotFound: its definition is not stored.
            StorageUnavailable: as from the storage.
        """
        if record.definition is None:
            return Graph(record.name, stored_version(record.definition_version), ())
        return self._stored.get(record.definition) or self._load(record.definition)

    def _known_here(self, record: SagaRecord | SagaHead) -> Graph | None:
        graph = next((saga.graph for saga in self._registry if saga.graph.hash == record.definition), None)
        if graph is not None:
            self._stored[graph.hash] = graph  # the saga names it, so it is stored
        return graph

    def _load(self, definition_hash: str) -> Graph:
        try:
            graph = Graph.parse(self._storage.load_definition(definition_hash).graph)
        except (KeyError, TypeError, ValueError) as error:
            raise DefinitionNotFound(
                f"the stored definition {definition_hash} cannot be read ({error}): run the version that wrote it."
            ) from error
        self._stored[definition_hash] = graph
        return graph

"""Maps the nodes of a stored graph to step classes. Other code may have started the saga.

A saga continues with the graph that it was started with, and its steps keep the names that they had then. So a change
of the class applies to sagas started later, and every attempt at a step has the same idempotency key.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from sagas.definition import AnySaga, Part, RetryPolicy, parts_of
from sagas.errors import LogDoesNotFit
from sagas.graph import Fallback, Graph, Node
from sagas.progress import Action, Move, Progress


@dataclass(frozen=True)
class Plan:
    """A graph, and the classes that run its nodes today.

    Attributes:
        graph: the stored graph, with the compensations that the classes have now.
        steps: the class of each node and of each fallback, by the name that it has in the graph.
        past_failures: whether earlier steps are compensated while a later one's compensation fails.
    """

    graph: Graph
    steps: Mapping[str, type[Part]]
    past_failures: bool = False

    def retry_policy(self, progress: Progress, move: Move) -> RetryPolicy:
        """Return the policy that says how often, and how soon, this action is tried again."""
        step = self.steps[move.node.name]
        if move.action is Action.COMPENSATE:
            return step.compensate_retry
        return step.retry_after_pivot() if progress.past_pivot else step.retry


_plans: dict[tuple[AnySaga, str], Plan] = {}


def plan_for(saga: AnySaga, graph: Graph) -> Plan:
    """Return how a saga class continues a saga that was started with this graph.

    Raises:
        LogDoesNotFit: the class lacks one of its steps, or has changed one too much.
    """
    key = saga, graph.hash
    if key not in _plans:
        _plans[key] = _plan(saga, graph)
    return _plans[key]


def _plan(saga: AnySaga, graph: Graph) -> Plan:
    named = {name: part for part in parts_of(saga) for name in (part.name, *part.aliases)}
    steps: dict[str, type[Part]] = {}
    nodes = []
    for node in graph.nodes:
        alternates = []
        for stored in graph.alternates[node.name]:
            step = named.get(stored.name)
            if step is None:
                kind = "step" if stored is node else f"fallback of {node.name!r}:"
                names = ", ".join(part.name for part in parts_of(saga))
                raise _does_not_fit(
                    saga,
                    f"{kind} {stored.name!r}, which this saga was started with, is none of those of {saga.__name__} "
                    f"({names}), so it was removed, or renamed without its former name in `aliases`",
                )
            if difference := _difference(step, stored):
                raise _does_not_fit(saga, f"{step.__name__} {difference} since this saga was started")
            if first := next((name for name, other in steps.items() if other is step), None):
                names = f"{first!r} and {stored.name!r}"
                raise _does_not_fit(saga, f"{step.__name__} stands for two steps of this saga, {names}")
            steps[stored.name] = step
            # A compensation that was added after the saga's start harms no saga, so use it.
            alternates.append(replace(stored, undoable=step.can_compensate()))
        nodes.append(replace(alternates[0], fallbacks=tuple(map(Fallback.of, alternates[1:]))))
    return Plan(Graph(graph.saga, graph.version, tuple(nodes)), steps, saga.compensate_past_failures)


def _difference(step: type[Part], node: Node) -> str | None:
    if node.kind != step.kind:
        return f"was a {node.kind} and became a {step.kind}"
    if node.pivot is not step.pivot:
        return "became the pivot" if step.pivot else "ceased to be the pivot"
    return "lost its compensate()" if node.undoable and not step.can_compensate() else None


def _does_not_fit(saga: AnySaga, why: str) -> LogDoesNotFit:
    return LogDoesNotFit(
        f"{why}: run the code that this saga was started with, or keep that class beside {saga.__name__} and give "
        f"{saga.__name__} a higher `version` (docs/changing-sagas.md)."
    )

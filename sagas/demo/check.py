"""The check at the end: what the sagas and the books say, against what the orders' file says must have happened."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence

from sagas import SagaStatus
from sagas.demo.ledger import Books, Entry
from sagas.demo.shop import OPENING_BALANCES, Order


def audit(orders: Sequence[Order], ends: Mapping[str, SagaStatus], books: Books) -> list[str]:
    """Return a sentence for everything that is not as it must be; none if all is well.

    Args:
        orders: what was ordered, and how each must end.
        ends: how the saga of each order ended.
        books: what the services did.
    """
    return [*_wrong_ends(orders, ends), *_wrong_entries(orders, books.entries), *_wrong_balances(orders, books)]


def _wrong_ends(orders: Sequence[Order], ends: Mapping[str, SagaStatus]) -> Iterator[str]:
    for order in orders:
        end = ends.get(order.order)
        if end is not order.ends:
            yield f"order {order.order}: its saga must end {order.ends}, and {_is(end)}."
    for unknown in ends.keys() - {order.order for order in orders}:
        yield f"order {unknown}: there is a saga for it, and no line in the file."


def _is(end: SagaStatus | None) -> str:
    return "there is none" if end is None else f"it is {end}"


def _wrong_entries(orders: Sequence[Order], entries: Sequence[Entry]) -> Iterator[str]:
    for key, times in Counter(entry.key for entry in entries).items():
        if times > 1:
            yield f"idempotency key {key}: it took effect {times} times."
    by_order = defaultdict[str, list[Entry]](list)
    for entry in entries:
        by_order[entry.order].append(entry)
    for order in orders:
        for sentence in _wrong_effects(order, by_order.pop(order.order, [])):
            yield f"order {order.order}: {sentence}"
    for unknown in by_order:
        yield f"order {unknown}: there are entries for it, and no line in the file."


def _wrong_effects(order: Order, entries: Sequence[Entry]) -> Iterator[str]:
    """Compare the entries of one order, effect by effect; undoing what never happened is an entry of 0."""
    stands = order.ends is SagaStatus.COMPLETED
    changes = _changes(order)
    for effect, (account, change) in changes.items():
        must_happen = effect in order.effects
        acts = [entry for entry in entries if entry.effect == effect and not entry.undone]
        undoings = [entry for entry in entries if entry.effect == effect and entry.undone]
        if len(acts) != (1 if must_happen else 0):
            yield f"{effect} must happen {'once' if must_happen else 'never'}, and happened {_times(len(acts))}."
        if any((act.account, act.change) != (account, change) for act in acts):
            yield f"{effect} must change {account} by {change:+}, and changed {_what(acts)}."
        if stands and undoings:
            yield f"{effect} must stand, and was undone {_times(len(undoings))}."
        if not stands and must_happen and len(undoings) != 1:
            yield f"{effect} must be undone once, and was undone {_times(len(undoings))}."
        left = sum(entry.change for entry in (*acts, *undoings))
        if left and not stands:
            yield f"{effect} must leave nothing behind, and left {_what([*acts, *undoings])}."
    for entry in entries:
        if entry.effect not in changes:
            yield f"{entry.effect} is not an effect of this saga."


def _wrong_balances(orders: Sequence[Order], books: Books) -> Iterator[str]:
    must = Counter(OPENING_BALANCES)
    for order in orders:
        if order.ends is SagaStatus.COMPLETED:
            for account, change in _changes(order).values():
                must[account] += change
    for account, balance in must.items():
        if (held := books.balances.get(account, 0)) != balance:
            yield f"account {account}: it must hold {balance}, and holds {held}."


def _changes(order: Order) -> dict[str, tuple[str, int]]:
    """Effect → the account it changes, and by how much."""
    return {
        "reserve": (order.sku, -order.pieces),
        "charge": ("till", order.cents),
        "ship": ("parcels", 1),
        "notify": ("letters", 1),
    }


def _times(times: int) -> str:
    return {0: "never", 1: "once", 2: "twice"}.get(times, f"{times} times")


def _what(entries: Sequence[Entry]) -> str:
    return ", ".join(f"{entry.account} by {entry.change:+}" for entry in entries)

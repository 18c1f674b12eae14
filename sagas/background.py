"""Runs work in a background thread, so that the caller need not wait. The thread ends when no work is left."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

ItemT = TypeVar("ItemT")


class InBackground(Generic[ItemT]):
    """Passes items to a function in a thread. Items that arrive while the function runs form the next batch.

    There is one thread at most, so that items are handled in order. The interpreter waits for the thread when it exits.
    A forked child does not handle the items that its parent still has to handle.

    Args:
        handle: called with a batch; it should not raise.
        name: the thread's name.
    """

    def __init__(self, handle: Callable[[Sequence[ItemT]], None], *, name: str) -> None:
        self._handle = handle
        self._name = name
        self._begin()

    def _begin(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._waiting: list[ItemT] = []
        self._working = False

    def put(self, items: Sequence[ItemT]) -> None:
        """Queue items for the function, and return at once."""
        if os.getpid() != self._pid:
            self._begin()
        with self._lock:
            self._waiting += items
            if self._working or not self._waiting:
                return
            self._working = True
        try:
            threading.Thread(target=self._work, name=self._name).start()
        except RuntimeError:  # the interpreter is about to exit, or the system has no thread left
            self._work()

    def now(self, items: Sequence[ItemT]) -> None:
        """Call the function here, in the caller's thread."""
        self._handle(items)

    def _work(self) -> None:
        while batch := self._next():
            self._handle(batch)

    def _next(self) -> Sequence[ItemT]:
        with self._lock:
            batch, self._waiting = self._waiting, []
            self._working = bool(batch)
            return batch

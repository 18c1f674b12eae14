"""Work that a caller must not wait for: done in a thread, which ends as soon as nothing is left to do."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

ItemT = TypeVar("ItemT")


class InBackground(Generic[ItemT]):
    """Hands items to a function in a thread; what comes while it works is its next batch.

    One thread at most, so that items are handled in order. The interpreter waits for it when it exits. In a forked
    child, what the parent has not handled yet is the parent's.

    Args:
        handle: is called with a batch; it should not raise.
        name: of the thread.
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
        """Have items handled, and return at once."""
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

    def _work(self) -> None:
        while batch := self._next():
            self._handle(batch)

    def _next(self) -> Sequence[ItemT]:
        with self._lock:
            batch, self._waiting = self._waiting, []
            self._working = bool(batch)
            return batch

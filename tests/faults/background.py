"""Run a loop in a thread during the block that it disturbs."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager


@contextmanager
def in_background(loop: Callable[[threading.Event], None]) -> Iterator[None]:
    """Run a loop while the block runs. Its event asks the loop to end; the loop's error is raised after the block."""
    ended = threading.Event()
    with ThreadPoolExecutor(1) as thread:
        running = thread.submit(loop, ended)
        try:
            yield
        finally:
            ended.set()
        running.result()

"""Group commit: writes that arrive while a commit is under way share the next commit.

A commit costs the same for one saga as for a hundred. The write of a single saga begins at once.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from sagas.errors import InboxMoved, LeaseLost, StorageUnavailable
from sagas.storage.answers import Applied
from sagas.storage.contract import ISagaStorage
from sagas.storage.leases import Lease, LeaseRequest
from sagas.storage.records import NewSaga
from sagas.storage.transitions import Transition

#: The largest number of sagas in one statement. A larger group would keep its first sagas waiting.
_MOST: Final = 500


#: The id of a saga, whether it is new, and the request that holds it.
_Created = tuple[UUID, bool, LeaseRequest]


@dataclass(slots=True, eq=False)
class _Wish:
    """One write that a coroutine waits for."""

    value: Any
    answer: asyncio.Future[Any]
    loop: asyncio.AbstractEventLoop


class GroupWriter:
    """Writes for the coroutines of one process, from one thread, in groups.

    Args:
        storage: where it writes.
    """

    def __init__(self, storage: ISagaStorage) -> None:
        self._storage = storage
        self._reset()

    def _reset(self) -> None:
        self._pid = os.getpid()
        self._applies: list[_Wish] = []
        self._creates: list[_Wish] = []
        self._wake = threading.Condition()
        self._running = False

    async def apply(self, lease: Lease, transition: Transition) -> Applied:
        """Do as `ISagaStorage.apply` does."""
        applied: Applied = await self._add("_applies", (lease, transition))
        return applied

    async def create(self, saga: NewSaga, request: LeaseRequest) -> _Created:
        """Store a new saga under its first lease; return its id, whether it is new, and the request that holds it."""
        created: _Created = await self._add("_creates", (saga, request))
        return created

    def _add(self, queue: str, value: Any) -> asyncio.Future[Any]:
        if os.getpid() != self._pid:
            self._reset()  # after a fork the thread stayed with the parent
        loop = asyncio.get_running_loop()
        wish = _Wish(value, loop.create_future(), loop)
        with self._wake:
            getattr(self, queue).append(wish)
            if not self._running:
                self._running = True
                threading.Thread(target=self._write_all, name="sagas-writer", daemon=True).start()
            self._wake.notify()
        return wish.answer

    def _write_all(self) -> None:
        while True:
            with self._wake:
                while not (self._applies or self._creates):
                    self._wake.wait()
                applies, self._applies = self._applies[:_MOST], self._applies[_MOST:]
                creates, self._creates = self._creates[:_MOST], self._creates[_MOST:]
            _answer(creates, self._create)
            _answer(applies, self._storage.apply_many)

    def _create(self, asked: Sequence[tuple[NewSaga, LeaseRequest]]) -> Sequence[_Created | Exception]:
        # Use one request for all: the token distinguishes two acquires of one saga, not two sagas.
        request = asked[0][1]
        try:
            created = self._storage.create_sagas([saga for saga, _ in asked], lease=request)
        except StorageUnavailable:
            raise
        except Exception as error:
            # One saga that cannot be stored fails the statement, and nothing of the group is stored.
            return [error] if len(asked) == 1 else [one for each in asked for one in self._create([each])]
        return [(saga_id, is_new, request) for saga_id, is_new in created]


def _answer(wishes: Sequence[_Wish], write: Callable[[list[Any]], Sequence[Any]]) -> None:
    if not wishes:
        return
    try:
        answers = list(zip(wishes, write([wish.value for wish in wishes]), strict=True))
    except BaseException as error:  # each coroutine decides what it means
        answers = [(wish, error) for wish in wishes]
    by_loop: dict[asyncio.AbstractEventLoop, list[tuple[_Wish, Any]]] = {}
    for wish, answer in answers:
        by_loop.setdefault(wish.loop, []).append((wish, answer))
    for loop, answered in by_loop.items():
        with suppress(RuntimeError):  # the loop is closed, so no coroutine waits for the answer
            loop.call_soon_threadsafe(_settle, answered)


def _settle(answered: Sequence[tuple[_Wish, Any]]) -> None:
    for wish, answer in answered:
        if wish.answer.cancelled():
            continue
        if isinstance(answer, BaseException):
            wish.answer.set_exception(_own(answer))
        else:
            wish.answer.set_result(answer)


def _own(error: BaseException) -> BaseException:
    # Give each coroutine an error of its own: each raise extends the traceback of the object.
    return type(error)(*error.args) if isinstance(error, (LeaseLost, InboxMoved)) else error

"""Reading sagas, and waiting for their end."""

from __future__ import annotations

from functools import partial
from typing import Unpack

from sagas.engine.base import EngineBase
from sagas.inspection.view import SagaSummary, SagaView
from sagas.loops import call_in_thread
from sagas.reading import Filters, SagaReference


class Reading(EngineBase):
    """Reads sagas."""

    def get(self, saga: SagaReference) -> SagaView:
        """Return one saga as it is now: its status, its context, the steps that are done, what it waits for.

        Args:
            saga: its id, or a pair of its class (or name) and its idempotency key.

        Raises:
            SagaNotFound: there is no such saga; its transaction has not committed, or it was pruned.
            InvalidSagaId: the text is no id.
            StorageUnavailable: the database does not answer.
        """
        return self._reader.get(saga)

    async def get_async(self, saga: SagaReference) -> SagaView:
        """Do as `get` does, from a coroutine."""
        return await call_in_thread(partial(self.get, saga))

    def find(self, **filters: Unpack[Filters]) -> list[SagaSummary]:
        """Return sagas, the newest first. Each filter narrows what the others leave.

        For the next page, repeat the call with `after`. A key, tags, times, and statuses and states of unfinished sagas
        are found through an index. What other filters want is looked for from the newest saga on: give `created_after`
        too where few sagas match.

        Args:
            filters: `name`: the class, or the name. `status`, `state`: one or several. `key`: the idempotency key.
                `tags`: sagas that have all of these tags, and maybe others. `created_after`, `created_before`: created
                at this time or later, and before this time. `updated_after`, `updated_before`: the same for the last
                write, which for a finished saga is its end. `after`: the id of the last saga of the page before.
                `limit`: how many at most; default: 50.

        Raises:
            ValueError: a filter has a value that it cannot have, or a time has no time zone.
            StorageUnavailable: the database does not answer.
        """
        return self._reader.find(**filters)

    async def find_async(self, **filters: Unpack[Filters]) -> list[SagaSummary]:
        """Do as `find` does, from a coroutine."""
        return await call_in_thread(partial(self.find, **filters))

    def wait(self, saga: SagaReference, timeout: float | None = None) -> SagaView:
        """Return one saga once it is over: COMPLETED, COMPENSATED, or dead.

        It reads the saga's status after 50 milliseconds at first and every second later on. It also waits for a
        database that does not answer. Such an attempt to read may end some seconds after the timeout.

        Args:
            saga: its id, or a pair of its class (or name) and its idempotency key.
            timeout: how many seconds to wait at most; 0 looks once, and None waits without a limit.

        Raises:
            WaitTimedOut: the saga is not over in time, or the database did not answer.
            SagaNotFound, InvalidSagaId: as for `get`.
            ValueError: the timeout is not a number of seconds of 0 or more.
            RuntimeError: called within an async step, whose loop it would block: await `wait_async`.
        """
        return self._reader.wait(saga, timeout)

    async def wait_async(self, saga: SagaReference, timeout: float | None = None) -> SagaView:
        """Do as `wait` does, from a coroutine. The event loop goes on meanwhile."""
        return await self._reader.wait_async(saga, timeout)

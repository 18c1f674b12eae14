"""A caller that starts sagas in transactions of its own."""

from __future__ import annotations

import time
from typing import Any
from uuid import UUID

import sqlalchemy as sa

from sagas import PostgresSagaStorage
from sagas.storage.saga_filter import SagaFilter
from tests.samples import DEADLINE_SECONDS, FakeDispatcher, QuickEngine, Stage, Trip


class Shop:
    """The caller: its database, its engine for sagas, and a broker that records the sent messages."""

    def __init__(self, storage: PostgresSagaStorage, url: str) -> None:
        self.url = url
        self.database = sa.create_engine(url)
        self.dispatcher = FakeDispatcher()
        self.engine = QuickEngine(storage, dispatcher=self.dispatcher)
        self.saga = Stage().saga("hotel")

    def start(self, connection: Any, **options: Any) -> UUID:
        return self.engine.start(self.saga, Trip(), connection=connection, **options)

    @property
    def sent(self) -> list[UUID]:
        return [claim.saga_id for claim in self.dispatcher.sent]

    @property
    def stored(self) -> set[UUID]:
        return {record.id for record in self.engine.storage.find(SagaFilter())}

    def wait_for_sent(self, *saga_ids: UUID) -> None:
        """Wait until these sagas and no others were sent; commits on an event loop send in the background."""
        deadline = time.monotonic() + DEADLINE_SECONDS
        while len(self.sent) < len(saga_ids):
            assert time.monotonic() < deadline, f"sent only {self.sent}"
            time.sleep(0.005)
        assert self.sent == list(saga_ids)

"""Contract tests of the last ticks of schedules."""

from __future__ import annotations

from datetime import timedelta

from sagas.storage.contract import ISagaStorage
from sagas.testing.storage_contract.base import ContractBase, all_at_once


class ScheduleContract(ContractBase):
    """`schedule_ticks` and `note_tick`."""

    def test_a_new_schedule_gets_the_present_time(self, storage: ISagaStorage) -> None:
        ticks = storage.schedule_ticks(["nightly", "hourly"])

        assert ticks.last == {"nightly": ticks.now, "hourly": ticks.now}

    def test_a_known_schedule_keeps_its_tick_while_time_passes(self, storage: ISagaStorage) -> None:
        first = storage.schedule_ticks(["nightly"])
        self.pass_time(storage, self.a_while)

        later = storage.schedule_ticks(["nightly", "hourly"])

        assert later.last["nightly"] <= later.now - timedelta(seconds=self.a_while)
        assert later.last["hourly"] == later.now
        assert first.last.keys() == {"nightly"}

    def test_a_noted_tick_is_returned(self, storage: ISagaStorage) -> None:
        now = storage.schedule_ticks(["nightly", "hourly"]).now
        tick = now + timedelta(seconds=1)

        storage.note_tick("nightly", tick)

        assert storage.schedule_ticks(["nightly", "hourly"]).last == {"nightly": tick, "hourly": now}

    def test_an_earlier_tick_does_not_put_a_schedule_back(self, storage: ISagaStorage) -> None:
        now = storage.schedule_ticks(["nightly"]).now
        storage.note_tick("nightly", now + timedelta(seconds=2))

        storage.note_tick("nightly", now + timedelta(seconds=1))

        assert storage.schedule_ticks(["nightly"]).last == {"nightly": now + timedelta(seconds=2)}

    def test_a_schedule_that_many_scans_see_first_begins_at_one_time(self, storage: ISagaStorage) -> None:
        seen = all_at_once(lambda _: storage.schedule_ticks(["nightly"]).last)

        # A scan that comes while another stores the schedule need not see it.
        assert {last["nightly"] for last in seen if last} == {storage.schedule_ticks(["nightly"]).last["nightly"]}

    def test_no_schedules_have_no_ticks(self, storage: ISagaStorage) -> None:
        storage.schedule_ticks(["nightly"])

        assert storage.schedule_ticks([]).last == {}

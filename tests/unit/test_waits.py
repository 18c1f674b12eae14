"""Sagas that wait for signals: early, late, double and wrong ones, timeouts, and sleeps."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest

from sagas import Call, MemorySagaStorage, RetryPolicy, SagaStatus, Sleep, Wait
from sagas.errors import InvalidSagaId, SagaNotFound, SignalRefused
from sagas.progress import Action, EntryStatus, Progress
from sagas.storage.answers import Refusal
from sagas.storage.records import SagaState
from tests.samples import Clock, FakeDispatcher, QuickEngine, Stage, Trip, saga_of

DAY = 86_400.0


@dataclass
class Accepted:
    courier: str


class Courier(Wait[Accepted]):
    timeout = timedelta(days=2)

    def received(self, context: Trip, signal: Accepted) -> None:
        context.booked.append(signal.courier)


class PatientCourier(Courier):
    name = "courier"
    timeout = None


class OptionalCourier(Courier):
    name = "courier"
    on_timeout = "go on"


class CoolingOff(Sleep):
    duration = timedelta(hours=1)


@pytest.fixture
def dispatcher() -> FakeDispatcher:
    return FakeDispatcher()


@pytest.fixture
def engine(clock: Clock, dispatcher: FakeDispatcher) -> QuickEngine:
    return QuickEngine(MemorySagaStorage(clock), dispatcher=dispatcher)


def logged(engine: QuickEngine) -> list[str]:
    return [f"{e.step} {e.verdict or e.status}" for e in engine.stored().log]


def wake(engine: QuickEngine) -> str:
    """Scan, and run the saga if the scan or a signal has sent it; return what became of it."""
    engine.scan()
    assert isinstance(engine.dispatcher, FakeDispatcher)
    if not engine.dispatcher.sent:
        return "not sent"
    claim = engine.dispatcher.sent.pop()
    engine.dispatcher.sent.clear()
    return engine.recover(claim.saga_id, version=claim.version).outcome


# -- waiting and going on -----------------------------------------------------------------------------------------


def test_a_saga_waits_and_goes_on_with_the_signal(
    stage: Stage, engine: QuickEngine, dispatcher: FakeDispatcher
) -> None:
    report = engine.run(stage.saga("hotel", Courier, "car"), Trip())

    assert (report.outcome, report.message) == ("waiting", "it waits for courier, at most 2 d.")
    stored = engine.stored()
    assert (stored.state, stored.status, stored.lease_owner) == (SagaState.WAITING, SagaStatus.RUNNING, None)
    assert engine.scan().dispatched == ()

    assert engine.signal(report.saga_id, "courier", Accepted("ann"), actor="portal")

    (claim,) = dispatcher.sent
    assert engine.recover(claim.saga_id, version=claim.version).events == ("courier: received", "car: acted")
    stored = engine.stored()
    assert stored.context == '{"booked":["ann"],"note":null}'
    assert logged(engine) == ["hotel completed", "courier armed", "courier completed", "car completed"]
    received = stored.log[2]
    assert received.actor == "portal"
    assert received.signal is not None
    assert (received.signal["payload"], received.signal["sent_at"]) == (
        '{"courier":"ann"}',
        stored.created_at.isoformat(),
    )


def test_a_saga_that_waits_without_a_limit_is_never_due(stage: Stage, engine: QuickEngine, clock: Clock) -> None:
    engine.run(stage.saga("hotel", PatientCourier), Trip())
    clock.forward(400 * DAY)

    assert engine.stored().available_at is None
    assert wake(engine) == "not sent"


def test_an_early_signal_is_kept_and_the_saga_never_waits(stage: Stage, engine: QuickEngine) -> None:
    saga_id = engine.start(saga := stage.saga("hotel", Courier), Trip(), idempotency_key="trip-1")

    assert engine.signal((saga, "trip-1"), "courier", {"courier": "ann"})
    assert engine.recover(saga_id).outcome == "completed"

    assert logged(engine) == ["hotel completed", "courier completed"]


def test_a_signal_that_comes_while_a_step_runs_is_received_by_the_same_holder(
    stage: Stage, engine: QuickEngine, dispatcher: FakeDispatcher
) -> None:
    def signal(_: Trip, call: Call) -> None:
        engine.signal(call.saga_id, "courier", {"courier": "ann"})

    assert engine.run(stage.saga(stage.step("hotel", [signal]), Courier), Trip()).outcome == "completed"

    assert dispatcher.sent == []


def test_a_signal_between_reading_the_inbox_and_suspending_is_not_missed(
    stage: Stage, engine: QuickEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    apply, sent = engine.storage.apply, []

    def signal_first(lease: Any, transition: Any) -> Any:
        if type(transition).__name__ == "Suspended" and not sent:
            sent.append(engine.signal(lease.saga_id, "courier", {"courier": "ann"}))
        return apply(lease, transition)

    monkeypatch.setattr(engine.storage, "apply", signal_first)

    assert engine.run(stage.saga("hotel", Courier), Trip()).outcome == "completed"
    assert sent == [True]


def test_each_wait_takes_its_own_signals_the_oldest_first(stage: Stage, engine: QuickEngine) -> None:
    again = type("Again", (Courier,), {"name": "again"})
    saga_id = engine.start(stage.saga(Courier, again), Trip())
    for name, courier in (("again", "bob"), ("courier", "ann"), ("courier", "eve")):
        engine.signal(saga_id, name, {"courier": courier})

    engine.recover(saga_id)

    assert engine.stored().context == '{"booked":["ann","bob"],"note":null}'


def test_one_signal_id_twice_is_one_signal(stage: Stage, engine: QuickEngine) -> None:
    report = engine.run(stage.saga(Courier, "car"), Trip())

    sent = [engine.signal(report.saga_id, "courier", {"courier": c}, signal_id="evt-7") for c in ("ann", "bob")]

    assert sent == [True, False]
    assert [signal.payload for signal in engine.storage.signals(report.saga_id)] == ['{"courier":"ann"}']
    assert engine.stored().inbox == 1


def test_a_second_signal_is_kept_and_not_received(stage: Stage, engine: QuickEngine) -> None:
    report = engine.run(stage.saga(Courier, PatientCourierTwo), Trip())
    for courier in ("ann", "bob"):
        engine.signal(report.saga_id, "courier", {"courier": courier})

    assert wake(engine) == "waiting"
    assert engine.stored().context == '{"booked":["ann"],"note":null}'


class PatientCourierTwo(Courier):
    name = "second-courier"
    timeout = None


# -- signals that are refused -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "payload", "why"),
    [
        ("carrier", {"courier": "ann"}, r"\(trip\) has no wait 'carrier': it waits for 'courier'\. Correct the name\."),
        ("courier", {"driver": "ann"}, r"the signal 'courier' was refused: Courier: its signal does not validate as A"),
        ("courier", Trip(), r"Courier: its signal is of type Trip, and it takes Accepted"),
        ("courier", None, r"does not validate as Accepted"),
        ("hotel", None, r"has no wait 'hotel'"),
    ],
)
def test_a_signal_that_no_wait_can_take_is_refused(
    stage: Stage, engine: QuickEngine, name: str, payload: Any, why: str
) -> None:
    report = engine.run(stage.saga("hotel", Courier), Trip())

    with pytest.raises(SignalRefused, match=why):
        engine.signal(report.saga_id, name, payload)
    assert engine.storage.signals(report.saga_id) == []


def test_a_signal_for_a_saga_without_waits_says_so(stage: Stage, engine: QuickEngine) -> None:
    saga_id = engine.start(stage.saga("hotel"), Trip())

    with pytest.raises(SignalRefused, match=r"has no wait 'courier': it waits for none"):
        engine.signal(saga_id, "courier")


def test_a_signal_for_a_finished_saga_is_refused(stage: Stage, engine: QuickEngine, clock: Clock) -> None:
    saga_id = engine.run(stage.saga(Courier), Trip()).saga_id
    clock.forward(3 * DAY)
    wake(engine)

    with pytest.raises(SignalRefused, match=r"is COMPENSATED already: no signal reaches it any more"):
        engine.signal(saga_id, "courier", {"courier": "ann"})


def test_a_signal_for_an_unknown_saga_is_refused(stage: Stage, engine: QuickEngine) -> None:
    with pytest.raises(SagaNotFound, match=r"no saga named 'trip' has the idempotency key 'trip-9': check both"):
        engine.signal((stage.saga(Courier), "trip-9"), "courier")
    with pytest.raises(SagaNotFound):
        engine.signal("01890a5d-ac96-774b-bcce-b302099a8057", "courier")
    with pytest.raises(InvalidSagaId):
        engine.signal("trip-9", "courier")


@pytest.mark.parametrize("signal_id", ["", "x" * 256, "\0"])
def test_a_signal_id_that_cannot_be_stored_is_refused(stage: Stage, engine: QuickEngine, signal_id: str) -> None:
    saga_id = engine.run(stage.saga(Courier), Trip()).saga_id

    with pytest.raises(ValueError, match="give text of 1 to 255 characters"):
        engine.signal(saga_id, "courier", {"courier": "ann"}, signal_id=signal_id)


def test_a_program_without_the_code_sends_plain_data_and_a_wrong_name_is_refused(
    stage: Stage, engine: QuickEngine, clock: Clock
) -> None:
    saga_id = engine.run(stage.saga(Courier), Trip()).saga_id
    other = QuickEngine(engine.storage, dispatcher=engine.dispatcher)

    with pytest.raises(SignalRefused, match="has no wait 'carrier': it waits for 'courier'"):
        other.signal(saga_id, "carrier")
    with pytest.raises(SignalRefused, match="this process does not know its type: give plain data"):
        other.signal(saga_id, "courier", Accepted("ann"))
    other.signal(saga_id, "courier", {"courier": "ann"})

    assert wake(engine) == "completed"


def test_plain_data_that_the_worker_cannot_read_is_put_aside_and_the_next_signal_counts(
    stage: Stage, engine: QuickEngine
) -> None:
    saga_id = engine.run(stage.saga(Courier), Trip()).saga_id
    other = QuickEngine(engine.storage, dispatcher=engine.dispatcher)
    other.signal(saga_id, "courier", {"driver": "ann"}, actor="portal")

    assert wake(engine) == "waiting"

    assert logged(engine) == ["courier armed", "signal refused completed"]
    assert "does not validate as Accepted" in (engine.stored().log[1].message or "")
    other.signal(saga_id, "courier", {"courier": "ann"})
    assert wake(engine) == "completed"


# -- timeouts and sleeps ------------------------------------------------------------------------------------------


def test_a_wait_that_times_out_aborts_the_saga(stage: Stage, engine: QuickEngine, clock: Clock) -> None:
    engine.run(stage.saga("hotel", Courier, "car"), Trip())
    clock.forward(2 * DAY - 1)
    assert wake(engine) == "not sent"
    clock.forward(1)

    assert wake(engine) == "compensated"

    assert stage.seen == ["act hotel", "compensate hotel"]
    assert logged(engine) == ["hotel completed", "courier armed", "courier abort", "hotel completed"]
    assert engine.stored().last_error == "courier, act, attempt 1: WaitTimedOut: no signal came in time"


def test_a_wait_that_times_out_may_go_on(stage: Stage, engine: QuickEngine, clock: Clock) -> None:
    engine.run(stage.saga("hotel", OptionalCourier, "car"), Trip())
    clock.forward(2 * DAY)

    assert wake(engine) == "completed"

    assert stage.seen == ["act hotel", "act car"]


def test_a_signal_that_was_delivered_beats_a_timeout_that_has_passed(
    stage: Stage, engine: QuickEngine, clock: Clock
) -> None:
    saga_id = engine.run(stage.saga("hotel", Courier), Trip()).saga_id
    clock.forward(3 * DAY)

    engine.signal(saga_id, "courier", {"courier": "ann"})

    assert wake(engine) == "completed"


def test_a_signal_between_reading_the_inbox_and_the_timeout_is_not_missed(
    stage: Stage, engine: QuickEngine, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    saga_id = engine.run(stage.saga("hotel", Courier), Trip()).saga_id
    clock.forward(2 * DAY)
    apply, sent = engine.storage.apply, []

    def signal_first(lease: Any, transition: Any) -> Any:
        if not sent:
            sent.append(engine.signal(saga_id, "courier", {"courier": "ann"}))
        return apply(lease, transition)

    monkeypatch.setattr(engine.storage, "apply", signal_first)

    assert wake(engine) == "completed"
    assert sent == [True]


def test_a_wait_keeps_its_deadline_when_the_saga_is_woken_in_vain(
    stage: Stage, engine: QuickEngine, clock: Clock
) -> None:
    report = engine.run(stage.saga(Courier, PatientCourierTwo), Trip())
    due = engine.stored().available_at
    clock.forward(DAY)

    engine.signal(report.saga_id, "second-courier", {"courier": "ann"})

    assert wake(engine) == "waiting"
    assert engine.stored().available_at == due
    assert logged(engine) == ["courier armed"]


def test_a_saga_sleeps_for_the_duration(stage: Stage, engine: QuickEngine, clock: Clock) -> None:
    report = engine.run(stage.saga("hotel", CoolingOff, "car"), Trip())
    clock.forward(3599)
    assert (report.outcome, wake(engine)) == ("waiting", "not sent")
    clock.forward(1)

    assert wake(engine) == "completed"

    assert stage.seen == ["act hotel", "act car"]


def test_a_saga_that_waits_is_left_alone_by_recovery_but_not_by_an_operator(stage: Stage, engine: QuickEngine) -> None:
    saga_id = engine.run(stage.saga(Courier), Trip()).saga_id

    report = engine.recover(saga_id)

    assert (report.refusal, report.outcome) == (Refusal.WAITING, "skipped")
    assert engine.recover(saga_id, by_hand=True).outcome == "waiting"


# -- received -----------------------------------------------------------------------------------------------------


def raising(*errors: BaseException | None, **attributes: Any) -> type[Wait[Accepted]]:
    """Return a wait whose `received` raises these errors, one at each call."""
    left = iter(errors)

    def received(_: Any, context: Trip, signal: Accepted) -> None:
        context.booked.append(signal.courier)
        if (error := next(left, None)) is not None:
            raise error

    members = {"name": "courier", "timeout": None, "received": received, **attributes}
    return type("Courier", (Courier,), members)


def test_received_that_raises_aborts_the_saga(stage: Stage, engine: QuickEngine) -> None:
    saga_id = engine.run(stage.saga("hotel", raising(LookupError("no such courier"))), Trip()).saga_id
    engine.signal(saga_id, "courier", {"courier": "ann"})

    assert wake(engine) == "compensated"

    assert stage.seen == ["act hotel", "compensate hotel"]
    assert engine.stored().last_error == "courier, act, attempt 1: LookupError: no such courier"


@pytest.mark.parametrize("delay", [1.0, 600.0])
def test_received_that_raises_is_tried_again_with_the_same_signal(
    stage: Stage, engine: QuickEngine, clock: Clock, delay: float
) -> None:
    wait = raising(ConnectionError("away"), retry=RetryPolicy(max_attempts=2, first_delay=delay, max_delay=delay))
    saga_id = engine.run(stage.saga("hotel", wait), Trip()).saga_id
    engine.signal(saga_id, "courier", {"courier": "ann"})
    first = wake(engine)
    if delay > 5:
        assert first == "waiting"
        clock.forward(delay - 1)
        assert wake(engine) == "not sent"
        clock.forward(1)
        assert wake(engine) == "completed"
    else:
        assert first == "completed"

    stored = engine.stored()
    assert stored.context == '{"booked":["ann"],"note":null}'
    assert stored.log[-1].signal is not None


def test_received_that_raises_past_the_pivot_is_tried_again_until_the_saga_is_dead(
    stage: Stage, engine: QuickEngine, clock: Clock
) -> None:
    pivot = stage.step("pay", pivot=True)
    error = LookupError("no such courier")
    wait = raising(*[error] * 6, retry=RetryPolicy(max_attempts=2, first_delay=0))
    saga_id = engine.run(saga_of([pivot, wait]), Trip()).saga_id
    engine.signal(saga_id, "courier", {"courier": "ann"})

    outcomes = []
    for _ in range(3):
        outcomes.append(wake(engine))
        clock.forward(DAY)

    assert outcomes == ["failed", "failed", "dead"]
    assert engine.recover(saga_id, by_hand=True).outcome == "completed"
    assert engine.stored().context == '{"booked":["ann"],"note":null}'


# -- changes of the code ------------------------------------------------------------------------------------------


def test_a_renamed_wait_takes_signals_under_either_name(stage: Stage, engine: QuickEngine) -> None:
    hotel = stage.step("hotel")
    sagas = {}
    for name in ("courier", "carrier"):
        saga_id = engine.run(saga_of([hotel, PatientCourier]), Trip(), idempotency_key=name).saga_id
        renamed = type("Carrier", (PatientCourier,), {"name": "carrier", "aliases": ["courier"]})
        newer = QuickEngine(engine.storage, dispatcher=engine.dispatcher, sagas=[saga_of([hotel, renamed])])

        newer.signal(saga_id, name, {"courier": "ann"})

        sagas[name] = wake(newer)

    assert sagas == {"courier": "completed", "carrier": "completed"}


def test_code_without_the_wait_declines_and_spends_no_attempt(stage: Stage, engine: QuickEngine, clock: Clock) -> None:
    hotel = stage.step("hotel")
    engine.run(saga_of([hotel, Courier]), Trip())
    newer = QuickEngine(engine.storage, dispatcher=engine.dispatcher, sagas=[saga_of([hotel])])
    clock.forward(2 * DAY)

    assert wake(newer) == "declined"

    stored = newer.stored()
    assert (stored.recovery_attempts, stored.status) == (0, SagaStatus.RUNNING)
    assert "step 'courier', which this saga was started with" in (stored.last_error or "")


@pytest.mark.parametrize("make", [lambda stage: stage.step("courier"), lambda _: type("Courier", (CoolingOff,), {})])
def test_code_in_which_the_wait_is_another_kind_of_part_declines(
    stage: Stage, engine: QuickEngine, clock: Clock, make: Callable[[Stage], Any]
) -> None:
    engine.run(saga_of([Courier]), Trip())
    newer = QuickEngine(engine.storage, dispatcher=engine.dispatcher, sagas=[saga_of([make(stage)])])
    clock.forward(2 * DAY)

    assert wake(newer) == "declined"
    assert "was a wait and became a" in (newer.stored().last_error or "")


# -- crashes and delivery -----------------------------------------------------------------------------------------


def test_a_signal_whose_sender_died_is_delivered_by_a_scan(
    stage: Stage, engine: QuickEngine, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    saga_id = engine.run(stage.saga(Courier), Trip()).saga_id
    monkeypatch.setattr(engine.storage, "post_signal", lambda signal: (engine.storage.add_signal(signal), []))
    engine.signal(saga_id, "courier", {"courier": "ann"})
    assert engine.stored().state is SagaState.WAITING
    clock.forward(2)

    assert wake(engine) == "completed"


def test_a_signal_for_a_paused_saga_is_received_after_it_is_resumed(
    stage: Stage, engine: QuickEngine, clock: Clock
) -> None:
    saga_id = engine.run(stage.saga(Courier), Trip()).saga_id
    engine.storage.pause("trip", actor="ann", reason="why")
    engine.signal(saga_id, "courier", {"courier": "ann"})

    assert wake(engine) == "skipped"
    assert engine.stored().state is SagaState.PAUSED
    engine.storage.resume("trip")

    assert wake(engine) == "completed"


def test_a_wait_is_never_in_doubt(stage: Stage, engine: QuickEngine, clock: Clock) -> None:
    class Vanishes(BaseException):
        pass

    engine.run(saga_of([stage.step("hotel"), wait := raising(Vanishes())]), Trip())
    engine.signal(engine.stored().id, "courier", {"courier": "ann"})
    with pytest.raises(Vanishes):
        wake(engine)
    clock.forward(600)

    assert wake(engine) == "completed"
    assert not any(entry.in_doubt for entry in engine.stored().log)
    assert [e.in_flight for e in engine.stored().log if e.action is Action.HOLDER] == [("courier",)]
    assert Progress(saga_of([wait]).graph, engine.stored().log[1:3]).in_doubt == frozenset()


def test_a_wait_stands_in_the_log_once_however_often_the_saga_is_recovered(stage: Stage, engine: QuickEngine) -> None:
    saga_id = engine.run(stage.saga(Courier), Trip()).saga_id
    for _ in range(3):
        engine.recover(saga_id, by_hand=True)

    assert [entry.status for entry in engine.stored().log] == [EntryStatus.ARMED]


def test_coroutines_signal_and_cancel(stage: Stage, engine: QuickEngine) -> None:
    async def outcomes() -> list[str]:
        saga = stage.saga(Courier)
        first = (await engine.run_async(saga, Trip())).saga_id
        assert await engine.signal_async(first, "courier", {"courier": "ann"}, actor="portal")
        second = (await engine.run_async(saga, Trip())).saga_id
        await engine.cancel_async(second, "changed their mind")
        return [(await engine.recover_async(saga_id, by_hand=True)).outcome for saga_id in (first, second)]

    assert asyncio.run(outcomes()) == ["completed", "compensated"]


def test_a_saga_may_begin_with_a_wait_and_have_nothing_else(engine: QuickEngine) -> None:
    saga_id = engine.run(saga_of([PatientCourier]), Trip()).saga_id
    engine.signal(saga_id, "courier", {"courier": "ann"})

    assert wake(engine) == "completed"

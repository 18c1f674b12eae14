"""Sagas with fallbacks: what the log decides, and what the steps of a run in memory see."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from sagas import Call, MemorySagaStorage, OutcomeUnknown, RetryPolicy, SagaStatus, Step
from sagas.cli.next_step import next_step
from sagas.definitions import Definitions
from sagas.errors import LogDoesNotFit
from sagas.inspection.timeline import timeline
from sagas.progress import Action, Entry, EntryStatus, Progress, Verdict
from sagas.registry import Registry
from tests.samples import Clock, Outcome, QuickEngine, Stage, Trip, always, book
from tests.unit.test_changing import World, dies
from tests.unit.test_progress import done, failed, next_move, plan_of, shown

FULL = ConnectionError("fully booked")
UNKNOWN = OutcomeUnknown("no answer")
LOST = Entry(step="holder", action=Action.HOLDER, status=EntryStatus.LOST)
FALLBACK, ABORT, UNDO = Verdict.FALLBACK, Verdict.ABORT, Action.COMPENSATE


def fell_back(name: str, *, in_doubt: bool = False) -> Entry:
    return failed(name, FALLBACK, in_doubt=in_doubt)


def trip(stage: Stage, **attributes: Any) -> Any:
    """A hotel, a train or else a bus or else a taxi, and a dinner."""
    bus = stage.step("bus", fallback=stage.step("taxi"))
    return stage.saga("hotel", stage.step("train", fallback=bus), "dinner", **attributes)


# -- what the log decides -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("log", "expected"),
    [
        ([done("hotel"), fell_back("train")], "act bus #1"),
        ([done("hotel"), fell_back("train"), failed("bus", Verdict.RETRY)], "act bus #2"),
        ([done("hotel"), fell_back("train"), fell_back("bus")], "act taxi #1"),
        ([done("hotel"), fell_back("train"), done("bus")], "act dinner #1"),
        ([done("hotel"), fell_back("train"), done("bus"), done("dinner")], "COMPLETED"),
        ([done("hotel"), fell_back("train"), done("bus"), failed("dinner", ABORT)], "compensate bus #1"),
        ([done("hotel"), fell_back("train"), fell_back("bus"), failed("taxi", ABORT)], "compensate hotel #1"),
        ([done("hotel"), fell_back("train", in_doubt=True), done("bus"), failed("dinner", ABORT)], "compensate bus #1"),
        (
            [
                *(done("hotel"), fell_back("train", in_doubt=True), done("bus"), failed("dinner", ABORT)),
                done("bus", UNDO),
            ],
            "compensate train #1",
        ),
        (
            [done("hotel"), fell_back("train", in_doubt=True), fell_back("bus"), failed("taxi", ABORT)],
            "compensate train #1",
        ),
        (
            [done("hotel"), replace(LOST, in_flight=("train",)), fell_back("train"), failed("bus", ABORT)],
            "compensate train #1",
        ),
        ([done("hotel"), fell_back("train"), LOST, failed("bus", ABORT)], "compensate bus #1"),
        (
            [done("hotel"), fell_back("train"), replace(LOST, in_flight=("bus",)), failed("bus", ABORT)],
            "compensate bus #1",
        ),
    ],
)
def test_next_move_follows_from_the_log(log: list[Entry], expected: str) -> None:
    assert shown(next_move(plan_of(trip(Stage())), log)) == expected


def test_a_skipped_fallback_is_done_and_what_was_in_doubt_before_it_is_undone() -> None:
    skipped = Entry(step="bus", action=Action.ACT, status=EntryStatus.SKIPPED)
    log = [done("hotel"), fell_back("train", in_doubt=True), skipped]
    plan = plan_of(trip(Stage()))

    assert shown(next_move(plan, log)) == "act dinner #1"
    assert shown(next_move(plan, [*log, failed("dinner", ABORT)])) == "compensate train #1"


def test_a_compensation_of_one_alternate_that_fails_waits_for_none_but_its_elders() -> None:
    log = [done("hotel"), fell_back("train", in_doubt=True), done("bus"), failed("dinner", ABORT)]
    undone = [*log, failed("bus", Verdict.SET_ASIDE, UNDO)]

    assert shown(next_move(plan_of(trip(Stage(), compensate_past_failures=True)), undone)) == "compensate train #1"
    assert shown(next_move(plan_of(trip(Stage())), undone)) == "compensate bus #2"


@pytest.mark.parametrize(
    ("log", "reason"),
    [
        ([done("hotel"), done("bus")], "an act of 'bus' out of its turn"),
        ([done("hotel"), failed("bus", ABORT)], "an act of 'bus' out of its turn"),
        ([done("hotel"), fell_back("train"), done("train")], "an act of 'train' out of its turn"),
        ([done("hotel"), fell_back("train"), done("taxi")], "an act of 'taxi' out of its turn"),
        ([done("hotel"), fell_back("train"), done("bus"), done("bus")], "an act of 'bus' out of its turn"),
        ([fell_back("train")], "an act of 'train' out of its turn"),
        ([fell_back("hotel")], "fell back from 'hotel', which has no fallback in trip"),
        (
            [done("hotel"), fell_back("train"), fell_back("bus"), fell_back("taxi")],
            "fell back from 'taxi', which has no",
        ),
    ],
)
def test_a_log_with_an_act_out_of_its_turn_does_not_fit(log: list[Entry], reason: str) -> None:
    with pytest.raises(LogDoesNotFit, match=reason):
        Progress(trip(Stage()).graph, log)


# -- runs ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def engine(clock: Clock) -> QuickEngine:
    return QuickEngine(MemorySagaStorage(clock))


def logged(engine: QuickEngine) -> list[str]:
    return [f"{e.action} {e.step} #{e.attempt} {e.verdict or e.status}" for e in engine.stored().log]


def test_a_fallback_acts_in_the_place_of_a_step_that_failed_for_good(stage: Stage, engine: QuickEngine) -> None:
    policy = RetryPolicy(max_attempts=2, first_delay=0)
    bus = stage.step("bus", [FULL, book], retry=policy)
    train = stage.step("train", always(FULL), retry=policy, fallback=bus)

    report = engine.run(stage.saga("hotel", train, "dinner"), Trip())

    assert (report.outcome, report.status) == ("completed", SagaStatus.COMPLETED)
    assert report.events[1:5] == (
        "train: act failed (ConnectionError), retry",
        "train: act failed (ConnectionError), fall back",
        "bus: act failed (ConnectionError), retry",
        "bus: acted",
    )
    assert logged(engine)[2:5] == ["act train #2 fall back", "act bus #1 retry", "act bus #2 completed"]
    assert engine.stored().last_error is None
    keys = [call.idempotency_key.partition(":")[2] for _, call in stage.calls]
    assert keys == ["hotel:act", "train:act", "train:act", "bus:act", "bus:act", "dinner:act"]


def test_an_error_that_is_not_retried_falls_back_at_once(stage: Stage, engine: QuickEngine) -> None:
    policy = RetryPolicy(max_attempts=9, retry_on=(TimeoutError,))
    train = stage.step("train", [FULL], retry=policy, fallback=stage.step("bus"))

    assert engine.run(stage.saga(train), Trip()).outcome == "completed"
    assert stage.seen == ["act train", "act bus"]


def test_a_fallback_sees_the_context_as_the_last_checkpoint_left_it(stage: Stage, engine: QuickEngine) -> None:
    def book_and_fail(context: Trip, call: Call) -> None:
        book(context, call)
        raise FULL

    train = stage.step("train", [book_and_fail], fallback=stage.step("bus", [book]))
    engine.run(stage.saga(stage.step("hotel", [book]), train), Trip())

    assert '"booked":["hotel","bus"]' in engine.stored().context.replace(" ", "")


def test_the_saga_aborts_when_the_last_fallback_fails(stage: Stage, engine: QuickEngine) -> None:
    taxi = stage.step("taxi", [FULL])
    train = stage.step("train", [FULL], fallback=stage.step("bus", [FULL], fallback=taxi))

    report = engine.run(stage.saga("hotel", train, "dinner"), Trip())

    assert report.outcome == "compensated"
    assert stage.seen == ["act hotel", "act train", "act bus", "act taxi", "compensate hotel"]


def test_the_fallback_that_acted_is_undone_with_its_own_compensation(stage: Stage, engine: QuickEngine) -> None:
    train = stage.step("train", [FULL], fallback=stage.step("bus"))

    engine.run(stage.saga("hotel", train, stage.step("dinner", [FULL])), Trip())

    assert stage.seen[3:] == ["act dinner", "compensate bus", "compensate hotel"]


@pytest.mark.parametrize("bus", [None, UNKNOWN, FULL], ids=["done", "in doubt", "refused"])
def test_a_step_in_doubt_is_undone_after_its_fallback(stage: Stage, engine: QuickEngine, bus: Outcome) -> None:
    train = stage.step("train", [UNKNOWN], fallback=stage.step("bus", [bus]))

    report = engine.run(stage.saga("hotel", train, stage.step("dinner", [FULL])), Trip())

    assert report.outcome == "compensated"
    undone = [seen for seen in stage.seen if seen.startswith("compensate")]
    assert undone == [*([] if bus is FULL else ["compensate bus"]), "compensate train", "compensate hotel"]


def test_a_step_that_timed_out_is_undone_although_its_fallback_completed(stage: Stage, engine: QuickEngine) -> None:
    async def stand_still(context: Trip, call: Call) -> None:
        await asyncio.sleep(3600)

    train = stage.step("train", [stand_still], timeout=0.01, fallback=stage.step("bus"))

    engine.run(stage.saga(train, stage.step("dinner", [FULL])), Trip())

    assert logged(engine)[:2] == ["act train #1 fall back", "act bus #1 completed"]
    assert stage.seen[2:] == ["act dinner", "compensate bus", "compensate train"]


def test_each_alternate_is_compensated_under_its_own_policy(stage: Stage, engine: QuickEngine) -> None:
    twice, thrice = (RetryPolicy(max_attempts=attempts, first_delay=0) for attempts in (2, 3))
    bus = stage.step("bus", undo=[FULL, FULL], compensate_retry=thrice)
    train = stage.step("train", [UNKNOWN], [FULL], compensate_retry=twice, fallback=bus)

    report = engine.run(stage.saga(train, stage.step("dinner", [FULL])), Trip())

    assert report.outcome == "compensated"
    assert stage.attempts("compensate bus") == [1, 2, 3]
    assert stage.attempts("compensate train") == [1, 2]


def test_a_pivot_that_fell_back_is_passed(stage: Stage, engine: QuickEngine, clock: Clock) -> None:
    invoice = stage.step("invoice", pivot=True)
    card = stage.step("card", [FULL], pivot=True, fallback=invoice)
    mail = stage.step("mail", [FULL], undo=None)

    report = engine.run(stage.saga("hotel", card, mail), Trip())

    assert report.outcome == "failed"
    assert logged(engine)[1:] == ["act card #1 fall back", "act invoice #1 completed", "act mail #1 fail the attempt"]


def test_a_step_after_the_pivot_falls_back_before_the_attempt_fails(
    stage: Stage, engine: QuickEngine, clock: Clock
) -> None:
    letter = stage.step("letter", [FULL], undo=None)
    mail = stage.step("mail", [FULL], undo=None, fallback=letter)

    report = engine.run(stage.saga(stage.step("pay", pivot=True), mail), Trip())

    assert (report.outcome, report.status) == ("failed", SagaStatus.FAILED)
    clock.forward(3600)
    assert engine.recover(engine.stored().id).outcome == "completed"
    assert stage.seen == ["act pay", "act mail", "act letter", "act letter"]


def test_a_long_wait_of_a_fallback_puts_the_saga_down(stage: Stage, engine: QuickEngine, clock: Clock) -> None:
    bus = stage.step("bus", [FULL], retry=RetryPolicy(max_attempts=2, first_delay=60))
    saga = stage.saga(stage.step("train", [FULL], fallback=bus))

    assert engine.run(saga, Trip()).message == "bus is tried again in 60 s."
    clock.forward(60)
    assert engine.recover(engine.stored().id).outcome == "completed"
    assert stage.seen == ["act train", "act bus", "act bus"]


def test_a_worker_that_dies_in_a_fallback_leaves_it_in_doubt_and_names_it() -> None:
    world, old, new = World(), Stage(), Stage()
    train = old.step("train", [FULL], fallback=old.step("bus", [dies]))
    world.interrupted(old.saga(train, "dinner"))
    again = new.step("train", fallback=new.step("coach", [FULL], aliases=["bus"]))

    report = world.recover(new.saga(again, "dinner"))

    assert report.outcome == "compensated"
    assert new.seen == ["act bus", "compensate bus"]
    lost = next(entry for entry in world.stored().log if entry.action is Action.HOLDER)
    assert lost.in_flight == ("bus",)


def test_code_without_the_fallback_declines_the_saga() -> None:
    world, old, new = World(), Stage(), Stage()
    world.interrupted(old.saga(old.step("train", [dies], fallback=old.step("bus"))))

    report = world.recover(new.saga("train"))

    assert report.outcome == "declined"
    assert "fallback of 'train': 'bus', which this saga was started with, is none of those of Made" in report.message
    assert new.calls == []


def test_async_fallbacks_run_on_the_event_loop(stage: Stage, engine: QuickEngine) -> None:
    async def full(context: Trip, call: Call) -> None:
        await asyncio.sleep(0)
        raise FULL

    async def booked(context: Trip, call: Call) -> None:
        await asyncio.sleep(0)
        book(context, call)

    train = stage.step("train", [full], fallback=stage.step("bus", [booked]))
    report = asyncio.run(engine.run_async(stage.saga("hotel", train), Trip()))

    assert report.events[1:] == ("train: act failed (ConnectionError), fall back", "bus: acted")


# -- what is shown ------------------------------------------------------------------------------------------------


def test_the_timeline_and_the_next_step_name_the_fallback(stage: Stage, engine: QuickEngine, clock: Clock) -> None:
    bus = stage.step("bus", [FULL], retry=RetryPolicy(max_attempts=2, first_delay=60))
    saga = stage.saga(stage.step("train", [FULL], fallback=bus))
    engine.run(saga, Trip())
    stored = engine.stored()

    words = [(event.step, event.what) for event in timeline(stored, clock.now)]
    assert words == [
        ("train", "act failed, attempt 1; its fallback is tried: ConnectionError: fully booked"),
        ("bus", "act failed, attempt 1; the step is retried: ConnectionError: fully booked"),
    ]
    told = next_step(stored, Definitions(engine.storage, Registry([saga])))
    assert told is not None
    assert (told.words, told.step) == ("act bus, a fallback of train, attempt 2", "bus")


def test_a_resolver_builds_fallbacks_too(stage: Stage, clock: Clock) -> None:
    built: list[str] = []

    def resolve(kind: type[Step[Any]]) -> Step[Any]:
        built.append(kind.name)
        return kind()

    train = stage.step("train", [FULL], fallback=stage.step("bus"))
    QuickEngine(MemorySagaStorage(clock), resolver=resolve).run(stage.saga(train), Trip())

    assert built == ["train", "bus"]

"""Code that changes under sagas that are running: each kind of change, through the engine."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import pytest
from pydantic import AliasChoices, BaseModel, Field

from sagas import Call, Report, RetryPolicy, SagaStatus, Step
from sagas.definition import AnySaga
from sagas.storage.records import NewSaga, SagaRecord
from tests.samples import Clock, FlakyStorage, QuickEngine, Stage, Trip, saga_of

FULL = ConnectionError("fully booked")


class Death(BaseException):
    """The process is gone: it writes nothing any more."""


def dies(context: Any, call: Call) -> None:
    raise Death


class World:
    """One storage, and workers with one definition or another."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.storage = FlakyStorage(self.clock)

    def engine(self, *sagas: AnySaga) -> QuickEngine:
        return QuickEngine(self.storage, sagas=sagas)

    def interrupted(self, saga: AnySaga, context: Any = None) -> UUID:
        """A saga whose worker died in one of its actions, and whose lease has expired."""
        self.storage.failures = [("release", "before")]
        with pytest.raises(Death):
            self.engine().run(saga, context or Trip())
        assert not self.storage.failures
        self.clock.forward(31)
        return self.stored().id

    def recover(self, *sagas: AnySaga) -> Report:
        """The only saga, brought on by a worker that knows these classes, once it is due."""
        self.clock.forward(61)
        return self.engine(*sagas).recover(self.stored().id)

    def stored(self) -> SagaRecord:
        return self.engine().stored()


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def old() -> Stage:
    """Sees what the code before the change does."""
    return Stage()


@pytest.fixture
def new() -> Stage:
    """Sees what the code after the change does."""
    return Stage()


def keys(stage: Stage) -> list[str]:
    """What the services saw, without the saga's id."""
    return [call.idempotency_key.split(":", 1)[1] for _, call in stage.calls]


def assert_declined(world: World, report: Report, reason: str) -> None:
    """Nothing was done or spent, and the reason says what to do."""
    assert report.outcome == "declined", report.message
    assert reason in report.message
    stored = world.stored()
    assert (stored.recovery_attempts, stored.lease_owner) == (0, None)
    assert (stored.last_error or "").startswith("declined: ")


# -- steps that are renamed ---------------------------------------------------------------------------------------


def test_attempt_by_new_code_has_the_key_of_the_attempt_by_old_code_that_died(
    world: World, old: Stage, new: Stage
) -> None:
    world.interrupted(old.saga("hotel", old.step("car", [dies])))

    report = world.recover(new.saga("hotel", new.step("rental", aliases=["car"])))

    assert report.outcome == "completed"
    assert keys(old) == ["hotel:act", "car:act"]
    assert keys(new) == ["car:act"]
    assert old.calls[-1][1].idempotency_key == new.calls[-1][1].idempotency_key
    assert [entry.step for entry in world.stored().log] == ["hotel", "holder", "car"]


def test_old_code_takes_a_saga_back_from_new_code_with_the_same_keys(world: World, old: Stage, new: Stage) -> None:
    after = Stage()
    world.interrupted(old.saga(old.step("car", [dies]), "plane"))
    world.storage.failures = [("release", "before")]
    with pytest.raises(Death):
        world.recover(new.saga(new.step("rental", aliases=["car"]), new.step("plane", [dies])))
    world.clock.forward(31)

    assert world.recover(after.saga("car", "plane")).outcome == "completed"
    assert (keys(old), keys(new), keys(after)) == (["car:act"], ["car:act", "plane:act"], ["plane:act"])


def test_compensation_by_new_code_has_the_key_of_the_one_by_old_code(world: World, old: Stage, new: Stage) -> None:
    world.interrupted(old.saga(old.step("car", undo=[dies]), old.step("plane", [FULL])))

    report = world.recover(new.saga(new.step("rental", aliases=["car"]), "plane"))

    assert report.outcome == "compensated"
    assert keys(old) == ["car:act", "plane:act", "car:compensate"]
    assert keys(new) == ["car:compensate"]


def test_saga_started_under_the_new_name_keeps_it_and_old_code_declines_it(
    world: World, old: Stage, new: Stage
) -> None:
    renamed = new.saga(new.step("rental", [dies, None], aliases=["car"]))
    world.interrupted(renamed)

    assert_declined(
        world, world.recover(old.saga("car")), "step 'rental', which this saga was started with, is none of"
    )
    assert old.calls == []
    assert world.recover(renamed).outcome == "completed"
    assert keys(new) == ["rental:act", "rental:act"]


def test_step_renamed_twice_keeps_the_name_each_saga_was_started_with(world: World, old: Stage, new: Stage) -> None:
    twice = new.saga(new.step("rental", aliases=["car", "cab"]))
    for name in ("car", "cab", "rental"):
        first = World()
        first.interrupted(Stage().saga(Stage().step(name, [dies])))
        assert first.recover(twice).outcome == "completed"

    assert keys(new) == ["car:act", "cab:act", "rental:act"]


def test_step_renamed_without_an_alias_is_declined_also_when_no_row_tells_of_it(
    world: World, old: Stage, new: Stage
) -> None:
    world.interrupted(old.saga("hotel", old.step("car", [dies])))

    report = world.recover(new.saga("hotel", "rental"))

    assert_declined(world, report, "so it was removed, or renamed without its former name in `aliases`: run the code")
    assert new.calls == []


def test_two_steps_that_were_made_one_are_not_done_by_it_twice(world: World, old: Stage, new: Stage) -> None:
    world.interrupted(old.saga("hotel", old.step("car", [dies])))

    report = world.recover(new.saga(new.step("package", aliases=["hotel", "car"])))

    assert_declined(world, report, "Package stands for two steps of this saga, 'hotel' and 'car': run the code that")
    assert new.calls == []


def test_saga_from_before_steps_were_written_down_has_the_oldest_name_of_each(world: World, new: Stage) -> None:
    saga_id = UUID(int=7)
    new_saga = NewSaga(id=saga_id, name="trip", context="{}", definition_version="0123456789abcdef")
    world.storage.create_sagas([new_saga])

    assert world.recover(new.saga("hotel", new.step("rental", aliases=["car", "cab"]))).outcome == "completed"
    assert keys(new) == ["hotel:act", "car:act"]


# -- steps that come and go ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "steps",
    [["visa", "hotel", "car"], ["hotel", "visa", "car"], ["hotel", "car", "visa"], ["car", "hotel"]],
    ids=["inserted before the point reached", "inserted at it", "appended", "reordered"],
)
@pytest.mark.parametrize("way", ["forward", "backward"])
def test_saga_goes_on_with_the_steps_it_was_started_with(
    world: World, old: Stage, new: Stage, steps: list[str], way: str
) -> None:
    world.interrupted(old.saga("hotel", old.step("car", [dies])))
    outcomes = {"car": [ValueError()] if way == "backward" else []}

    report = world.recover(new.saga(*(new.step(name, outcomes.get(name, [])) for name in steps)))

    # The car is in doubt when it fails, because the worker may have died after it was booked.
    assert (report.outcome, new.seen) == {
        "forward": ("completed", ["act car"]),
        "backward": ("compensated", ["act car", "compensate car", "compensate hotel"]),
    }[way]


def test_saga_started_after_the_change_has_the_new_steps_and_old_code_declines_it(
    world: World, old: Stage, new: Stage
) -> None:
    changed = new.saga(new.step("hotel", [dies, None]), "visa", "car")
    world.interrupted(changed)

    assert_declined(world, world.recover(old.saga("hotel", "car")), "step 'visa', which this saga was started with")
    assert world.recover(changed).outcome == "completed"
    assert (old.seen, new.seen) == ([], ["act hotel", "act hotel", "act visa", "act car"])


@pytest.mark.parametrize("gone", ["hotel", "car", "plane"], ids=["before the point", "at it", "after it"])
def test_saga_with_a_step_that_was_removed_is_declined(world: World, old: Stage, new: Stage, gone: str) -> None:
    world.interrupted(old.saga("hotel", old.step("car", [dies]), "plane"))

    report = world.recover(new.saga(*(name for name in ("hotel", "car", "plane") if name != gone)))

    assert_declined(world, report, "or keep that class beside Made and give Made a higher `version` (docs/changing")
    assert new.calls == []


def test_definition_of_any_length_goes_on(world: World, old: Stage, new: Stage) -> None:
    names = [f"step{number}" for number in range(200)]
    world.interrupted(old.saga(*names[:-1], old.step(names[-1], [dies])))

    assert world.recover(new.saga("more", *names)).outcome == "completed"
    assert new.seen == ["act step199"]


# -- what decides the direction -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "after", "reason"),
    [
        ({}, {"pivot": True}, "Car became the pivot since this saga was started: run the code"),
        ({"pivot": True}, {}, "Car ceased to be the pivot since this saga was started"),
        ({}, {"undo": None}, "Car lost its compensate() since this saga was started"),
    ],
)
def test_saga_whose_step_changed_what_may_be_undone_is_declined(
    world: World, old: Stage, new: Stage, before: dict[str, Any], after: dict[str, Any], reason: str
) -> None:
    world.interrupted(old.saga(old.step("car", **before), old.step("mail", [dies], undo=None)))

    assert_declined(world, world.recover(new.saga(new.step("car", **after), new.step("mail", undo=None))), reason)


def test_compensation_that_was_added_undoes_sagas_from_before_it(world: World, old: Stage, new: Stage) -> None:
    world.interrupted(old.saga(old.step("car", undo=None), old.step("plane", [dies])))

    assert world.recover(new.saga("car", new.step("plane", [ValueError()]))).outcome == "compensated"
    assert new.seen == ["act plane", "compensate plane", "compensate car"]


@pytest.mark.parametrize(("attempts", "outcome"), [(1, "compensated"), (2, "compensated"), (3, "completed")])
def test_changed_retry_policy_holds_at_once(world: World, old: Stage, new: Stage, attempts: int, outcome: str) -> None:
    patient = RetryPolicy(max_attempts=9, first_delay=30)
    world.engine().run(old.saga(old.step("car", [FULL], retry=patient)), Trip())

    changed = RetryPolicy(max_attempts=attempts, first_delay=0)
    assert world.recover(new.saga(new.step("car", [FULL], retry=changed))).outcome == outcome


# -- versions -----------------------------------------------------------------------------------------------------


def test_one_worker_ends_old_sagas_with_the_old_class_and_starts_the_new_class(
    world: World, old: Stage, new: Stage
) -> None:
    world.interrupted(old.saga("hotel", old.step("car", [dies])))
    kept = old.saga("hotel", "car", called="TripV1")
    changed = new.saga("train", version=2)

    assert world.recover(kept, changed).outcome == "completed"
    engine = world.engine(changed, kept)
    assert engine.run(engine.registry.get("trip"), Trip()).outcome == "completed"
    assert (old.seen, new.seen) == (["act hotel", "act car", "act car"], ["act train"])


def test_version_that_a_worker_does_not_know_is_declined(world: World, old: Stage, new: Stage) -> None:
    changed = new.saga(new.step("hotel", [dies, None]), version=2)
    world.interrupted(changed)

    assert_declined(world, world.recover(old.saga("hotel")), "no class here goes on with version 2 of saga 'trip' (kno")
    assert old.calls == []
    assert world.recover(changed).outcome == "completed"


@pytest.mark.parametrize("continues", [(), (1,)])
def test_class_goes_on_with_lower_versions_only_if_it_says_so(
    world: World, old: Stage, new: Stage, continues: tuple[int, ...]
) -> None:
    world.interrupted(old.saga("hotel", old.step("car", [dies])))

    report = world.recover(new.saga("hotel", "visa", "car", version=2, continues=continues))

    if continues:
        assert (report.outcome, new.seen) == ("completed", ["act car"])
    else:
        assert_declined(world, report, "(known: 2): run the code that has it, or list 1 in `continues` of the class")


# -- sagas that are renamed ---------------------------------------------------------------------------------------


def test_saga_started_under_a_former_name_is_recovered(world: World, old: Stage, new: Stage) -> None:
    world.interrupted(old.saga("hotel", old.step("car", [dies]), name="journey"))

    assert world.recover(new.saga("hotel", "car", name="trip", aliases=["journey"])).outcome == "completed"


def test_saga_renamed_without_an_alias_is_declined(world: World, old: Stage, new: Stage) -> None:
    world.interrupted(old.saga(old.step("car", [dies]), name="journey"))

    assert_declined(world, world.recover(new.saga("car")), "no saga named 'journey' is known here (known: trip)")


@pytest.mark.parametrize("order", ["old first", "new first"])
def test_start_repeated_across_a_rename_starts_nothing_new_and_old_workers_run_it(
    world: World, old: Stage, new: Stage, order: str
) -> None:
    classes = [old.saga("car", name="journey"), new.saga("car", name="trip", aliases=["journey"])]

    first, second = classes if order == "old first" else reversed(classes)
    ids = {world.engine().start(saga, Trip(), idempotency_key="k") for saga in (first, second, first)}

    assert len(ids) == 1
    assert world.recover(classes[0]).outcome == "completed"


# -- contexts -----------------------------------------------------------------------------------------------------


@dataclass
class WithPrice:
    booked: list[str] = field(default_factory=list)
    note: Any = None
    cents: int = 0


@dataclass
class WithoutNote:
    booked: list[str] = field(default_factory=list)


@dataclass
class NeedsPrice:
    cents: int


class Renamed(BaseModel):
    booked: list[str]
    remark: str = Field("", validation_alias=AliasChoices("remark", "note"))


def pays(context: WithPrice, call: Call) -> None:
    context.cents = 2990


def books(context: Any, call: Call) -> None:
    context.booked.append("car")


def test_worker_that_does_not_know_a_field_keeps_it_for_those_who_do(world: World, old: Stage, new: Stage) -> None:
    paid = saga_of([new.step("pay", [pays]), new.step("car", [dies]), new.step("mail")], context=WithPrice)
    world.interrupted(paid, WithPrice())
    steps = [old.step("pay"), old.step("car", [books]), old.step("mail")]

    assert world.recover(saga_of(steps)).outcome == "completed"
    assert paid.codec.load(world.stored().context) == WithPrice(booked=["car"], cents=2990)


def test_field_that_was_added_with_a_default_has_it(world: World, old: Stage, new: Stage) -> None:
    world.interrupted(old.saga(old.step("car", [dies])))

    assert world.recover(saga_of([new.step("car", [pays])], context=WithPrice)).outcome == "completed"
    assert '"cents":2990' in world.stored().context


def test_field_that_was_added_without_a_default_is_declined(world: World, old: Stage, new: Stage) -> None:
    world.interrupted(old.saga(old.step("car", [dies])))

    report = world.recover(saga_of([new.step("car")], context=NeedsPrice))

    assert_declined(world, report, "does not validate as NeedsPrice (cents: Field required): run code whose context")


def test_field_that_was_removed_stays_stored_for_old_code(world: World, old: Stage, new: Stage) -> None:
    world.interrupted(old.saga(old.step("car", [dies]), "mail"), Trip(note="late"))
    changed = saga_of([new.step("car", [books]), new.step("mail")], context=WithoutNote)

    assert world.recover(changed).status is SagaStatus.COMPLETED
    assert '"note":"late"' in world.stored().context


def test_field_that_is_read_under_another_name_is_not_kept_beside_it(world: World, old: Stage, new: Stage) -> None:
    world.interrupted(old.saga(old.step("car", [dies])), Trip(note="late"))

    def hurries(context: Renamed, call: Call) -> None:
        context.remark = context.remark.replace("late", "early")

    assert world.recover(saga_of([new.step("car", [hurries])], context=Renamed)).outcome == "completed"
    assert world.stored().context == '{"booked":[],"remark":"early"}'


def test_step_class_may_stay_while_its_saga_changes_around_it(world: World, old: Stage) -> None:
    hotel: type[Step[Trip]] = old.step("hotel")
    world.interrupted(old.saga(hotel, old.step("car", [dies])))

    assert world.recover(old.saga("visa", hotel, "car")).outcome == "completed"

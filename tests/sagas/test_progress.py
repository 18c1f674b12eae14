"""Examples of what a saga does next; tests/sagas/test_progress_properties.py has the laws."""

from __future__ import annotations

import pytest

from sagas import RetryPolicy
from sagas.errors import LogDoesNotFit
from sagas.plan import Plan, plan_of
from sagas.progress import (
    Action,
    End,
    Entry,
    EntryStatus,
    Perform,
    Verdict,
    failures_in_a_row,
    judge_failure,
    next_move,
    turned_back,
)
from tests.sagas.samples import Stage

ACT, COMPENSATE = Action.ACT, Action.COMPENSATE
THRICE = RetryPolicy(max_attempts=3)


def done(step: str, action: Action = ACT) -> Entry:
    return Entry(step=step, action=action, status=EntryStatus.COMPLETED)


def failed(step: str, verdict: Verdict, action: Action = ACT, *, in_doubt: bool = False) -> Entry:
    return Entry(step=step, action=action, status=EntryStatus.FAILED, verdict=verdict, in_doubt=in_doubt)


def shown(move: Perform | End) -> str:
    return str(move.status) if isinstance(move, End) else f"{move.action} {move.step.name} #{move.attempt}"


@pytest.fixture
def trip() -> Plan:
    """Three steps that can be undone."""
    return plan_of(Stage().saga("hotel", "car", "plane"))


@pytest.fixture
def pivoted() -> Plan:
    """A step that can be undone, the pivot, and a step after it that is tried twice at a time."""
    stage = Stage()
    policy = RetryPolicy(max_attempts=2)
    return plan_of(stage.saga("hotel", stage.step("pay", pivot=True), stage.step("mail", undo=None, retry=policy)))


def judged(plan: Plan, log: list[Entry], *, retryable: bool = True) -> Verdict:
    move = next_move(plan, log)
    assert isinstance(move, Perform)
    return judge_failure(plan, log, move, retryable=retryable)


@pytest.mark.parametrize(
    ("log", "expected"),
    [
        ([], "act hotel #1"),
        ([done("hotel")], "act car #1"),
        ([done("hotel"), failed("car", Verdict.RETRY), failed("car", Verdict.RETRY)], "act car #3"),
        ([done("hotel"), done("car"), done("plane")], "COMPLETED"),
        ([failed("hotel", Verdict.TURN_BACK)], "COMPENSATED"),
        ([done("hotel"), failed("car", Verdict.TURN_BACK)], "compensate hotel #1"),
        ([done("hotel"), done("car"), failed("plane", Verdict.TURN_BACK)], "compensate car #1"),
        ([done("hotel"), failed("car", Verdict.TURN_BACK, in_doubt=True)], "compensate car #1"),
        (
            [done("hotel"), failed("car", Verdict.TURN_BACK), failed("hotel", Verdict.GIVE_UP, COMPENSATE)],
            "compensate hotel #2",
        ),
        ([done("hotel"), failed("car", Verdict.TURN_BACK), done("hotel", COMPENSATE)], "COMPENSATED"),
    ],
)
def test_next_move_follows_from_the_log(trip: Plan, log: list[Entry], expected: str) -> None:
    assert shown(next_move(trip, log)) == expected


def test_doubt_from_an_earlier_attempt_stays(trip: Plan) -> None:
    log = [failed("hotel", Verdict.RETRY, in_doubt=True), failed("hotel", Verdict.TURN_BACK)]

    assert shown(next_move(trip, log)) == "compensate hotel #1"


def test_step_without_compensation_is_passed_over_on_the_way_back() -> None:
    stage = Stage()
    plan = plan_of(stage.saga("hotel", stage.step("mail", undo=None), "car"))
    log = [done("hotel"), done("mail"), failed("car", Verdict.TURN_BACK)]

    assert shown(next_move(plan, log)) == "compensate hotel #1"


def test_rows_of_an_older_layout_that_say_started_change_nothing(trip: Plan) -> None:
    started = Entry(step="car", action=ACT, status=EntryStatus.STARTED)

    assert next_move(trip, [done("hotel"), started]) == next_move(trip, [done("hotel")])


def test_log_of_a_compensation_alone_shows_that_the_saga_turned_back(trip: Plan) -> None:
    assert turned_back([done("hotel"), done("hotel", COMPENSATE)])
    assert not turned_back([done("hotel"), failed("car", Verdict.RETRY)])


# -- verdicts -----------------------------------------------------------------------------------------------------


def test_failure_that_the_policy_does_not_retry_turns_the_saga_back() -> None:
    stage = Stage()
    plan = plan_of(stage.saga(stage.step("hotel", retry=THRICE)))

    assert judged(plan, [], retryable=False) is Verdict.TURN_BACK


def test_failure_is_retried_up_to_max_attempts() -> None:
    stage = Stage()
    plan = plan_of(stage.saga(stage.step("hotel", retry=THRICE)))
    retry = failed("hotel", Verdict.RETRY)

    assert [judged(plan, [retry] * failures) for failures in range(3)] == [
        Verdict.RETRY,
        Verdict.RETRY,
        Verdict.TURN_BACK,
    ]


def test_pivot_itself_may_turn_the_saga_back(pivoted: Plan) -> None:
    assert judged(pivoted, [done("hotel")]) is Verdict.TURN_BACK


def test_failure_past_the_pivot_is_given_up_and_tried_afresh(pivoted: Plan) -> None:
    log = [done("hotel"), done("pay"), failed("mail", Verdict.RETRY)]
    assert judged(pivoted, log) is Verdict.GIVE_UP

    log.append(failed("mail", Verdict.GIVE_UP))
    assert judged(pivoted, log) is Verdict.RETRY
    assert shown(next_move(pivoted, log)) == "act mail #3"


def test_failed_compensation_is_given_up_never_turned_back(trip: Plan) -> None:
    assert judged(trip, [done("hotel"), failed("car", Verdict.TURN_BACK)]) is Verdict.GIVE_UP


def test_failures_of_acting_do_not_count_against_compensating(trip: Plan) -> None:
    log = [failed("hotel", Verdict.RETRY), failed("hotel", Verdict.TURN_BACK, in_doubt=True)]
    move = next_move(trip, log)

    assert isinstance(move, Perform)
    assert move.attempt == 1
    assert failures_in_a_row(log, move) == 0


# -- logs of other definitions ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "log",
    [
        [done("boat")],
        [failed("boat", Verdict.RETRY)],
        [done("hotel"), failed("boat", Verdict.TURN_BACK)],
        [done("hotel"), failed("car", Verdict.TURN_BACK), done("boat", COMPENSATE)],
        [done("hotel"), failed("car", Verdict.TURN_BACK), failed("boat", Verdict.GIVE_UP, COMPENSATE)],
    ],
)
def test_log_with_an_unknown_step_does_not_fit(trip: Plan, log: list[Entry]) -> None:
    with pytest.raises(
        LogDoesNotFit, match=r"tells of step 'boat', which Made does not have \(it has hotel, car, plane\)"
    ):
        next_move(trip, log)


@pytest.mark.parametrize(
    "steps",
    [["car"], ["car", "hotel"], ["hotel", "plane"], ["hotel", "hotel"], ["hotel", "car", "plane", "plane"]],
)
def test_log_of_another_order_does_not_fit(trip: Plan, steps: list[str]) -> None:
    with pytest.raises(LogDoesNotFit, match=r"which is not how Made begins \(.*\): run the code that has this order"):
        next_move(trip, [done(step) for step in steps])


def test_step_appended_or_inserted_ahead_of_the_log_still_fits() -> None:
    log = [done("hotel")]

    assert shown(next_move(plan_of(Stage().saga("hotel", "visa", "car")), log)) == "act visa #1"


def skipped(step: str, action: Action = ACT) -> Entry:
    return Entry(step=step, action=action, status=EntryStatus.SKIPPED)


def test_a_skipped_act_counts_as_done(trip: Plan) -> None:
    assert shown(next_move(trip, [done("hotel"), skipped("car")])) == "act plane #1"


@pytest.mark.parametrize("entry", [skipped("car"), skipped("car", COMPENSATE)], ids=["its act", "its compensation"])
def test_a_skipped_step_is_never_compensated(trip: Plan, entry: Entry) -> None:
    log = [done("hotel"), *([] if entry.action is ACT else [done("car"), failed("plane", Verdict.TURN_BACK)]), entry]
    if entry.action is ACT:
        log.append(failed("plane", Verdict.TURN_BACK))

    assert shown(next_move(trip, log)) == "compensate hotel #1"


def test_a_step_in_doubt_that_was_skipped_is_not_compensated(trip: Plan) -> None:
    log = [failed("hotel", Verdict.RETRY, in_doubt=True), skipped("hotel"), failed("car", Verdict.TURN_BACK)]

    assert shown(next_move(trip, log)) == "COMPENSATED"


def test_skipping_the_pivot_is_passing_it(pivoted: Plan) -> None:
    log = [done("hotel"), skipped("pay")]

    assert judged(pivoted, [*log, failed("mail", Verdict.RETRY)]) is Verdict.GIVE_UP


def test_a_persons_note_changes_nothing(trip: Plan) -> None:
    note = Entry(step="retry", action=Action.OPERATOR, status=EntryStatus.COMPLETED)

    assert shown(next_move(trip, [note, done("hotel"), note])) == "act car #1"
    assert not turned_back([note])

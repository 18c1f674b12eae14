"""Examples of what a saga does next; tests/unit/test_progress_properties.py has the laws."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sagas import RetryPolicy
from sagas.definition import AnySaga
from sagas.errors import LogDoesNotFit
from sagas.plan import Plan, plan_for
from sagas.progress import Action, Entry, EntryStatus, Move, Progress, SagaStatus, Verdict, aborted
from tests.samples import Stage

ACT, COMPENSATE = Action.ACT, Action.COMPENSATE
THRICE = RetryPolicy(max_attempts=3)


def done(step: str, action: Action = ACT) -> Entry:
    return Entry(step=step, action=action, status=EntryStatus.COMPLETED)


def failed(step: str, verdict: Verdict, action: Action = ACT, *, in_doubt: bool = False) -> Entry:
    return Entry(step=step, action=action, status=EntryStatus.FAILED, verdict=verdict, in_doubt=in_doubt)


def plan_of(saga: AnySaga) -> Plan:
    return plan_for(saga, saga.graph)


def progress_of(plan: Plan, log: list[Entry]) -> Progress:
    return Progress(plan.graph, log, past_failures=plan.past_failures)


def next_move(plan: Plan, log: list[Entry]) -> Move | SagaStatus:
    """The only move of a chain, or its end."""
    frontier = progress_of(plan, log).frontier()
    if frontier.end is not None:
        return frontier.end
    (move,) = frontier.ready
    return move


def shown(move: Move | SagaStatus) -> str:
    return str(move) if isinstance(move, SagaStatus) else f"{move.action} {move.node.name} #{move.attempt}"


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
    move, progress = next_move(plan, log), progress_of(plan, log)
    assert isinstance(move, Move)
    policy = plan.retry_policy(progress, move)
    return progress.judge_failure(move, retryable=retryable, max_attempts=policy.max_attempts)


@pytest.mark.parametrize(
    ("log", "expected"),
    [
        ([], "act hotel #1"),
        ([done("hotel")], "act car #1"),
        ([done("hotel"), failed("car", Verdict.RETRY), failed("car", Verdict.RETRY)], "act car #3"),
        ([done("hotel"), done("car"), done("plane")], "COMPLETED"),
        ([failed("hotel", Verdict.ABORT)], "COMPENSATED"),
        ([done("hotel"), failed("car", Verdict.ABORT)], "compensate hotel #1"),
        ([done("hotel"), done("car"), failed("plane", Verdict.ABORT)], "compensate car #1"),
        ([done("hotel"), failed("car", Verdict.ABORT, in_doubt=True)], "compensate car #1"),
        (
            [done("hotel"), failed("car", Verdict.ABORT), failed("hotel", Verdict.FAIL_ATTEMPT, COMPENSATE)],
            "compensate hotel #2",
        ),
        ([done("hotel"), failed("car", Verdict.ABORT), done("hotel", COMPENSATE)], "COMPENSATED"),
    ],
)
def test_next_move_follows_from_the_log(trip: Plan, log: list[Entry], expected: str) -> None:
    assert shown(next_move(trip, log)) == expected


def test_doubt_from_an_earlier_attempt_stays(trip: Plan) -> None:
    log = [failed("hotel", Verdict.RETRY, in_doubt=True), failed("hotel", Verdict.ABORT)]

    assert shown(next_move(trip, log)) == "compensate hotel #1"


def test_step_without_compensation_is_passed_over_on_the_way_back() -> None:
    stage = Stage()
    plan = plan_of(stage.saga("hotel", stage.step("mail", undo=None), "car"))
    log = [done("hotel"), done("mail"), failed("car", Verdict.ABORT)]

    assert shown(next_move(plan, log)) == "compensate hotel #1"


def test_rows_of_an_older_layout_that_say_started_change_nothing(trip: Plan) -> None:
    started = Entry(step="car", action=ACT, status=EntryStatus.STARTED)

    assert next_move(trip, [done("hotel"), started]) == next_move(trip, [done("hotel")])


def test_log_of_a_compensation_alone_shows_that_the_saga_aborted(trip: Plan) -> None:
    assert aborted([done("hotel"), done("hotel", COMPENSATE)])
    assert not aborted([done("hotel"), failed("car", Verdict.RETRY)])


# -- verdicts -----------------------------------------------------------------------------------------------------


def test_failure_that_the_policy_does_not_retry_aborts_the_saga() -> None:
    stage = Stage()
    plan = plan_of(stage.saga(stage.step("hotel", retry=THRICE)))

    assert judged(plan, [], retryable=False) is Verdict.ABORT


def test_failure_is_retried_up_to_max_attempts() -> None:
    stage = Stage()
    plan = plan_of(stage.saga(stage.step("hotel", retry=THRICE)))
    retry = failed("hotel", Verdict.RETRY)

    assert [judged(plan, [retry] * failures) for failures in range(3)] == [
        Verdict.RETRY,
        Verdict.RETRY,
        Verdict.ABORT,
    ]


def test_pivot_itself_may_abort_the_saga(pivoted: Plan) -> None:
    assert judged(pivoted, [done("hotel")]) is Verdict.ABORT


def test_failure_past_the_pivot_is_given_up_and_tried_afresh(pivoted: Plan) -> None:
    log = [done("hotel"), done("pay"), failed("mail", Verdict.RETRY)]
    assert judged(pivoted, log) is Verdict.FAIL_ATTEMPT

    log.append(failed("mail", Verdict.FAIL_ATTEMPT))
    assert judged(pivoted, log) is Verdict.RETRY
    assert shown(next_move(pivoted, log)) == "act mail #3"


def test_failed_compensation_fails_the_attempt_and_never_aborts(trip: Plan) -> None:
    assert judged(trip, [done("hotel"), failed("car", Verdict.ABORT)]) is Verdict.FAIL_ATTEMPT


def test_failures_of_acting_do_not_count_against_compensating(trip: Plan) -> None:
    log = [failed("hotel", Verdict.RETRY), failed("hotel", Verdict.ABORT, in_doubt=True)]
    move = next_move(trip, log)

    assert isinstance(move, Move)
    assert move.attempt == 1
    assert progress_of(trip, log).failures_in_a_row(move) == 0


def test_each_compensation_has_a_policy_of_its_own() -> None:
    stage = Stage()
    twice, once = RetryPolicy(max_attempts=2), RetryPolicy(max_attempts=1)
    plan = plan_of(stage.saga(stage.step("hotel", retry=THRICE, compensate_retry=twice), "car"))
    log = [done("hotel"), failed("car", Verdict.ABORT)]
    assert judged(plan, log) is Verdict.RETRY
    assert judged(plan, [*log, failed("hotel", Verdict.RETRY, COMPENSATE)]) is Verdict.FAIL_ATTEMPT

    plan = plan_of(stage.saga(stage.step("hotel", retry=THRICE, compensate_retry=once), "car"))
    assert judged(plan, log) is Verdict.FAIL_ATTEMPT


# -- compensating past failures -----------------------------------------------------------------------------------


@pytest.fixture
def going_on() -> Plan:
    """Three steps to undo, each tried twice, the plane once, although another's compensation fails."""
    stage = Stage()
    twice = RetryPolicy(max_attempts=2)
    steps = [stage.step("hotel", retry=twice), stage.step("car", retry=twice), "plane", "mail"]
    return plan_of(stage.saga(*steps, compensate_past_failures=True))


BACK = [done("hotel"), done("car"), done("plane"), failed("mail", Verdict.ABORT)]


@pytest.mark.parametrize(
    ("log", "verdict", "then"),
    [
        (BACK, Verdict.SET_ASIDE, "compensate car #1"),
        ([*BACK, failed("plane", Verdict.SET_ASIDE, COMPENSATE)], Verdict.RETRY, "compensate hotel #1"),
        (
            [*BACK, failed("plane", Verdict.SET_ASIDE, COMPENSATE), failed("car", Verdict.RETRY, COMPENSATE)],
            Verdict.RETRY,
            "compensate car #2",
        ),
        (
            [
                *BACK,
                failed("plane", Verdict.SET_ASIDE, COMPENSATE),
                failed("car", Verdict.RETRY, COMPENSATE),
                done("hotel", COMPENSATE),
            ],
            Verdict.FAIL_ATTEMPT,
            "compensate plane #2",
        ),
        (
            [
                *BACK,
                failed("plane", Verdict.SET_ASIDE, COMPENSATE),
                done("car", COMPENSATE),
                done("hotel", COMPENSATE),
            ],
            Verdict.FAIL_ATTEMPT,
            "compensate plane #3",
        ),
    ],
    ids=["others come first", "all are tried once", "then again", "spent, so given up", "alone"],
)
def test_other_compensations_go_on_while_one_fails(
    going_on: Plan, log: list[Entry], verdict: Verdict, then: str
) -> None:
    move = next_move(going_on, log)
    assert isinstance(move, Move)
    assert judged(going_on, log) is verdict
    failure = replace(failed(move.node.name, verdict, COMPENSATE), attempt=move.attempt)

    assert shown(next_move(going_on, [*log, failure])) == then


def test_a_saga_is_not_compensated_while_a_compensation_is_owed(going_on: Plan) -> None:
    aside = failed("plane", Verdict.SET_ASIDE, COMPENSATE)
    log = [*BACK, aside, done("car", COMPENSATE), done("hotel", COMPENSATE)]

    assert shown(next_move(going_on, log)) == "compensate plane #2"
    assert shown(next_move(going_on, [*log, done("plane", COMPENSATE)])) == "COMPENSATED"


def test_what_was_set_aside_is_next_for_code_that_no_longer_goes_on(trip: Plan) -> None:
    log = [done("hotel"), done("car"), failed("plane", Verdict.ABORT), failed("car", Verdict.SET_ASIDE, COMPENSATE)]

    assert shown(next_move(trip, log)) == "compensate car #2"
    assert judged(trip, log) is Verdict.FAIL_ATTEMPT


# -- logs of other definitions ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "log",
    [
        [done("boat")],
        [failed("boat", Verdict.RETRY)],
        [done("hotel"), failed("boat", Verdict.ABORT)],
        [done("hotel"), failed("car", Verdict.ABORT), done("boat", COMPENSATE)],
        [done("hotel"), failed("car", Verdict.ABORT), failed("boat", Verdict.FAIL_ATTEMPT, COMPENSATE)],
    ],
)
def test_log_with_an_unknown_step_does_not_fit(trip: Plan, log: list[Entry]) -> None:
    with pytest.raises(
        LogDoesNotFit, match=r"has the step 'boat', which trip does not have \(it has hotel, car, plane\)"
    ):
        next_move(trip, log)


@pytest.mark.parametrize(
    "steps",
    [["car"], ["car", "hotel"], ["hotel", "plane"], ["hotel", "hotel"], ["hotel", "car", "plane", "plane"]],
)
def test_log_of_another_order_does_not_fit(trip: Plan, steps: list[str]) -> None:
    with pytest.raises(LogDoesNotFit, match="which is not the order of trip: run the code that has this order"):
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
    log = [done("hotel"), *([] if entry.action is ACT else [done("car"), failed("plane", Verdict.ABORT)]), entry]
    if entry.action is ACT:
        log.append(failed("plane", Verdict.ABORT))

    assert shown(next_move(trip, log)) == "compensate hotel #1"


def test_a_step_in_doubt_that_was_skipped_is_not_compensated(trip: Plan) -> None:
    log = [failed("hotel", Verdict.RETRY, in_doubt=True), skipped("hotel"), failed("car", Verdict.ABORT)]

    assert shown(next_move(trip, log)) == "COMPENSATED"


def test_skipping_the_pivot_is_passing_it(pivoted: Plan) -> None:
    log = [done("hotel"), skipped("pay")]

    assert judged(pivoted, [*log, failed("mail", Verdict.RETRY)]) is Verdict.FAIL_ATTEMPT


def test_a_persons_note_changes_nothing(trip: Plan) -> None:
    note = Entry(step="retry", action=Action.OPERATOR, status=EntryStatus.COMPLETED)

    assert shown(next_move(trip, [note, done("hotel"), note])) == "act car #1"
    assert not aborted([note])


# -- holders that were lost ---------------------------------------------------------------------------------------


def lost(*in_flight: str, status: EntryStatus = EntryStatus.LOST) -> Entry:
    return Entry(step="holder", action=Action.HOLDER, status=status, in_flight=in_flight or None)


ABORT = failed("hotel", Verdict.ABORT)


@pytest.mark.parametrize(
    ("log", "doubtful"),
    [
        ([lost()], {"hotel"}),
        ([lost("hotel")], {"hotel"}),
        ([done("hotel"), lost()], {"car"}),
        ([done("hotel"), lost("car")], {"car"}),
        ([done("hotel"), lost("car"), done("car")], set()),
        ([done("hotel"), lost("car"), skipped("car")], set()),
        ([done("hotel"), lost("car"), failed("car", Verdict.RETRY)], {"car"}),
        ([done("hotel"), lost("car", status=EntryStatus.FAILED)], {"car"}),
        ([done("hotel"), lost("car", status=EntryStatus.DECLINED)], set()),
        ([done("hotel"), failed("car", Verdict.ABORT), lost()], set()),
        ([done("hotel"), failed("car", Verdict.ABORT), lost("hotel")], set()),
    ],
)
def test_what_a_lost_holder_may_have_begun_is_in_doubt(trip: Plan, log: list[Entry], doubtful: set[str]) -> None:
    assert progress_of(trip, log).in_doubt == doubtful


def test_what_is_in_doubt_is_undone(trip: Plan) -> None:
    log = [done("hotel"), lost("car"), failed("car", Verdict.ABORT)]

    assert shown(next_move(trip, log)) == "compensate car #1"


# -- rows of a newer version --------------------------------------------------------------------------------------


def test_a_row_of_an_unknown_kind_is_passed_over(trip: Plan) -> None:
    audit = Entry(step="hotel", action="annotate", status="noted")  # type: ignore[arg-type]

    assert shown(next_move(trip, [audit, done("hotel"), audit])) == "act car #1"


def test_an_unknown_kind_that_schedules_does_not_fit(trip: Plan) -> None:
    newer = Entry(step="hotel", action="await", status="armed", schedules=True)  # type: ignore[arg-type]

    with pytest.raises(LogDoesNotFit, match="a row of the kind await armed, which a newer version wrote"):
        next_move(trip, [newer])

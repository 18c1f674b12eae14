"""Transactional steps on real PostgreSQL: what a step writes is there exactly as often as its checkpoint."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa
from psycopg.rows import dict_row
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from sagas import Call, OutcomeUnknown, PostgresSagaStorage, RetryPolicy, SagaStatus, Step
from sagas.errors import StorageUnavailable
from sagas.progress import Action, Verdict
from sagas.storage.answers import Acquired, Applied
from sagas.storage.leases import LeaseRequest
from sagas.storage.records import SagaRecord
from sagas.storage.saga_filter import SagaFilter
from sagas.storage.step_transaction import StepTransaction
from sagas.transactional import StepInTransaction
from tests.calls import backends, wait_until
from tests.integration.transactional.accounts import KINDS, Account, Accounts, Transfer, pay, paying
from tests.samples import DEADLINE_SECONDS, QuickEngine, saga_of

EVERY = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS.keys())
RUNS = pytest.mark.parametrize("run", ["run", "run with a timeout", "run_async"])
Kind = type[StepInTransaction[Any]]


@pytest.fixture
def engine(emptied_storage: PostgresSagaStorage, accounts: Accounts) -> QuickEngine:
    return QuickEngine(emptied_storage)


def perform(engine: QuickEngine, run: str, *steps: type[Step[Any]], context: Transfer | None = None) -> Any:
    """Run a saga of these steps in one of the ways in which sagas run."""
    if run == "run with a timeout":
        for step in steps:
            step.timeout = DEADLINE_SECONDS
    saga = saga_of(steps, context=Transfer)
    if run == "run_async":
        return asyncio.run(engine.run_async(saga, context or Transfer()))
    return engine.run(saga, context or Transfer())


class Plain(Step[Transfer]):
    def act(self, context: Transfer, call: Call) -> None:
        context.done.append(call.step_name)


def raising(error: BaseException) -> Callable[..., Any]:
    """Return what raises this error in a step."""

    def fail(*_: Any) -> None:
        raise error

    return fail


def statuses(record: SagaRecord) -> list[tuple[str, str, str]]:
    return [(entry.step, str(entry.action), str(entry.status)) for entry in record.log]


# -- what is kept, and what is not --------------------------------------------------------------------------------


@EVERY
@RUNS
def test_effect_of_a_step_is_committed_with_its_checkpoint(
    engine: QuickEngine, accounts: Accounts, kind: Kind, run: str
) -> None:
    report = perform(engine, run, paying(kind), paying(kind, name="again"))

    assert (report.outcome, accounts.balance(), accounts.entries) == ("completed", 20, [10, 10])
    assert engine.stored().context == '{"amount":10,"done":["pay","again"],"note":null}'


@EVERY
@RUNS
def test_effect_is_not_visible_before_the_checkpoint(
    engine: QuickEngine, accounts: Accounts, kind: Kind, run: str
) -> None:
    seen = []

    report = perform(engine, run, paying(kind, lambda *_: seen.append(accounts.balance())))

    assert (report.outcome, seen) == ("completed", [0])


@EVERY
@RUNS
def test_failed_step_leaves_nothing_and_is_not_compensated(
    engine: QuickEngine, accounts: Accounts, kind: Kind, run: str
) -> None:
    report = perform(engine, run, paying(kind), paying(kind, raising(OutcomeUnknown("no answer")), name="again"))

    # The error would put a plain step in doubt.
    assert (report.outcome, accounts.balance(), accounts.entries) == ("compensated", 0, [10, -10])
    assert statuses(engine.stored()) == [
        ("pay", "act", "completed"),
        ("again", "act", "failed"),
        ("pay", "compensate", "completed"),
    ]
    assert not any(entry.in_doubt for entry in engine.stored().log)


@EVERY
@RUNS
def test_last_step_is_kept_if_a_request_to_cancel_comes_in_while_it_runs(
    engine: QuickEngine, accounts: Accounts, kind: Kind, run: str
) -> None:
    def cancel(session: Any, context: Transfer, call: Call) -> None:
        engine.cancel(call.saga_id, "too late to end")

    report = perform(engine, run, paying(kind, cancel))

    # The checkpoint keeps what the step wrote, the saga does not end with it, and the effect is then undone.
    assert (report.outcome, accounts.balance(), accounts.entries) == ("compensated", 0, [10, -10])
    assert statuses(engine.stored()) == [
        ("pay", "act", "completed"),
        ("cancel", "operator", "completed"),
        ("pay", "compensate", "completed"),
    ]


@EVERY
def test_failed_compensation_leaves_nothing_and_is_tried_again(
    engine: QuickEngine, accounts: Accounts, kind: Kind
) -> None:
    errors = [ValueError("once")]

    def undone(*_: Any) -> None:
        if errors:
            raise errors.pop()

    fails = paying(kind, raising(ValueError("no")), name="again")
    report = perform(engine, "run", paying(kind, undone=undone), fails)

    assert (report.outcome, accounts.balance(), accounts.entries) == ("compensated", 0, [10, -10])


@EVERY
@RUNS
def test_effect_of_a_step_whose_context_cannot_be_stored_is_rolled_back(
    engine: QuickEngine, accounts: Accounts, kind: Kind, run: str
) -> None:
    def spoil(_: Any, context: Transfer, *__: Any) -> None:
        context.note = object()

    report = perform(engine, run, paying(kind, spoil))

    assert (report.outcome, accounts.balance(), accounts.entries) == ("compensated", 0, [])
    assert engine.stored().log[0].error_type == "ContextError"


@EVERY
def test_step_is_tried_again_as_its_policy_says(engine: QuickEngine, accounts: Accounts, kind: Kind) -> None:
    errors = [ValueError("once")]

    def fail_once(*_: Any) -> None:
        if errors:
            raise errors.pop()

    report = perform(engine, "run", paying(kind, fail_once, retry=RetryPolicy(max_attempts=2, first_delay=0)))

    assert (report.outcome, accounts.balance(), accounts.entries) == ("completed", 10, [10])
    assert '"done":["pay"]' in engine.stored().context


@EVERY
@RUNS
def test_constraint_that_fails_at_the_commit_fails_the_step(
    engine: QuickEngine, accounts: Accounts, kind: Kind, run: str
) -> None:
    def twice(session: Any, *_: Any) -> None:
        # The constraint on references is deferred to the commit.
        pay(session, 1, "same")
        pay(session, 2, "same")

    report = perform(engine, run, paying(kind), paying(kind, twice, name="again"))

    assert (report.outcome, accounts.balance(), accounts.entries) == ("compensated", 0, [10, -10])
    failed = engine.stored().log[1]
    assert (failed.step, failed.verdict, failed.error_type) == ("again", Verdict.ABORT, "UniqueViolation")


def test_flush_that_fails_at_the_end_fails_the_step(engine: QuickEngine, accounts: Accounts) -> None:
    def overdraw(session: Session, *_: Any) -> None:
        account = session.get(Account, "ann")
        assert account is not None
        account.balance = -1  # nothing is sent before the flush

    report = perform(engine, "run", paying(KINDS["sqlalchemy"], overdraw))

    assert (report.outcome, accounts.balance(), accounts.entries) == ("compensated", 0, [])
    assert engine.stored().log[0].error_type == "IntegrityError"


@EVERY
@RUNS
def test_timed_out_step_is_rolled_back_once_its_action_ends(
    engine: QuickEngine, accounts: Accounts, kind: Kind, run: str
) -> None:
    go_on = threading.Event()
    step = paying(kind, lambda *_: go_on.wait(DEADLINE_SECONDS))
    saga = saga_of([step], context=Transfer)
    step.timeout = 0.2
    if run == "run_async":
        report = asyncio.run(engine.run_async(saga, Transfer()))
    else:
        report = engine.run(saga, Transfer())

    assert report.outcome == "compensated"
    failed = engine.stored().log[0]
    assert (failed.error_type, failed.in_doubt) == ("StepTimedOut", False)
    assert [entry.action for entry in engine.stored().log] == [Action.ACT]
    assert len(open_transactions(accounts)) == 1
    go_on.set()
    wait_until(lambda: not open_transactions(accounts))
    assert (accounts.balance(), accounts.entries) == (0, [])


# -- savepoints, and attempts to end the transaction --------------------------------------------------------------


def _in_a_savepoint(session: Any, fails: bool) -> None:
    savepoint = session.begin_nested() if isinstance(session, Session) else session.transaction()
    try:
        with savepoint:
            pay(session, 5)
            if fails:
                raise KeyError("back to the savepoint")
    except KeyError:
        pass


@EVERY
@pytest.mark.parametrize(("fails", "entries"), [(False, [10, 5]), (True, [10])])
def test_savepoint_is_kept_or_rolled_back_by_itself(
    engine: QuickEngine, accounts: Accounts, kind: Kind, fails: bool, entries: list[int]
) -> None:
    report = perform(engine, "run", paying(kind, lambda session, *_: _in_a_savepoint(session, fails)))

    assert (report.outcome, accounts.entries, accounts.balance()) == ("completed", entries, sum(entries))


ENDS: dict[str, Callable[[Any], Any]] = {
    "commit": lambda session: session.commit(),
    "rollback": lambda session: session.rollback(),
    "close": lambda session: session.close(),
}


@EVERY
@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS.keys())
def test_step_cannot_end_its_transaction(
    engine: QuickEngine, accounts: Accounts, kind: Kind, end: Callable[[Any], Any]
) -> None:
    report = perform(engine, "run", paying(kind, lambda session, *_: end(session)))

    assert (report.outcome, accounts.balance(), accounts.entries) == ("compensated", 0, [])
    failed = engine.stored().log[0]
    assert failed.error_type == "TransactionRefused"
    assert "its transaction ends with its checkpoint: return to commit" in str(failed.message)


@pytest.mark.parametrize("end", [lambda c: c.commit(), lambda c: c.get_transaction().commit(), lambda c: c.close()])
def test_step_cannot_end_its_transaction_by_the_sessions_connection(
    engine: QuickEngine, accounts: Accounts, end: Callable[[Any], Any]
) -> None:
    def commit(session: Session, *_: Any) -> None:
        session.flush()
        end(session.connection())

    report = perform(engine, "run", paying(KINDS["sqlalchemy"], commit))

    assert (report.outcome, accounts.balance(), accounts.entries) == ("compensated", 0, [])


@EVERY
@pytest.mark.parametrize("statement", ["COMMIT", "ROLLBACK"])
@pytest.mark.parametrize("goes_on", [False, True])
def test_step_that_ends_its_transaction_by_a_statement_is_told(
    engine: QuickEngine, accounts: Accounts, kind: Kind, statement: str, goes_on: bool
) -> None:
    def end(session: Any, *_: Any) -> None:
        session.execute(sa.text(statement) if isinstance(session, Session) else statement)
        if goes_on:
            pay(session, 5)

    report = perform(engine, "run", paying(kind, before=end))

    assert (report.outcome, accounts.entries) == ("compensated", [])
    assert "ended the transaction that it shares with its checkpoint" in str(engine.stored().log[0].message)


@EVERY
def test_error_of_the_database_that_a_step_hides_fails_the_step(
    engine: QuickEngine, accounts: Accounts, kind: Kind
) -> None:
    def hide(session: Any, *_: Any) -> None:
        statement = "INSERT INTO accounts VALUES ('bob', 1)"
        with pytest.raises((IntegrityError, psycopg.errors.UniqueViolation)):
            session.execute(sa.text(statement) if isinstance(session, Session) else statement)

    report = perform(engine, "run", paying(kind, hide))

    assert (report.outcome, accounts.balance(), accounts.entries) == ("compensated", 0, [])


def test_failed_flush_in_a_step_is_not_followed_by_writes_that_stay(engine: QuickEngine, accounts: Accounts) -> None:
    def go_on(session: Session, *_: Any) -> None:
        connection = session.connection()
        account = session.get(Account, "ann")
        assert account is not None
        account.balance = -1
        with pytest.raises(IntegrityError):
            session.flush()
        connection.execute(sa.text("INSERT INTO entries (account, amount) VALUES ('ann', 99)"))

    report = perform(engine, "run", paying(KINDS["sqlalchemy"], go_on))

    assert (report.outcome, accounts.balance(), accounts.entries) == ("compensated", 0, [])


def test_saga_that_a_step_starts_on_its_session_exists_only_with_the_checkpoint(
    engine: QuickEngine, accounts: Accounts
) -> None:
    from tests.samples import FakeDispatcher, Stage, Trip

    engine.dispatcher = dispatcher = FakeDispatcher()
    child = Stage().saga("hotel")

    def start(fails: bool) -> Callable[..., Any]:
        def do(session: Session, *_: Any) -> None:
            engine.start(child, Trip(), connection=session)
            assert dispatcher.sent == []
            if fails:
                raise ValueError("no")

        return do

    perform(engine, "run", paying(KINDS["sqlalchemy"], start(True)))
    assert (len(engine.storage.find(SagaFilter(name="trip", statuses=[SagaStatus.PENDING]))), dispatcher.sent) == (
        0,
        [],
    )
    perform(engine, "run", paying(KINDS["sqlalchemy"], start(False)))
    assert len(engine.storage.find(SagaFilter(statuses=[SagaStatus.PENDING]))) == len(dispatcher.sent) == 1


# -- the lease, the database, other transactions ------------------------------------------------------------------


def take_over(engine: QuickEngine, accounts: Accounts) -> Acquired:
    """Let the lease of the only saga expire, and acquire it for another worker."""
    with accounts.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE saga_executions SET available_at = now() - interval '1 second'")
    acquired = engine.storage.acquire(
        engine.stored().id, LeaseRequest(owner="another", seconds=30), max_recovery_attempts=3
    )
    assert isinstance(acquired, Acquired)
    return acquired


@EVERY
@RUNS
@pytest.mark.parametrize("action", ["act", "compensate"])
def test_effect_of_a_worker_that_was_replaced_is_rolled_back(
    engine: QuickEngine, accounts: Accounts, kind: Kind, run: str, action: str
) -> None:
    def replaced(*_: Any) -> None:
        take_over(engine, accounts)

    steps = [paying(kind, replaced)]
    if action == "compensate":
        steps = [paying(kind, undone=replaced), paying(kind, raising(ValueError("no")), name="again")]
    report = perform(engine, run, *steps)

    assert report.outcome == "lost"
    assert accounts.entries == ([10] if action == "compensate" else [])
    stored = engine.stored()
    assert (stored.lease_owner, stored.version) == ("another", 2)
    assert stored.log[-1].status == "lost"


@EVERY
def test_lock_of_a_worker_that_was_replaced_does_not_stop_the_next_one(
    engine: QuickEngine, accounts: Accounts, kind: Kind
) -> None:
    wrote, go_on = threading.Event(), threading.Event()

    def freeze(*_: Any) -> None:
        if not wrote.is_set():
            wrote.set()
            assert go_on.wait(DEADLINE_SECONDS)

    saga = saga_of([paying(kind, freeze)], context=Transfer)
    reports = []
    frozen = threading.Thread(target=lambda: reports.append(engine.run(saga, Transfer())))
    frozen.start()
    assert wrote.wait(DEADLINE_SECONDS)
    with accounts.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE saga_executions SET available_at = now() - interval '1 second'")

    report = QuickEngine(engine.storage, sagas=[saga], node="another").recover(engine.stored().id)

    assert not reports, "it waited for the first one"
    assert (report.outcome, accounts.balance(), accounts.entries) == ("completed", 10, [10])
    go_on.set()
    frozen.join(DEADLINE_SECONDS)
    assert reports[0].outcome == "lost"
    assert (accounts.balance(), accounts.entries) == (10, [10])


@EVERY
@RUNS
def test_step_whose_connection_is_lost_is_performed_again(
    engine: QuickEngine, accounts: Accounts, kind: Kind, run: str
) -> None:
    cuts = [1, 1]

    def cut(session: Any, *_: Any) -> None:
        if cuts:
            cuts.pop()
            cut_steps(accounts)
            session.execute(sa.text("SELECT 1") if isinstance(session, Session) else "SELECT 1")

    report = perform(engine, run, paying(kind), paying(kind, cut, name="again"))

    assert (report.outcome, accounts.balance(), accounts.entries) == ("completed", 20, [10, 10])
    assert [entry.attempt for entry in engine.stored().log] == [1, 1]
    assert '"done":["pay","again"]' in engine.stored().context


@EVERY
@RUNS
def test_step_whose_connection_is_lost_before_the_commit_is_performed_again(
    engine: QuickEngine, accounts: Accounts, kind: Kind, run: str
) -> None:
    cuts = [1]

    def cut(*_: Any) -> None:
        if cuts:
            cuts.pop()
            cut_steps(accounts)

    report = perform(engine, run, paying(kind, cut), paying(kind, name="again"))

    assert (report.outcome, accounts.balance(), accounts.entries) == ("completed", 20, [10, 10])


class Losing(PostgresSagaStorage):
    """A storage whose commits of steps lose their answers, after they were done or not."""

    losses: list[str]

    def begin_step(self, *arguments: Any) -> StepTransaction:
        transaction = super().begin_step(*arguments)
        if self.losses:
            when, really = self.losses.pop(0), transaction.apply

            def apply(*arguments: Any) -> Applied:
                if when == "before":
                    transaction.roll_back()
                else:
                    really(*arguments)
                raise StorageUnavailable("no answer to the COMMIT")

            transaction.apply = apply  # type: ignore[method-assign]
        return transaction


@EVERY
@RUNS
@pytest.mark.parametrize("losses", [["after"], ["before"], ["before", "after"], ["before", "before"]])
@pytest.mark.parametrize("steps", [1, 2])
def test_commit_whose_answer_is_lost_has_its_effect_once(
    accounts: Accounts, kind: Kind, run: str, losses: list[str], steps: int
) -> None:
    storage = Losing(accounts.url)
    storage.losses = list(losses)
    engine = QuickEngine(storage)

    report = perform(engine, run, *(paying(kind, name=f"pay{n}") for n in range(steps)))

    assert (report.outcome, accounts.balance(), accounts.entries) == ("completed", 10 * steps, [10] * steps)
    assert [entry.status for entry in engine.stored().log] == ["completed"] * steps
    assert storage.losses == []
    storage.close()


@EVERY
@pytest.mark.parametrize("steps", [1, 2])
def test_commit_that_comes_late_makes_the_second_attempt_fail(accounts: Accounts, kind: Kind, steps: int) -> None:
    """The answer to a COMMIT is lost, the log has no row of it yet, and the server executes it afterwards."""
    late: list[Callable[[], Any]] = []

    class Late(PostgresSagaStorage):
        def begin_step(self, *arguments: Any) -> StepTransaction:
            transaction = super().begin_step(*arguments)
            really = transaction.apply
            if not late:

                def apply(*arguments: Any) -> Applied:
                    late.append(lambda: really(*arguments[:2]))  # nobody is there for what would begin with it
                    raise StorageUnavailable("no answer to the COMMIT")

                transaction.apply = apply  # type: ignore[method-assign]
            return transaction

    def lands(*_: Any) -> None:
        if late:
            late.pop()()
            late.append(lambda: None)

    storage = Late(accounts.url)
    engine = QuickEngine(storage)
    report = engine.run(
        saga_of(
            [paying(kind, before=lands), *(paying(kind, name=f"pay{n}") for n in range(1, steps))], context=Transfer
        ),
        Transfer(),
    )

    assert (accounts.balance(), accounts.entries) == (10 * steps, [10] * steps)
    assert engine.stored().status is SagaStatus.COMPLETED
    assert report.outcome == "completed"
    storage.close()


@EVERY
@RUNS
def test_step_that_a_deadlock_ended_is_performed_again_and_spends_no_attempt(
    engine: QuickEngine, accounts: Accounts, kind: Kind, run: str
) -> None:
    others: list[threading.Thread] = []
    locked = threading.Event()

    def other() -> None:
        with accounts.engine.begin() as connection:
            connection.exec_driver_sql("SET deadlock_timeout = '1h'")  # the other one is the victim
            connection.exec_driver_sql("UPDATE accounts SET balance = balance + 1 WHERE name = 'bob'")
            locked.set()
            connection.exec_driver_sql("UPDATE accounts SET balance = balance + 1 WHERE name = 'ann'")

    def deadlock(session: Any, *_: Any) -> None:
        if isinstance(session, Session):
            session.flush()
        if not others:
            others.append(threading.Thread(target=other))
            others[0].start()
            assert locked.wait(DEADLINE_SECONDS)
            wait_until(lambda: blocked(accounts))
        statement = "UPDATE accounts SET balance = balance + 1 WHERE name = 'bob'"
        session.execute(sa.text(statement) if isinstance(session, Session) else statement)

    report = perform(engine, run, paying(kind, deadlock))

    others[0].join(DEADLINE_SECONDS)
    assert (report.outcome, accounts.balance(), accounts.balance("bob")) == ("completed", 11, 2)
    assert [(entry.status, entry.attempt) for entry in engine.stored().log] == [("completed", 1)]
    assert '"done":["pay"]' in engine.stored().context


@EVERY
@pytest.mark.parametrize("before", ["a plain step", "a transactional step"])
def test_transaction_that_began_with_a_checkpoint_and_was_lost_spends_no_attempt(
    accounts: Accounts, kind: Kind, before: str
) -> None:
    cut = []

    def cut_off(session: Any, context: Transfer, call: Call) -> None:
        if not cut:
            with accounts.engine.begin() as connection:
                ours = f"saga {call.saga_id} 1"
                query = "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE application_name = :ours"
                cut.extend(connection.execute(sa.text(query), {"ours": ours}).scalars())

    storage = PostgresSagaStorage(accounts.url)
    first = Plain if before == "a plain step" else paying(kind)
    report = perform(QuickEngine(storage), "run", first, paying(kind, before=cut_off, name="again"))

    expected = [10] if before == "a plain step" else [10, 10]
    assert (report.outcome, accounts.balance(), accounts.entries) == ("completed", sum(expected), expected)
    assert [entry.status for entry in QuickEngine(storage).stored().log] == ["completed"] * 2
    assert cut == [True]
    storage.close()


def test_what_a_step_changed_on_its_connection_is_as_before_for_the_next(
    engine: QuickEngine, accounts: Accounts
) -> None:
    rows: list[Any] = []

    def change(connection: psycopg.Connection[Any], *_: Any) -> None:
        rows.append(connection.execute("SELECT 1").fetchone())
        connection.row_factory = dict_row

    kind = KINDS["psycopg"]
    report = perform(engine, "run", paying(kind, change), paying(kind, change, name="again"))

    assert (report.outcome, rows) == ("completed", [(1,), (1,)])


@EVERY
def test_transaction_that_began_with_a_checkpoint_ends_if_its_step_does_not_follow(
    engine: QuickEngine, accounts: Accounts, kind: Kind
) -> None:
    class Cancels(Plain):
        def act(self, context: Transfer, call: Call) -> None:
            engine.cancel(call.saga_id, "no")

    report = perform(engine, "run", Cancels, paying(kind))

    assert (report.outcome, accounts.entries) == ("compensated", [])
    assert accounts.open_steps() == []


@EVERY
def test_step_that_always_loses_its_connection_fails_in_the_end(
    engine: QuickEngine, accounts: Accounts, kind: Kind
) -> None:
    report = perform(engine, "run", paying(kind, raising(StorageUnavailable("away"))))

    assert (report.outcome, accounts.entries) == ("compensated", [])
    assert engine.stored().log[0].error_type == "StorageUnavailable"


@EVERY
def test_exit_of_the_process_in_a_step_rolls_back_and_leaves_no_doubt(
    engine: QuickEngine, accounts: Accounts, kind: Kind
) -> None:
    saga = saga_of([paying(kind), paying(kind, raising(SystemExit(3)), name="again")], context=Transfer)

    with pytest.raises(SystemExit):
        engine.run(saga, Transfer())

    assert (accounts.balance(), accounts.entries) == (10, [10])
    assert engine.stored().recovery_attempts == 1


@EVERY
def test_step_under_another_isolation_level_is_read_committed(
    engine: QuickEngine, accounts: Accounts, kind: Kind
) -> None:
    """Under a stricter level the renewal of the lease, which writes the same row, would fail the fence."""

    def renew(session: Any, context: Transfer, call: Any) -> None:
        level = "SHOW transaction_isolation"
        found = session.execute(sa.text(level) if isinstance(session, Session) else level).fetchone()[0]
        context.note = found
        with accounts.engine.begin() as connection:
            connection.exec_driver_sql("UPDATE saga_executions SET available_at = available_at + interval '1 second'")

    with accounts.engine.connect() as connection:
        name = connection.exec_driver_sql("SELECT current_database()").scalar()
    admin = sa.create_engine(accounts.url, isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.exec_driver_sql(f"ALTER DATABASE {name} SET default_transaction_isolation = 'serializable'")
    try:
        # On an engine of the caller's, the storage does not change what connections begin with.
        own = sa.create_engine(accounts.url)
        engine = QuickEngine(PostgresSagaStorage(own))
        report = perform(engine, "run", paying(kind, renew))
        own.dispose()
    finally:
        with admin.connect() as connection:
            connection.exec_driver_sql(f"ALTER DATABASE {name} RESET default_transaction_isolation")
        admin.dispose()

    assert (report.outcome, accounts.entries) == ("completed", [10])
    assert '"note":"read committed"' in engine.stored().context


@EVERY
def test_steps_need_no_free_connection_of_the_storages_pool(accounts: Accounts, kind: Kind) -> None:
    """A step may use the storage, and other steps may run, with a pool of one connection too."""
    storage = PostgresSagaStorage(accounts.url, pool_size=1)
    engine = QuickEngine(storage)
    inner = saga_of([paying(kind, before=lambda *_: None)], context=Transfer, name="inner")

    def run_another(*_: Any) -> None:
        assert engine.run(inner, Transfer()).outcome == "completed"

    report = perform(engine, "run", paying(kind, before=run_another))

    assert (report.outcome, accounts.entries) == ("completed", [10, 10])
    storage.close()


@EVERY
def test_storage_on_an_engine_of_the_callers_has_transactional_steps_too(accounts: Accounts, kind: Kind) -> None:
    engine = QuickEngine(PostgresSagaStorage(accounts.engine))

    report = perform(engine, "run", paying(kind), paying(kind, name="again"))

    assert (report.outcome, accounts.entries) == ("completed", [10, 10])


def test_step_refuses_another_transaction_of_its_own(engine: QuickEngine, accounts: Accounts) -> None:
    def begin(session: Session, *_: Any) -> None:
        with session.begin():
            pass

    report = perform(engine, "run", paying(KINDS["sqlalchemy"], begin))

    assert (report.outcome, accounts.entries) == ("compensated", [])


# -- helpers ------------------------------------------------------------------------------------------------------


def open_transactions(accounts: Accounts) -> list[int]:
    """Return the sessions that are in the transaction of a step."""
    return backends(accounts.engine, "application_name LIKE 'saga %%'")


def blocked(accounts: Accounts) -> list[int]:
    """Return the sessions that wait for a lock."""
    return backends(accounts.engine, "wait_event_type = 'Lock'")


def cut_steps(accounts: Accounts) -> None:
    """End the sessions that are in the transaction of a step, as a restart of the server does."""
    with accounts.engine.connect() as connection:
        for pid in open_transactions(accounts):
            connection.exec_driver_sql("SELECT pg_terminate_backend(%s, 5000)", (pid,))

"""Checks run one after the other, each for a bounded time, and are skipped if one that they need has a problem."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
import sqlalchemy as sa

from sagas import Settings
from sagas.doctor import OK, PROBLEM, SKIPPED, WARNING, Check, Finding, Installation, Result, examine, problem, warning
from sagas.doctor.server import Server
from sagas.inspection import Inspector
from sagas.storage import PostgresSagaStorage
from sagas.storage.postgres.dsn import make_engine

BAD = problem("bad", what="it is bad", why="Because.", cure="Do {it}.")
SO_SO = warning("so-so", what="it is so-so", why="Because.", cure="Do it.")


def fine(_: Installation) -> Iterator[Finding | str]:
    yield "all is well"


def bad(_: Installation) -> Iterator[Finding | str]:
    yield "a fact"
    yield BAD.seen("bad it is.", it="this")


def so_so(_: Installation) -> Iterator[Finding | str]:
    yield SO_SO.seen("so-so it is.")


def fails(_: Installation) -> Iterator[Finding | str]:
    yield SO_SO.seen("so-so it is.")
    raise ZeroDivisionError("by nothing")


def exits(_: Installation) -> Iterator[Finding | str]:
    raise SystemExit("error: so there")


def examined(*checks: Check) -> dict[str, Result]:
    return {each.name: each for each in examine(Installation({}), checks)}


def test_checks_go_on_after_a_problem_and_skip_only_those_that_need_it() -> None:
    results = examined(
        Check("a", bad, (BAD,)),
        Check("b", fine, (), needs=("a",)),
        Check("c", fine, (), needs=("b",)),
        Check("d", so_so, (SO_SO,)),
        Check("e", fine, (), needs=("d",)),
    )
    assert {name: (each.state, each.because) for name, each in results.items()} == {
        "a": (PROBLEM, None),
        "b": (SKIPPED, "a"),
        "c": (SKIPPED, "b"),
        "d": (WARNING, None),
        "e": (OK, None),
    }
    assert results["a"].facts == ("a fact",)
    assert [finding.cure for finding in results["a"].findings] == ["Do this."]


@pytest.mark.parametrize(("run", "words"), [(fails, "ZeroDivisionError: by nothing"), (exits, "SystemExit: error: so")])
def test_an_unexpected_error_is_reported_beside_what_was_found(run, words: str) -> None:
    results = examined(Check("a", run, (SO_SO,)), Check("b", fine, ()))
    *_, last = results["a"].findings
    assert last.id == "check-failed"
    assert words in last.what
    assert results["b"].state == OK


def test_a_check_that_hangs_is_left_behind() -> None:
    release = threading.Event()

    def hangs(_: Installation) -> Iterator[Finding | str]:
        yield SO_SO.seen("so-so it is.")
        release.wait()

    results = examined(Check("a", hangs, (SO_SO,), seconds=0.2), Check("b", fine, ()))
    assert [finding.id for finding in results["a"].findings] == ["so-so", "no-answer"]
    assert results["b"].state == OK
    (hurried,) = examine(Installation({}), [Check("a", hangs, (SO_SO,))], seconds=0.1)
    assert hurried.findings[-1].what == "the check 'a' had no answer within 0.1 s."
    release.set()


def test_the_database_stops_a_statement_that_waits_too_long(database_url: str) -> None:
    inspector = Inspector(PostgresSagaStorage(make_engine(database_url)), answer_seconds=0.1)
    server = Server(database_url, statement_seconds=0.1)
    engine = sa.create_engine(database_url)
    with engine.begin() as connection:
        connection.exec_driver_sql("LOCK TABLE saga_executions")
        results = examined(
            Check("a", lambda _: map(str, inspector.statistics().unfinished), ()),
            Check("b", lambda _: map(str, server._rows("SELECT FROM saga_executions")), ()),
        )
    engine.dispose()
    for result in results.values():
        (finding,) = result.findings
        assert finding.id == "no-answer"


def test_commands_of_celery_name_the_users_application() -> None:
    cure = problem("bad", what="it is bad", why="Because.", cure="Start `celery -A sagas worker`.")
    here = Installation({}, settings=Settings(celery_app="shop.celery:app"))
    (result,) = examine(here, [Check("a", lambda _: [cure.seen("bad it is.")], (cure,))])
    assert [finding.cure for finding in result.findings] == ["Start `celery -A shop.celery:app worker`."]

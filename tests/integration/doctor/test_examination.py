"""One check after the other: each bounded, the rest whatever one finds, and none without what it stands on."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
import sqlalchemy as sa

from sagas.doctor import Check, Examined, Finding, Installation, State, checks, examine, problem, warning

BAD = problem("bad", what="it is bad", why="Because.", cure="Do {it}.")
SO_SO = warning("so-so", what="it is so-so", why="Because.", cure="Do it.")


def fine(_: Installation) -> Iterator[Finding | str]:
    yield "all is well"


def bad(_: Installation) -> Iterator[Finding | str]:
    yield "a fact"
    yield BAD("bad it is.", it="this")


def so_so(_: Installation) -> Iterator[Finding | str]:
    yield SO_SO("so-so it is.")


def fails(_: Installation) -> Iterator[Finding | str]:
    yield SO_SO("so-so it is.")
    raise ZeroDivisionError("by nothing")


def exits(_: Installation) -> Iterator[Finding | str]:
    raise SystemExit("error: so there")


def examined(monkeypatch: pytest.MonkeyPatch, *these: Check) -> dict[str, Examined]:
    monkeypatch.setattr(checks, "FOUNDATION", these)
    monkeypatch.setattr(checks, "SAGAS", ())
    return {each.name: each for each in examine(Installation({}))}


def test_checks_go_on_after_one_that_fails_and_skip_only_what_stands_on_it(monkeypatch: pytest.MonkeyPatch) -> None:
    told = examined(
        monkeypatch,
        Check("a", bad, (BAD,)),
        Check("b", fine, (), needs=("a",)),
        Check("c", fine, (), needs=("b",)),
        Check("d", so_so, (SO_SO,)),
        Check("e", fine, (), needs=("d",)),
    )
    assert {name: (each.state, each.because) for name, each in told.items()} == {
        "a": (State.PROBLEM, None),
        "b": (State.SKIPPED, "a"),
        "c": (State.SKIPPED, "b"),
        "d": (State.WARNING, None),
        "e": (State.OK, None),
    }
    assert told["a"].facts == ("a fact",)
    assert [finding.cure for finding in told["a"].findings] == ["Do this."]


@pytest.mark.parametrize(("run", "words"), [(fails, "ZeroDivisionError: by nothing"), (exits, "SystemExit: error: so")])
def test_an_error_that_nobody_foresaw_is_told_beside_what_was_found(
    monkeypatch: pytest.MonkeyPatch, run, words: str
) -> None:
    told = examined(monkeypatch, Check("a", run, (SO_SO,)), Check("b", fine, ()))
    *_, last = told["a"].findings
    assert last.id == "check-failed"
    assert words in last.what
    assert told["b"].state is State.OK


def test_a_check_that_hangs_is_given_up_and_the_rest_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    release = threading.Event()

    def hangs(_: Installation) -> Iterator[Finding | str]:
        yield SO_SO("so-so it is.")
        release.wait()

    told = examined(monkeypatch, Check("a", hangs, (SO_SO,), seconds=0.2), Check("b", fine, ()))
    release.set()
    assert [finding.id for finding in told["a"].findings] == ["so-so", "no-answer"]
    assert told["b"].state is State.OK


def test_a_statement_that_waits_too_long_is_given_up_by_the_database(
    monkeypatch: pytest.MonkeyPatch, database_url: str, installation: Callable[..., Installation]
) -> None:
    here, (stuck,) = installation(), (check for check in checks.SAGAS if check.name == "stuck")
    monkeypatch.setattr(checks, "FOUNDATION", ())
    monkeypatch.setattr(checks, "SAGAS", (replace(stuck, needs=()),))
    engine = sa.create_engine(database_url)
    with engine.begin() as connection:
        connection.exec_driver_sql("LOCK TABLE saga_executions")
        (told,) = examine(here)
    engine.dispose()
    (finding,) = told.findings
    assert finding.id == "no-answer"
    assert "statement timeout" in finding.what

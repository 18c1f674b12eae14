"""What is told of the code of the sagas."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from sagas import Settings
from sagas.doctor import Finding, Installation
from sagas.doctor.code import CODE
from tests.integration.doctor.conftest import found_by

_numbers = itertools.count(1)

SAGA = """
from dataclasses import dataclass
from sagas import RetryPolicy, Saga, Step

@dataclass
class Order:
    item: str

class Reserve(Step[Order]):
    retry = RetryPolicy({retry})

    def act(self, context, call):
        pass

class PlaceOrder(Saga[Order]):
    steps = [Reserve]

def resolve(step):
    return step()
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
    """Writes a module that can be imported and returns its name."""
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])

    def write(text: str) -> str:
        name = f"doctored_{next(_numbers)}"
        (tmp_path / f"{name}.py").write_text(text)
        return name

    return write


def with_modules(*modules: str, **settings: str) -> Installation:
    return Installation({}, settings=Settings(modules=modules, **settings))


def test_code_that_can_be_loaded_is_what_later_checks_go_by(module: Callable[[str], str]) -> None:
    name = module(SAGA.format(retry=""))
    installation = with_modules(name, resolver=f"{name}:resolve")
    assert [*CODE.run(installation)] == [f"1 saga in {name}"]
    assert [saga.name for saga in installation.registry] == ["place-order"]


def test_no_modules_are_told() -> None:
    assert set(found_by(CODE, with_modules())) == {"modules-unset"}


@pytest.mark.parametrize(
    ("text", "told"),
    [("1 / 0", "ZeroDivisionError"), ("x = 1", "holds no Saga class"), ("def", "SyntaxError")],
)
def test_a_module_that_cannot_be_loaded_is_told_in_its_sentence(
    module: Callable[[str], str], text: str, told: str
) -> None:
    found = found_by(CODE, with_modules(module(text)))
    assert set(found) == {"code-unusable"}
    assert told in found["code-unusable"].what


def test_a_resolver_that_cannot_be_loaded_is_told(module: Callable[[str], str]) -> None:
    name = module(SAGA.format(retry=""))
    found = found_by(CODE, with_modules(name, resolver=f"{name}:solve"))
    assert set(found) == {"code-unusable"}
    assert "SAGAS_RESOLVER" in found["code-unusable"].what


@pytest.mark.parametrize(
    ("retry", "waits"),
    [
        ("max_attempts=4, first_delay=30000, max_delay=90000", "waits of 2 d"),
        ("max_attempts=1_000_000_000, first_delay=1, max_delay=60", "694444 d"),
        ("max_attempts=1_000_000_000, first_delay=0.001, factor=1, max_delay=60", "11 d"),
        ("max_attempts=20, first_delay=60, max_delay=3600", None),
        ("max_attempts=1, first_delay=1_000_000, max_delay=1_000_000", None),
    ],
)
def test_retries_of_more_than_a_day_are_told_with_their_step(
    module: Callable[[str], str], retry: str, waits: str | None
) -> None:
    told = [each for each in CODE.run(with_modules(module(SAGA.format(retry=retry)))) if isinstance(each, Finding)]
    if waits is None:
        assert not told
        return
    (finding,) = told
    assert finding.id == "retries-long"
    assert finding.what.startswith("Reserve of PlaceOrder is tried ")
    assert waits in finding.what
    assert "`retry` of Reserve" in finding.cure

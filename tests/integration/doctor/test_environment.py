"""The checks of the variables and of the saga modules."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from sagas import Settings
from sagas.doctor import Finding, Installation
from sagas.doctor.environment import CODE, SETTINGS
from tests.integration.doctor.conftest import found_by

_numbers = itertools.count(1)

SAGA = """
from dataclasses import dataclass
from sagas import Saga, Step

@dataclass
class Order:
    item: str

class Reserve(Step[Order]):
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


def found_with(**variables: str) -> dict[str, Finding]:
    return found_by(SETTINGS, Installation({"PATH": "/bin", **variables}))


def with_modules(*modules: str, **settings: str) -> Installation:
    return Installation({}, settings=Settings(modules=modules, **settings))


def test_defaults_and_empty_variables_have_no_finding() -> None:
    assert not found_with()
    assert not found_with(**{f"SAGAS_{name.upper()}": "" for name in ("result_backend", "resolver", "modules")})


def test_an_unknown_variable_is_reported_beside_an_unusable_value_and_without_its_own() -> None:
    found = found_with(SAGAS_LEASE_SECONDS="soon", SAGAS_LEASE_SECOND="s3cr3t")
    assert set(found) == {"settings-unusable", "setting-unknown"}
    assert "SAGAS_LEASE_SECONDS (it is 'soon')" in found["settings-unusable"].what
    assert found["setting-unknown"].what == "SAGAS_LEASE_SECOND is set, and no setting has this name."


def test_a_database_url_that_cannot_be_used_is_reported_without_its_password() -> None:
    found = found_with(SAGAS_DATABASE_URL="mysql://me:s3cr3t@db/shop")
    assert set(found) == {"settings-unusable"}
    assert "SAGAS_DATABASE_URL" in found["settings-unusable"].what
    assert "s3cr3t" not in str(found)


def test_later_checks_use_the_settings_that_were_read() -> None:
    installation = Installation({"SAGAS_LEASE_SECONDS": "60"})
    assert not found_by(SETTINGS, installation)
    assert installation.settings == Settings(lease_seconds=60)


def test_later_checks_use_the_sagas_that_were_imported(module: Callable[[str], str]) -> None:
    name = module(SAGA)
    installation = with_modules(name, resolver=f"{name}:resolve")
    assert [*CODE.run(installation)] == [f"1 saga in {name}"]
    assert [saga.name for saga in installation.registry] == ["place-order"]


def test_missing_modules_are_reported() -> None:
    assert set(found_by(CODE, with_modules())) == {"modules-unset"}


@pytest.mark.parametrize(
    ("text", "error"),
    [("1 / 0", "ZeroDivisionError"), ("x = 1", "holds no Saga class"), ("def", "SyntaxError")],
)
def test_a_module_that_cannot_be_imported_is_reported(module: Callable[[str], str], text: str, error: str) -> None:
    found = found_by(CODE, with_modules(module(text)))
    assert set(found) == {"code-unusable"}
    assert error in found["code-unusable"].what


def test_a_resolver_that_cannot_be_loaded_is_reported(module: Callable[[str], str]) -> None:
    name = module(SAGA)
    found = found_by(CODE, with_modules(name, resolver=f"{name}:solve"))
    assert set(found) == {"code-unusable"}
    assert "SAGAS_RESOLVER" in found["code-unusable"].what

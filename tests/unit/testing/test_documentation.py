"""docs/testing.md tells of what there is; that its examples run is checked in tests/integration/docs."""

from __future__ import annotations

import re
from typing import Any

import pytest

import sagas.testing
from sagas.testing import crashes
from sagas.testing.crashes import CrashMatrixFailed, Fault
from tests.integration.docs.pages import DOCS, blocks

DOCUMENT = DOCS / "testing.md"


def run(*code: str) -> dict[str, Any]:
    """Run blocks as one module; return what it defines."""
    module: dict[str, Any] = {"__name__": "example"}
    for block in code:
        exec(compile(block, str(DOCUMENT), "exec", dont_inherit=True), module)
    return module


def test_the_check_refuses_the_bug() -> None:
    bug, _, check, *_ = (block.text for block in blocks(DOCUMENT, "python"))

    with pytest.raises(CrashMatrixFailed, match=r"check: assert|check: AssertionError"):
        run(bug, check)


def test_the_bugs_told_of_are_those_that_are_found() -> None:
    rows = DOCUMENT.read_text().partition("| bug |")[2].partition("\n\n")[0].splitlines()[2:]

    assert [row.split("|")[1].strip() for row in rows] == [fault.title for fault in Fault]


def test_the_arguments_told_of_are_those_that_there_are() -> None:
    told = re.search(r"`crash_matrix\((.*?)\)`", DOCUMENT.read_text())
    rows = DOCUMENT.read_text().partition("| argument |")[2].partition("\n\n")[0].splitlines()[2:]

    assert told
    parameters = list(crashes.crash_matrix.__annotations__)[:-1]
    assert told[1].replace("*, ", "").split(", ") == parameters
    assert [row.split("|")[1].strip(" `") for row in rows] == parameters


def test_what_users_import_is_there() -> None:
    for name in ("CrashMatrix", "CrashMatrixFailed", "FakeClock", "Outcome", "StorageContract", "crash_matrix"):
        assert name in sagas.testing.__all__
        assert getattr(sagas.testing, name).__name__ == name

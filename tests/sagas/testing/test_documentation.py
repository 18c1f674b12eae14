"""docs/testing.md tells the truth: its examples run, and print what it says they print."""

from __future__ import annotations

import re
import subprocess
import sys
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import sagas.testing
from sagas.testing import crashes
from sagas.testing.crashes import CrashMatrixFailed, Fault

DOCUMENT = Path(__file__).parents[3] / "docs" / "testing.md"
DEADLINE_SECONDS = 60


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", DOCUMENT.read_text(), re.MULTILINE | re.DOTALL)


def run(*code: str) -> dict[str, Any]:
    """Run blocks as one module; return what it defines."""
    module: dict[str, Any] = {"__name__": "example"}
    for block in code:
        exec(compile(block, str(DOCUMENT), "exec", dont_inherit=True), module)
    return module


def test_the_example_fails_with_the_message_shown() -> None:
    example, shown = run(blocks("python")[0]), blocks("text")[0]

    with pytest.raises(CrashMatrixFailed) as failed:
        example["test_place_order_survives_every_crash"]()

    assert str(failed.value) == shown.rstrip("\n")


def test_the_fixed_example_prints_what_is_shown_and_passes_its_check() -> None:
    bug, fix, check, *_ = blocks("python")

    with redirect_stdout(StringIO()) as printed:
        run(bug, fix, check)

    assert printed.getvalue() == blocks("text")[1]


def test_the_check_refuses_the_bug() -> None:
    bug, _, check, *_ = blocks("python")

    with pytest.raises(CrashMatrixFailed, match=r"check: assert|check: AssertionError"):
        run(bug, check)


def test_the_example_with_the_fake_clock_passes() -> None:
    run(blocks("python")[3])["test_a_busy_hotel_is_asked_again_ten_minutes_later"]()


def test_the_example_of_a_storages_suite_passes(tmp_path: Path) -> None:
    (tmp_path / "test_storage.py").write_text(blocks("python")[4])

    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", "/dev/null", "--rootdir", tmp_path],
        cwd=tmp_path,
        env={"PYTHONPATH": str(DOCUMENT.parents[1])},
        capture_output=True,
        text=True,
        timeout=DEADLINE_SECONDS,
        check=False,
    )

    assert re.search(r"^\d\d+ passed", done.stdout, re.MULTILINE), done.stdout


def test_the_example_with_real_servers_imports_what_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    *_, servers = blocks("python")
    trips = ModuleType("trips")
    vars(trips).update(BookTrip=None, Trip=None)
    monkeypatch.setitem(sys.modules, "trips", trips)

    assert callable(run(servers)["test_a_worker_books_the_trip"])


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

"""What goes wrong is one sentence on stderr and an exit code, and no password is in it."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest
import sqlalchemy as sa
from typer.testing import Result

from tests.integration.cli.conftest import SHOP, Command

#: One for each way to the database: the tables' own, a question, and an engine.
COMMANDS = [("migrate",), ("list",), ("start", "place-order", "--from", "-")]


@pytest.fixture
def environment() -> dict[str, str]:
    """No database, for most of what is wrong here is found without one."""
    return {"SAGAS_DATABASE_URL": "postgresql+psycopg://me:s3cr3t@127.0.0.1:1/shop", "SAGAS_MODULES": SHOP}


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
def test_a_wrong_password_is_one_sentence_without_it(
    sagas: Command, server_url: sa.URL, command: tuple[str, ...]
) -> None:
    wrong = server_url.set(password="s3cr3t-but-wrong").render_as_string(hide_password=False)

    result = sagas(*command, stdin=b'{"item": "tea"}', SAGAS_DATABASE_URL=wrong)

    (sentence,) = result.stderr.splitlines()
    assert sentence.startswith("error: the database at ")
    assert "password authentication failed" in sentence
    assert "s3cr3t" not in result.output
    assert result.exit_code == 1


@pytest.mark.parametrize(
    ("command", "rest"),
    [
        *((command, "p@xyzzy:rd@127.0.0.1/shop") for command in COMMANDS),
        *(
            (("list",), rest)
            for rest in ("p@xyzzy?a=b@127.0.0.1/shop", "xyzzy:5432/shop", "p@h\udcff/shop", "p@h..x/shop")
        ),
    ],
)
def test_a_database_url_that_cannot_be_read_is_one_sentence_without_it(
    sagas: Command, command: tuple[str, ...], rest: str
) -> None:
    result = sagas(*command, SAGAS_DATABASE_URL=f"postgresql+psycopg://me:{rest}")

    (sentence,) = result.stderr.splitlines()
    assert sentence.startswith("error: the database URL (SAGAS_DATABASE_URL) cannot be read: ")
    assert "xyzzy" not in result.output
    assert result.exit_code == 1


@pytest.mark.parametrize(
    ("command", "variable"),
    [*((command, "SAGAS_BROKER_URL") for command in COMMANDS), (("list",), "SAGAS_RESULT_BACKEND")],
)
def test_a_broker_url_that_cannot_be_read_is_one_sentence_without_it(
    sagas: Command, command: tuple[str, ...], variable: str
) -> None:
    result = sagas(*command, **{variable: "redis://:s3cr3t/x@h:2/0"})

    (sentence,) = result.stderr.splitlines()
    assert sentence.startswith(f"error: {variable}: it cannot be read: ")
    assert "s3cr3t" not in result.output
    assert result.exit_code == 1


def test_a_setting_that_cannot_work_is_one_sentence(sagas: Command) -> None:
    result = sagas("list", SAGAS_LEASE_SECONDS="soon")

    (sentence,) = result.stderr.splitlines()
    assert sentence.startswith("error: SAGAS_LEASE_SECONDS (it is 'soon'): ")
    assert result.exit_code == 1


def test_modules_that_cannot_be_imported_hinder_only_what_runs_their_sagas(sagas: Command, database_url: str) -> None:
    saga_id = "01890a5d-ac96-774b-bcce-b302099a8057"

    def run(*arguments: str) -> Result:
        return sagas(*arguments, SAGAS_DATABASE_URL=database_url, SAGAS_MODULES="no.such.module")

    recovered, shown = run("recover", "--yes", saga_id), run("show", saga_id)

    assert shown.stderr.startswith("error: no saga has the id")
    assert recovered.stderr.startswith("error: SAGAS_MODULES names 'no.such.module', which cannot be imported")
    assert recovered.exit_code == 1
    assert run("list").exit_code == 0


def test_what_the_database_refuses_is_one_sentence_in_its_own_words(sagas: Command, database_url: str) -> None:
    result = sagas("list", SAGAS_DATABASE_URL=f"{database_url}?options=-csearch_path%3Dnowhere&nosuch=1")

    assert result.stderr == (
        'error: the database refused what the command asked of it: invalid connection option "nosuch".\n'
    )
    assert result.exit_code == 1


def test_ctrl_c_exits_with_130_and_not_a_word(sagas: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> NoReturn:
        raise KeyboardInterrupt

    monkeypatch.setattr("sagas.cli.show.saga_ids_of", interrupt)

    result = sagas("show", "01890a5d-ac96-774b-bcce-b302099a8057")

    assert (result.exit_code, result.output) == (130, "")


@pytest.mark.parametrize(
    "command",
    [
        *(["list", f"--limit={limit}"] for limit in ("0", "many", "99999999999999999999")),
        ["list", "--newer-than=-1h"],
        ["scan", "--dry-run", "--limit=-1"],
        ["metrics", "--port=65536"],
        ["resolve", "x", "--as", "completed", "--reason", "x", "--wait=nan"],
        ["prune", "--older-than=3w"],
    ],
    ids=" ".join,
)
def test_a_number_that_is_out_of_range_is_a_usage_error_that_names_it(sagas: Command, command: list[str]) -> None:
    result = sagas(*command)

    *_, sentence = result.stderr.splitlines()
    assert sentence.startswith(f"Error: Invalid value for '{command[-1].partition('=')[0]}': ")
    assert result.exit_code == 2


@pytest.mark.parametrize("command", [["list", "--name", b"\xff"], ["show", b"a\xffb"]])
def test_what_is_no_text_is_one_sentence(
    spawn: Callable[..., subprocess.Popen[bytes]], command: list[str | bytes]
) -> None:
    process = spawn(*command)
    _, err = process.communicate()

    *_, sentence = err.decode().splitlines()
    assert "\\udcff" in sentence
    assert sentence.endswith("is not text in UTF-8: type it anew.")
    assert (b"Traceback" in err, process.returncode) == (False, 2)


def test_a_file_of_the_users_with_the_name_of_this_library_is_told(
    sagas: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, database_url: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sagas.py").write_text("from sagas import Saga")

    listed = sagas("list", SAGAS_DATABASE_URL=database_url)
    named = sagas("graph", "x", SAGAS_MODULES="sagas")

    warning = (
        f"warning: {tmp_path}/sagas.py has the name of this library, and one of the two hides the other: rename it."
    )
    assert listed.stderr == f"{warning}\nno sagas match.\n"
    assert named.stderr == (
        f"{warning}\nerror: SAGAS_MODULES names 'sagas', which is this library itself: rename your own module of that "
        f"name ({tmp_path}/sagas.py), and name it as it is then called.\n"
    )
    (tmp_path / "sagas.py").unlink()
    assert sagas("list", SAGAS_DATABASE_URL=database_url).stderr == "no sagas match.\n"


def test_an_unknown_command_is_a_usage_error(sagas: Command) -> None:
    assert sagas("revive").exit_code == 2


def test_the_help_tells_what_the_exit_codes_mean(sagas: Command) -> None:
    told = sagas("--help").stdout

    for line in (
        "0    done",
        "1    something was not done; a sentence on stderr says what, why, and what helps",
        "2    the command was typed wrong",
        "130  stopped by Ctrl-C",
    ):
        assert f"    {line}\n" in told


def test_the_version_is_printed(sagas: Command) -> None:
    result = sagas("--version")

    assert result.stdout.startswith("sagas")
    assert result.exit_code == 0

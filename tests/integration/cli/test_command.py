"""The command as a process: what a shell, a pipe and a signal see of it."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Callable
from typing import Any

import pytest

from sagas import PostgresSagaStorage
from sagas.storage.saga_filter import SagaFilter

Spawn = Callable[..., subprocess.Popen[bytes]]

DEADLINE_SECONDS = 120


def test_a_start_with_the_broker_down_tells_bad_lines_by_number_and_starts_the_others(
    spawn: Spawn, storage: PostgresSagaStorage
) -> None:
    lines = b'{"item": "tea"}\n\n{"item": 7}\n{"item": \n{"item": "tea", "price": NaN}\n\xff\n{"item": "milk"}'

    process = spawn("start", "place-order", "--from", "-")
    out, err = process.communicate(lines, timeout=DEADLINE_SECONDS)

    told = err.decode().splitlines()
    assert told[:4] == [
        "line 3: PlaceOrder: its context does not validate as Order (item: Input should be a valid string): "
        "run code whose context type fits, or correct the data.",
        "line 4: invalid JSON (EOF while parsing a value at column 8)",
        "line 5: invalid JSON (expected value at column 26)",
        "line 6: invalid JSON (expected value at column 1)",
    ]
    assert "Traceback" not in err.decode()
    assert out == b"started 2, known already 0, bad 4.\n"
    assert process.returncode == 1
    assert {json.loads(saga.context)["item"] for saga in storage.find(SagaFilter())} == {"tea", "milk"}


def test_a_broker_that_is_down_is_told_of_once_and_not_for_each_batch(spawn: Spawn) -> None:
    process = spawn("start", "place-order", "--from", "-")
    out, err = process.communicate(b'{"item": "tea"}\n' * 1500, timeout=DEADLINE_SECONDS)

    assert out == b"started 1500, known already 0, bad 0.\n"
    told = err.decode().splitlines()
    assert len(set(told)) == len(told)
    assert process.returncode == 0


def test_migrating_an_empty_database_prints_one_line_and_nothing_of_alembics(
    spawn: Spawn, empty_database_url: str
) -> None:
    process = spawn("migrate", SAGAS_DATABASE_URL=empty_database_url)

    assert process.communicate(timeout=DEADLINE_SECONDS) == (b"migrated from no version to 0007.\n", b"")
    assert process.returncode == 0


def test_no_server_is_one_sentence_without_the_password(spawn: Spawn) -> None:
    process = spawn("list", SAGAS_DATABASE_URL="postgresql+psycopg://me:s3cr3t@127.0.0.1:1/shop")
    out, err = process.communicate(timeout=DEADLINE_SECONDS)

    (sentence,) = err.decode().splitlines()
    assert sentence.startswith("error: the database at 127.0.0.1:1/shop did not answer (")
    assert "s3cr3t" not in sentence
    assert (out, process.returncode) == (b"", 1)


@pytest.mark.parametrize(("options", "first_line"), [((), b"ID "), (("--json",), b"[")], ids=["table", "json"])
def test_a_reader_that_leaves_early_is_not_complained_about(
    spawn: Spawn, sql: Callable[..., Any], options: tuple[str, ...], first_line: bytes
) -> None:
    # More than a pipe holds, so that the command still writes when nobody reads any more.
    sql(
        "INSERT INTO saga_executions (id, name, state, context) "
        "SELECT gen_random_uuid(), 'place-order', 'ready', '{}' FROM generate_series(1, 2000)"
    )

    # Buffered, as Python is unless told otherwise: only then does it notice that its last write was cut short.
    process = spawn("list", "--limit", "2000", *options, PYTHONUNBUFFERED="")
    assert process.stdout is not None
    assert process.stdout.readline().startswith(first_line)
    process.stdout.close()

    assert process.stderr is not None
    assert process.stderr.read() == b""
    assert process.wait(DEADLINE_SECONDS) == 1


def test_ctrl_c_ends_a_start_with_130_and_tells_how_far_it_came(spawn: Spawn) -> None:
    process = spawn("start", "place-order", "--from", "-")
    assert process.stdin is not None
    assert process.stderr is not None
    process.stdin.write(b"{\n")
    process.stdin.flush()
    assert process.stderr.readline().startswith(b"line 1: ")

    process.send_signal(signal.SIGINT)

    assert process.wait(DEADLINE_SECONDS) == 130
    assert process.stderr.read() == b""
    assert process.stdout is not None
    assert process.stdout.read() == b"started 0, known already 0, bad 1; stopped before anything was started.\n"


def test_a_terminal_set_to_ascii_still_shows_a_context_with_other_letters(
    spawn: Spawn, storage: PostgresSagaStorage, ordered: Callable[[str], object]
) -> None:
    process = spawn("show", str(ordered("Grüner Tee")), PYTHONIOENCODING="ascii")
    out, err = process.communicate(timeout=DEADLINE_SECONDS)

    assert b'"item": "Gr\\xfcner Tee"' in out
    assert (err, process.returncode) == (b"", 0)


def test_the_command_knows_no_celery_until_it_needs_an_engine(spawn: Spawn) -> None:
    process = spawn("list", SAGAS_MODULES="no.such.module", PYTHONPROFILEIMPORTTIME="1")
    _, err = process.communicate(timeout=DEADLINE_SECONDS)

    assert process.returncode == 0
    assert b" typer\n" in err
    assert b" celery\n" not in err

"""`sagas doctor` as an operator reads it; what each check finds is tested beside the checks."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable

import pytest

from sagas.doctor import checks
from tests.integration.cli.conftest import Command

Spawn = Callable[..., subprocess.Popen[bytes]]
DEADLINE_SECONDS = 60


def test_with_nothing_up_each_check_has_its_line_and_each_finding_its_reason_and_cure(spawn: Spawn) -> None:
    process = spawn("doctor", SAGAS_DATABASE_URL="postgresql+psycopg://me:s3cr3t@127.0.0.1:1/shop")
    out, err = process.communicate(timeout=DEADLINE_SECONDS)

    lines = out.decode().splitlines()
    assert lines[0] == "ok       settings"
    down = lines.index("problem  database")
    assert lines[down + 1].startswith("    database-down: the database at 127.0.0.1:1/shop does not answer: ")
    assert lines[down + 2].startswith("      why:  No saga is started or recovered, and workers wait. ")
    assert lines[down + 3].startswith("      cure: Check that PostgreSQL runs at 127.0.0.1:1/shop, ")
    assert lines[down + 4] == "skipped  schema         skipped because of database"
    assert "ok       code           1 saga in shop" in lines
    assert "problem  broker" in lines
    assert "skipped  workers        skipped because of broker" in lines
    assert lines[-1] == "2 problems, 0 warnings."
    assert b"s3cr3t" not in out
    assert (err, process.returncode) == (b"", 1)


def test_a_command_line_that_cannot_be_understood_ends_with_2(sagas: Command) -> None:
    assert sagas("doctor", "--loudly").exit_code == 2


def test_without_the_celery_side_installed_that_is_told_and_the_rest_is_looked_at(
    sagas: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checks, "entry_points", lambda group: ())
    done = sagas("doctor", "--json")

    said = json.loads(done.stdout)
    told = {check["name"]: [finding["id"] for finding in check["findings"]] for check in said["checks"]}
    assert told["celery"] == ["celery-unusable"]
    assert told["definitions"] == []
    assert done.exit_code == 1


def test_what_is_stored_cannot_drive_the_terminal(
    sagas: Command, monkeypatch: pytest.MonkeyPatch, ordered: Callable[[str], object]
) -> None:
    monkeypatch.setattr(checks, "entry_points", lambda group: ())
    ordered("stuck")

    told = sagas("doctor").stdout
    assert "sagas-dead: 1 saga named 'place-order' is dead, such as " in told
    assert "[bold]jammed[/bold] and smokes" in told
    assert "\x1b" not in told

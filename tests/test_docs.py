"""What the documentation says is so: its code runs, its commands exist, its tables agree with the code."""

from __future__ import annotations

import inspect
import os
import pkgutil
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest
import tornado.options
import typer.main
from celery.bin.celery import celery as celery_command

from sagas import ISagaStorage, SagaStatus, Settings, SqlAlchemySagaStorage, execution
from sagas.cli.app import app as sagas_app
from sagas.context import MAX_CONTEXT_BYTES
from sagas.ids import new_saga_id
from sagas.settings import PREFIX
from sagas.storage import sqlalchemy as sqlalchemy_storage
from sagas.storage.base import NewSaga, SagaFilter
from sagas.storage.tables import metadata
from sagas.testing.processes import CeleryProcess, wait_until
from tasks import saga_tasks, worker

celery_app = saga_tasks.app
REPOSITORY = Path(__file__).parent.parent
README = REPOSITORY / "README.md"
DOCS = REPOSITORY / "docs"
RECOVERY = DOCS / "recovery.md"
STORAGE = DOCS / "storage.md"
CHANGING = DOCS / "changing-sagas.md"
DOCUMENTS = [README, REPOSITORY / "CHANGELOG.md", *sorted(DOCS.glob("*.md"))]
GUARANTEE = (
    "every step runs at least once; at most one worker's result is kept; "
    "the same idempotency key accompanies every attempt."
)
DEADLINE_SECONDS = 30
#: Files that the documentation tells the reader to make.
READERS_OWN = {"place_order.py", "orders.jsonl", ".env", "modules/"}
UNITS = {
    "database_url": "URL",
    "broker_url": "URL",
    "result_backend": "URL",
    "modules": "names",
    "resolver": "name",
    "scan_limit": "sagas",
    "max_recovery_attempts": "attempts",
}

every_document = pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)


@dataclass(frozen=True)
class Block:
    """A fenced block of a document."""

    language: str
    text: str
    line: int


def blocks(document: Path, language: str) -> list[Block]:
    """The fenced blocks of this language, in order."""
    text = document.read_text()
    found = re.finditer(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    every = [Block(match[1], match[2], text[: match.start()].count("\n") + 2) for match in found]
    return [block for block in every if block.language == language]


def settings_table() -> str:
    """The README's table, as the code has it."""
    rows = []
    for name, field in Settings.model_fields.items():
        unit = UNITS.get(name) or name.rpartition("_")[2]
        rows.append(f"| `{PREFIX}{name.upper()}` | {_default(field.default)} | {unit} | {field.description} |")
    return "\n".join(["| Variable | Default | Unit | What it is for |", "|---|---|---|---|", *rows])


def _default(value: Any) -> str:
    if value in (None, ()):
        return "none"
    return f"`{value:g}`" if isinstance(value, float) else f"`{value}`"


# -- code -------------------------------------------------------------------------------------------------------------


@every_document
def test_python_code_compiles(document: Path) -> None:
    for block in blocks(document, "python"):
        compile(block.text, f"{document.name}:{block.line}", "exec")


def test_the_saga_in_the_readme_does_what_the_readme_says(tmp_path: Path) -> None:
    saga, expected = blocks(README, "python")[0], blocks(README, "text")[0]

    done = _run(saga.text, tmp_path, {})

    assert done.stdout == expected.text, done.stderr
    assert len(saga.text.splitlines()) <= 35, "it is announced as one of 30 lines"


def test_the_commands_in_the_readme_bring_the_saga_to_its_end(
    tmp_path: Path, empty_database_url: str, broker_url: str
) -> None:
    saga, start, transaction = blocks(README, "python")
    (tmp_path / "place_order.py").write_text(saga.text)
    settings = _exported(tmp_path) | {"SAGAS_DATABASE_URL": empty_database_url, "SAGAS_BROKER_URL": broker_url}
    assert list(settings) == ["SAGAS_DATABASE_URL", "SAGAS_BROKER_URL", "SAGAS_MODULES", "PYTHONPATH"]

    migrated = _run("from sagas.cli import main; main()", tmp_path, settings, "migrate")
    assert migrated.returncode == 0, migrated.stderr
    arguments = ["worker", "-c", "1"]
    with CeleryProcess(arguments, environment=settings, log=tmp_path / "log", directory=tmp_path) as process:
        # Twice with the same key: it starts nothing new.
        done = _run(start.text + start.text + transaction.text, tmp_path, settings)
        assert done.returncode == 0, done.stderr

        storage = SqlAlchemySagaStorage(empty_database_url)
        wait_until(
            lambda: all(record.status.finished for record in storage.find(SagaFilter())),
            timeout_seconds=DEADLINE_SECONDS,
            what="the end of the sagas",
        )
        process.kill()  # an orderly stop would take longer than all of this
    ended = [(record.idempotency_key, record.status) for record in storage.find(SagaFilter())]
    storage.close()
    assert ended == [("order-1002", SagaStatus.COMPENSATED), ("order-1001", SagaStatus.COMPENSATED)]


def test_the_recovery_loop_in_the_docs_recovers(
    tmp_path: Path, database_url: str, storage: SqlAlchemySagaStorage
) -> None:
    (tmp_path / "place_order.py").write_text(blocks(README, "python")[0].text)
    (loop,) = blocks(RECOVERY, "python")
    # Due by itself, and touched a moment ago: only the staleness is not met.
    new = NewSaga(id=new_saga_id(), name="place-order", context='{"item": "lamp", "cents": 2990}')
    storage.create_sagas([new], owner="a-worker-that-died", for_seconds=0)

    code = loop.text.replace("stale_after_seconds=60", "stale_after_seconds=0")
    done = _run(code, tmp_path, {"SAGAS_DATABASE_URL": database_url, "SAGAS_MODULES": "place_order"})

    assert f"{new.id} compensated the saga is COMPENSATED." in done.stdout, done.stderr
    assert storage.load(new.id).status is SagaStatus.COMPENSATED


def test_the_code_about_storages_runs(tmp_path: Path) -> None:
    done = _run("".join(block.text for block in blocks(STORAGE, "python")), tmp_path, {})
    assert done.returncode == 0, done.stderr


def test_the_code_about_changes_does_what_is_shown_below_it(tmp_path: Path) -> None:
    done = _run("".join(block.text for block in blocks(CHANGING, "python")), tmp_path, {})

    assert done.returncode == 0, done.stderr
    assert done.stdout == "".join(block.text for block in blocks(CHANGING, "text"))


def test_the_query_about_changes_counts_unfinished_sagas_by_version(storage: SqlAlchemySagaStorage) -> None:
    versions = {"1.abcd": 2, "2.abcd": 1, "": 1}
    new = [
        NewSaga(id=new_saga_id(), name="place-order", context="{}", definition_version=version)
        for version, count in versions.items()
        for _ in range(count)
    ]
    storage.create_sagas(new, owner=None)
    (query,) = blocks(CHANGING, "sql")

    with storage._connections.cursor() as cursor:
        rows = cursor.execute(query.text).fetchall()

    assert sorted(tuple(row.values()) for row in rows) == [
        ("place-order", "", 1),
        ("place-order", "1", 2),
        ("place-order", "2", 1),
    ]


def _exported(directory: Path) -> dict[str, str]:
    """The variables that the README's commands export, given in this directory."""
    lines = [words[1:] for words in _commands(README) if words[0] == "export"]
    given = dict(assignment.split("=", 1) for line in lines for assignment in line)
    return {name: value.replace("$PWD", str(directory)) for name, value in given.items()}


def _run(code: str, directory: Path, settings: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env={**inherited, "PYTHONPATH": str(directory), **settings},
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=DEADLINE_SECONDS,
        check=False,
    )


# -- tables -----------------------------------------------------------------------------------------------------------


def test_the_settings_table_is_what_the_code_has() -> None:
    shown = re.search(r"<!-- settings: .*?-->\n(.*?)\n<!-- end of settings -->", README.read_text(), re.DOTALL)
    assert shown is not None
    assert shown[1] == settings_table()


def test_every_setting_named_is_one_that_is_read() -> None:
    known = {PREFIX + name.upper() for name in Settings.model_fields}
    for document in DOCUMENTS:
        named = set(re.findall(r"\bSAGAS_[A-Z_]*[A-Z]", document.read_text()))
        assert named <= known, document.name


def test_the_timing_table_is_what_the_code_has() -> None:
    shortest_decline, longest_decline = execution._DECLINE_SECONDS
    settings = Settings()
    seconds = {
        "a lease": settings.lease_seconds,
        "between renewals": settings.lease_seconds / 3,
        "between scans": settings.scan_interval_seconds,
        "before the mark of a message is doubted": execution.MARK_SECONDS,
        "before a saga whose message is missing is sent again": sqlalchemy_storage._IN_HAND_SECONDS,
        "between a worker's looks at its children": worker._LOOK_SECONDS,
        "the longest retry that is waited for in place": execution.IN_PLACE_SECONDS,
        "backoff after the first failed attempt": settings.backoff_seconds,
        "the longest backoff": settings.max_backoff_seconds,
        "the shortest wait after a decline": shortest_decline,
        "the longest wait after a decline": longest_decline,
    }
    shown = {row[0]: float(row[1]) for row in _table(RECOVERY, "what", "seconds", "set by")}
    assert shown == seconds


def test_the_outcomes_are_those_that_the_code_has() -> None:
    told = re.search(r"outcome: (.*?)\.", execution.Report.__doc__ or "", re.DOTALL)
    assert told is not None
    shown = [row[0].strip("`") for row in _table(RECOVERY, "outcome", "meaning")]
    assert shown == re.split(r", | or ", told[1])


def test_the_numbers_in_the_prose_are_the_codes() -> None:
    text = " ".join(README.read_text().split())
    assert f"up to {MAX_CONTEXT_BYTES // 2**20} MB" in text
    assert f"holds it for {Settings().lease_seconds:g} seconds at a time" in text
    assert f"costs its lease time**, up to {Settings().lease_seconds:g} seconds" in text
    assert f"SIGQUIT gives it {celery_app.conf.worker_soft_shutdown_timeout} seconds" in text


@pytest.mark.parametrize(
    ("table", "header"),
    [("saga_executions", "| `id` | `uuid` |"), ("saga_logs", "| `id` | `bigint` |")],
    ids=["saga_executions", "saga_logs"],
)
def test_the_columns_are_those_of_the_tables(table: str, header: str) -> None:
    rows = STORAGE.read_text().partition(header)[2].partition("\n\n")[0]
    shown = ["id", *re.findall(r"^\| `(\w+)` \|", rows, re.MULTILINE)]
    assert shown == [column.name for column in metadata.tables[table].columns]


def test_every_index_is_explained() -> None:
    text = STORAGE.read_text()
    for table in metadata.tables.values():
        for index in table.indexes:
            assert f"`{index.name}`" in text


def test_every_method_of_the_contract_is_described_with_its_signature() -> None:
    shown = re.findall(r"^#### `(\w+)\((.*)\)`$", STORAGE.read_text(), re.MULTILINE)
    contract = []
    for name in vars(ISagaStorage):
        if name in ISagaStorage.__abstractmethods__:
            signature = inspect.signature(getattr(ISagaStorage, name))
            parameters = [p.replace(annotation=p.empty) for p in signature.parameters.values() if p.name != "self"]
            contract.append((name, str(inspect.Signature(parameters)).strip("()")))
    assert shown == contract


def _table(document: Path, *header: str) -> Iterator[list[str]]:
    rows = document.read_text().partition(f"| {' | '.join(header)} |\n")[2].partition("\n\n")[0]
    for row in rows.splitlines()[1:]:
        yield [cell.strip() for cell in row.strip("|").split("|")]


# -- words ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("document", [README, RECOVERY], ids=lambda path: path.name)
def test_the_guarantee_is_given_in_its_own_words(document: Path) -> None:
    assert GUARANTEE in " ".join(document.read_text().replace("\n> ", "\n").split())


def test_the_statuses_are_the_codes_own() -> None:
    diagram = blocks(RECOVERY, "mermaid")[0].text
    assert {str(status) for status in SagaStatus} == set(re.findall(r"\b[A-Z]{6,}\b", diagram))


@every_document
def test_the_documentation_is_for_users(document: Path) -> None:
    assert not re.search(r"/home/|/tmp/|localhost:\d+/simple|TODO|FIXME", document.read_text())


@every_document
def test_every_relative_link_leads_somewhere(document: Path) -> None:
    text = re.sub(r"```.*?```", "", document.read_text(), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith("https://"):
            continue
        path, _, anchor = target.partition("#")
        file = (document.parent / path) if path else document
        assert file.exists(), target
        if anchor:
            assert anchor in _anchors(file), target


@every_document
def test_every_file_named_exists(document: Path) -> None:
    for name in re.findall(r"`([\w./-]+(?:\.(?:py|md|yml|toml|txt|jsonl)|/))`", document.read_text()):
        assert name in READERS_OWN or (REPOSITORY / name).exists(), name


@every_document
def test_every_task_queue_and_module_named_exists(document: Path) -> None:
    for name in re.findall(r"`(sagas(?:\.\w+)+)`", document.read_text()):
        if name not in celery_app.tasks and name not in {queue.name for queue in celery_app.conf.task_queues}:
            pkgutil.resolve_name(name)


def _anchors(document: Path) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", document.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


# -- commands ---------------------------------------------------------------------------------------------------------


@every_document
def test_every_command_exists(document: Path) -> None:
    for command in _commands(document):
        check_command(command)


def test_commands_are_found_in_the_documentation() -> None:
    assert {words[0] for words in _commands(README)} >= {"make", "pip", "sagas", "celery", "docker", "curl"}


def check_command(words: list[str]) -> None:
    """Make sure that this command line is one that the installed programs understand."""
    match words:
        case ["sagas", "--install-completion"]:
            assert sagas_app._add_completion
        case ["sagas", name, *arguments]:
            commands = typer.main.get_command(sagas_app).commands  # type: ignore[attr-defined]
            assert name in commands, words
            _check_options(commands[name], arguments)
        case ["celery", "-A", "tasks", "flower", *arguments]:
            assert "flower" in {entry_point.name for entry_point in entry_points(group="celery.commands")}
            __import__("flower.options")
            for option in _options(arguments):
                assert option.removeprefix("--") in tornado.options.options, words
        case ["celery", "-A", "tasks", name, *arguments]:
            assert name in celery_command.commands, words
            _check_options(celery_command.commands[name], arguments)
            if name == "call":
                assert arguments[0] in celery_app.tasks, words
        case ["make", target, *_]:
            targets = re.findall(r"^([\w-]+):", (REPOSITORY / "Makefile").read_text(), re.MULTILINE)
            assert target in targets, words
        case ["pip", "install", what]:
            project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
            extras = re.findall(r"\[(.*)\]", what)
            assert set(extras) <= set(project["optional-dependencies"]), words
        case ["docker" | "curl" | "export", *_] | ["celery", "-A", "tasks"]:
            pass
        case _:
            pytest.fail(f"nothing here knows the command {shlex.join(words)!r}")


def _check_options(command: Any, arguments: list[str]) -> None:
    known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
    for option in _options(arguments):
        assert option in known, f"{command.name} has no option {option}"


def _options(arguments: list[str]) -> list[str]:
    return [argument.partition("=")[0] for argument in arguments if argument.startswith("-")]


def _commands(document: Path) -> Iterator[list[str]]:
    for block in blocks(document, "console"):
        for line in block.text.replace("\\\n", " ").splitlines():
            if line.startswith("$ "):
                yield shlex.split(line[2:], comments=True)
    prose = re.sub(r"^```.*?^```$", "", document.read_text(), flags=re.MULTILINE | re.DOTALL)
    for code in re.findall(r"`((?:sagas|celery|make) [^`]+)`", prose):
        yield shlex.split(code.removesuffix("..."))

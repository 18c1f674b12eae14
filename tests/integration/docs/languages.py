"""How a block of each language is checked, where its page has no story of its own in stories.py."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable, Sequence
from configparser import ConfigParser
from itertools import pairwise

import mermaidx
import psycopg
import pytest
import yaml
from psycopg.rows import tuple_row

from tests.integration.docs.commands import check_command, commands_of
from tests.integration.docs.pages import Block, Page
from tests.integration.docs.reader import Reader


def check_python(page: Page, reader: Reader, **settings: str) -> None:
    """Run a page's Python blocks, one after the other; a block of text right below one is what that one says."""
    expected = {id(above): below for above, below in pairwise(page.unchecked) if below.language == "text"}
    played = page.take("python")
    said = reader.play(played, **settings) if played else []
    for block, words in zip(played, said, strict=True):
        shown = expected.get(id(block))
        assert words.rstrip("\n") == ("" if shown is None else shown.text.rstrip("\n")), f"{block.place} says:\n{words}"
        page.unchecked = [other for other in page.unchecked if other is not shown]


def _console(block: Block, reader: Reader) -> None:
    for line in block.text.replace("\\\n", "").splitlines():
        assert line.startswith("$ "), f"{block.place}: nothing compares what a command prints: {line!r}"
    for command in commands_of(block):
        check_command(command)


def _sql(block: Block, reader: Reader) -> None:
    run_sql(block, reader)


def run_sql(block: Block, reader: Reader, *before: str) -> list[tuple[object, ...]]:
    """Run the statements in a transaction that is undone, after others; return the rows of the last, if it has any."""
    url = reader.database_url.replace("+psycopg", "")
    with psycopg.connect(url, row_factory=tuple_row) as connection:
        for statement in before:
            connection.execute(statement.encode())
        ran = connection.execute(block.text.encode())
        while ran.nextset():
            pass
        rows = ran.fetchall() if ran.description else []
        connection.rollback()
    return rows


def _mermaid(block: Block, reader: Reader) -> None:
    assert "</svg>" in mermaidx.render(block.text).svg(), block.place


def _ini(block: Block, reader: Reader) -> None:
    parser = ConfigParser(interpolation=None, delimiters=("=",))
    parser.read_string(block.text)
    # The suite runs sagas through a real PgBouncer that is set up so (tests/pgbouncer.py).
    assert "pgbouncer" in parser, f"{block.place}: whose settings are these? Only PgBouncer's are checked"


def _yaml(block: Block, reader: Reader) -> None:
    assert isinstance(yaml.safe_load(block.text), dict | list), block.place


def _toml(block: Block, reader: Reader) -> None:
    tomllib.loads(block.text)


def _json(block: Block, reader: Reader) -> None:
    json.loads(block.text)


#: A block of any other language fails the test, so that nobody adds one that nothing checks.
CHECKS: dict[str, Callable[[Block, Reader], None]] = {
    "console": _console,
    "ini": _ini,
    "json": _json,
    "mermaid": _mermaid,
    "sql": _sql,
    "toml": _toml,
    "yaml": _yaml,
}


def check_rest(blocks: Sequence[Block], reader: Reader) -> None:
    """Check each block by its language."""
    for block in blocks:
        if (check := CHECKS.get(block.language)) is None:
            pytest.fail(
                f"{block.place}: nothing checks a block of {block.language or 'no language'!r} here: "
                "a block of text stands right below the Python that prints it; else see tests/integration/docs"
            )
        check(block, reader)

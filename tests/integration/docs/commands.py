"""Whether a command line that the documentation shows is one that the installed programs understand."""

from __future__ import annotations

import re
import shlex
import tomllib
from collections.abc import Iterator
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import tornado.options
import typer.main
from celery.bin.celery import celery as celery_command
from flower.urls import handlers

from sagas.celery import app as celery_app
from sagas.cli.app import app as sagas_app
from tests.integration.docs.pages import REPOSITORY, Block, blocks, prose


def commands_of(block: Block) -> Iterator[list[str]]:
    """The command lines of a console block: its lines that begin with `$ `, and those that continue them."""
    for line in block.text.replace("\\\n", "").splitlines():
        if line.startswith("$ "):
            yield shlex.split(line[2:], comments=True)


def commands_in(document: Path) -> Iterator[list[str]]:
    """The command lines of a document, in its blocks and in its sentences."""
    for block in blocks(document, "console"):
        yield from commands_of(block)
    for code in re.findall(r"`((?:sagas|celery|make) [^`]+)`", prose(document)):
        yield shlex.split(code.removesuffix("..."))


@cache
def _sagas_commands() -> dict[str, Any]:
    return typer.main.get_command(sagas_app).commands  # type: ignore[attr-defined,no-any-return]


def check_command(words: list[str]) -> None:
    """Make sure that this command line is one that the installed programs understand."""
    match words:
        case ["sagas", "--install-completion"]:
            assert sagas_app._add_completion
        case ["python", "manage.py", "migrate"]:
            pass
        case ["python", "manage.py", "sagas", *arguments]:
            check_command(["sagas", *arguments])
        case ["sagas", name, *arguments]:
            commands = _sagas_commands()
            assert name in commands, words
            _check_options(commands[name], arguments)
        case ["celery", "-A", _, "flower", *arguments]:
            assert "flower" in {entry_point.name for entry_point in entry_points(group="celery.commands")}
            __import__("flower.options")
            for option in _options(arguments):
                assert option.removeprefix("--") in tornado.options.options, words
        case ["celery", "-A", _, name, *arguments]:
            assert name in celery_command.commands, words
            _check_options(celery_command.commands[name], arguments)
            if name == "call":
                assert arguments[0] in celery_app.tasks, words
        case ["celery", name]:
            assert name in celery_command.commands, words
        case ["make", target, *_]:
            targets = re.findall(r"^([\w-]+):", (REPOSITORY / "Makefile").read_text(), re.MULTILINE)
            assert target in targets, words
        case ["pip", "install", what]:
            project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
            extras = re.findall(r"\[(.*)\]", what)
            assert set(extras) <= set(project["optional-dependencies"]), words
        case ["python", file]:
            assert file == "place_order.py", words
        case ["curl", *arguments]:
            (url,) = [argument for argument in arguments if argument.startswith("http")]
            # The links of docs/callbacks.md have a story, which sends these requests.
            if urlsplit(url).hostname != "shop.example":
                _check_flower(urlsplit(url).path)
        case (
            ["docker", "compose", *_]
            | ["docker", "build", *_]
            | ["export" | "unset", *_]
            | [".", ".sagas/env"]
            | ["celery", "-A", _]
        ):
            pass
        case _:
            pytest.fail(f"nothing here knows the command {shlex.join(words)!r}")


def _check_flower(path: str) -> None:
    patterns = [handler[0] if isinstance(handler, tuple) else handler.matcher.regex.pattern for handler in handlers]
    patterns.remove(r".*")  # the page that says that there is none
    assert any(re.fullmatch(pattern, path) for pattern in patterns), f"Flower has no {path}"
    if task := re.search(r"/(sagas\.\w+)$", path):
        assert task[1] in celery_app.tasks, path


def _check_options(command: Any, arguments: list[str]) -> None:
    known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
    for option in _options(arguments):
        assert option in known, f"{command.name} has no option {option}"


def _options(arguments: list[str]) -> list[str]:
    return [argument.partition("=")[0] for argument in arguments if argument.startswith("-")]

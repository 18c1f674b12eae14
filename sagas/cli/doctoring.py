"""`sagas doctor`: prints a line for each check, and below it each finding with its reason and its cure."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from typing import Any, Final

import typer
from rich.text import Text

from sagas.cli.words import console, fitted, one_line, terminal_width
from sagas.doctor import OK, PROBLEM, SKIPPED, WARNING, Finding, Installation, Result, examine

_STYLES: Final = {OK: "green", WARNING: "yellow", PROBLEM: "bold red", SKIPPED: "dim"}
_STATE_WIDTH: Final = max(map(len, _STYLES)) + 2
_NAME_WIDTH: Final = 15


def examine_installation(environment: Mapping[str, str], *, as_json: bool) -> bool:
    """Examine the installation that the environment describes, and print the results.

    Returns:
        False if there is a problem; warnings alone do not count.
    """
    results = examine(Installation(environment))
    every = list(results if as_json else _printed(results))
    count = Counter(finding.severity for result in every for finding in result.findings)
    if as_json:
        typer.echo(json.dumps(_as_json(every, count), indent=2))
    else:
        typer.echo(f"{_number(count, PROBLEM)}, {_number(count, WARNING)}.")
    return not count[PROBLEM]


def _printed(results: Iterable[Result]) -> Iterator[Result]:
    """Print each result as soon as it is known, because some checks take seconds."""
    out, width = console(), terminal_width()
    for result in results:
        out.print(fitted(_line(result), width, indent=_STATE_WIDTH + _NAME_WIDTH))
        for finding in result.findings:
            for line in _lines(finding):
                out.print(fitted(line, width, indent=12))
        yield result


def _line(result: Result) -> Text:
    line = Text(f"{result.state:<{_STATE_WIDTH}}", style=_STYLES[result.state])
    line.append(f"{result.name:<{_NAME_WIDTH}}", style="bold")
    if result.because is not None:
        line.append(f"skipped because of {result.because}")
    line.append(one_line("; ".join(result.facts)))
    line.rstrip()
    return line


def _lines(finding: Finding) -> Iterator[Text]:
    yield Text.assemble("    ", (finding.id, _STYLES[finding.severity]), f": {one_line(finding.what)}")
    yield Text.assemble(("      why:  ", "bold"), one_line(finding.why))
    yield Text.assemble(("      cure: ", "bold"), one_line(finding.cure))


def _number(count: Counter[str], severity: str) -> str:
    return f"{count[severity]} {severity}{'' if count[severity] == 1 else 's'}"


def _as_json(results: Iterable[Result], count: Counter[str]) -> dict[str, Any]:
    return {
        "problems": count[PROBLEM],
        "warnings": count[WARNING],
        "checks": [{"state": result.state, **asdict(result)} for result in results],
    }

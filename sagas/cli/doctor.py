"""`sagas doctor`: a line for each check, and below it each finding with its reason and its cure."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from typing import Final

import typer
from rich.text import Text

from sagas.cli.render import count_of, fitted, out
from sagas.cli.serialize import AsJson, print_json
from sagas.doctor import OK, PROBLEM, SKIPPED, WARNING, Finding, Installation, Result, examine
from sagas.text import one_line

_STYLES: Final = {OK: "green", WARNING: "yellow", PROBLEM: "bold red", SKIPPED: "dim"}
_STATE_WIDTH: Final = max(map(len, _STYLES)) + 2
_NAME_WIDTH: Final = 15


def doctor(as_json: AsJson = False) -> None:
    """Check this installation: say what is wrong, why it matters, and what to do.

    Changes nothing. The exit code is 0 without a problem (also with warnings), 1 with at least one, and 2 for a command
    line that cannot be understood.
    """
    results = examine(Installation(os.environ))
    every = list(results if as_json else _printed(results))
    count = Counter(finding.severity for result in every for finding in result.findings)
    if as_json:
        print_json(
            {
                "problems": count[PROBLEM],
                "warnings": count[WARNING],
                "checks": [{"state": result.state, **asdict(result)} for result in every],
            }
        )
    else:
        typer.echo(f"{count_of(count[PROBLEM], 'problem')}, {count_of(count[WARNING], 'warning')}.")
    if count[PROBLEM]:
        raise typer.Exit(1)


def _printed(results: Iterable[Result]) -> Iterator[Result]:
    """Print each result as soon as it is known, because some checks take seconds."""
    for result in results:
        out(fitted(_line(result), indent=_STATE_WIDTH + _NAME_WIDTH))
        for finding in result.findings:
            for line in _lines(finding):
                out(fitted(line, indent=12))
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

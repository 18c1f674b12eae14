"""`sagas doctor`: a line for each check, and below it each finding with its reason and its cure."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from typing import Any, Final

import typer
from rich.text import Text

from sagas.cli.render import count_of, fitted, one_line, out
from sagas.cli.serialize import AsJson
from sagas.doctor import Examined, Finding, Installation, Severity, State, examine

_STYLES: Final = {State.OK: "green", State.WARNING: "yellow", State.PROBLEM: "bold red", State.SKIPPED: "dim"}
_STATE_WIDTH: Final = max(map(len, State)) + 2
_NAME_WIDTH: Final = 15


def doctor(as_json: AsJson = False) -> None:
    """Tell what is wrong with this installation, why it matters, and what cures it.

    Changes nothing. The exit code is 0 if there is no problem, also with warnings, and 1 if there is one; 2 is for a
    command line that cannot be understood.
    """
    examined = examine(Installation(os.environ))
    every = list(examined if as_json else _printed(examined))
    count = Counter(finding.severity for each in every for finding in each.findings)
    problems = count[Severity.PROBLEM]
    if as_json:
        typer.echo(json.dumps(_as_json(every, count), indent=2))
    else:
        typer.echo(f"{count_of(problems, 'problem')}, {count_of(count[Severity.WARNING], 'warning')}.")
    if problems:
        raise typer.Exit(1)


def _printed(every: Iterable[Examined]) -> Iterator[Examined]:
    """Print each as soon as it is known: some take seconds."""
    for examined in every:
        out(fitted(_line(examined), indent=_STATE_WIDTH + _NAME_WIDTH))
        for finding in examined.findings:
            for line in _told(finding):
                out(fitted(line, indent=12))
        yield examined


def _line(examined: Examined) -> Text:
    line = Text(f"{examined.state:<{_STATE_WIDTH}}", style=_STYLES[examined.state])
    line.append(f"{examined.name:<{_NAME_WIDTH}}", style="bold")
    if examined.because is not None:
        line.append(f"it makes no sense without {examined.because}")
    line.append(one_line("; ".join(examined.facts)))
    line.rstrip()
    return line


def _told(finding: Finding) -> Iterator[Text]:
    yield Text.assemble("    ", (finding.id, _STYLES[State(finding.severity)]), f": {one_line(finding.what)}")
    yield Text.assemble(("      why:  ", "bold"), one_line(finding.why))
    yield Text.assemble(("      cure: ", "bold"), one_line(finding.cure))


def _as_json(every: Iterable[Examined], count: Counter[Severity]) -> dict[str, Any]:
    return {
        "problems": count[Severity.PROBLEM],
        "warnings": count[Severity.WARNING],
        "checks": [{"state": str(examined.state), **asdict(examined)} for examined in every],
    }

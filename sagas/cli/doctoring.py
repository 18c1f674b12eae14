"""What `sagas doctor` prints: a line for each check, and below it each finding with its reason and its cure."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from typing import Any, Final

import typer
from rich.text import Text

from sagas.cli.words import console, one_line
from sagas.doctor import Examined, Finding, Installation, Severity, State, examine

_STYLES: Final = {State.OK: "green", State.WARNING: "yellow", State.PROBLEM: "bold red", State.SKIPPED: "dim"}
_STATE_WIDTH: Final = max(map(len, State)) + 2
_NAME_WIDTH: Final = 15


def examine_installation(environment: Mapping[str, str], *, as_json: bool) -> bool:
    """Examine the installation that the environment describes, print what is found, and return whether it may go on so.

    Returns:
        False if there is a problem; warnings alone do not count.
    """
    examined = examine(Installation(environment))
    every = list(examined if as_json else _printed(examined))
    count = Counter(finding.severity for each in every for finding in each.findings)
    if as_json:
        typer.echo(json.dumps(_as_json(every, count), indent=2))
    else:
        typer.echo(f"{_number(count, Severity.PROBLEM)}, {_number(count, Severity.WARNING)}.")
    return not count[Severity.PROBLEM]


def _printed(every: Iterable[Examined]) -> Iterator[Examined]:
    """Print each as soon as it is known: some take seconds."""
    out = console()
    for examined in every:
        out.print(_line(examined))
        for finding in examined.findings:
            out.print(_told(finding))
        yield examined


def _line(examined: Examined) -> Text:
    line = Text(f"{examined.state:<{_STATE_WIDTH}}", style=_STYLES[examined.state])
    line.append(f"{examined.name:<{_NAME_WIDTH}}", style="bold")
    if examined.because is not None:
        line.append(f"it makes no sense without {examined.because}")
    line.append(one_line("; ".join(examined.facts)))
    line.rstrip()
    return line


def _told(finding: Finding) -> Text:
    told = Text("    ")
    told.append(finding.id, style=_STYLES[State(finding.severity)]).append(f": {one_line(finding.what)}")
    told.append("\n      why:  ", style="bold").append(one_line(finding.why))
    told.append("\n      cure: ", style="bold").append(one_line(finding.cure))
    return told


def _number(count: Counter[Severity], severity: Severity) -> str:
    return f"{count[severity]} {severity}{'' if count[severity] == 1 else 's'}"


def _as_json(every: Iterable[Examined], count: Counter[Severity]) -> dict[str, Any]:
    return {
        "problems": count[Severity.PROBLEM],
        "warnings": count[Severity.WARNING],
        "checks": [{"state": str(examined.state), **asdict(examined)} for examined in every],
    }

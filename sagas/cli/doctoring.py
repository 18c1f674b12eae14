"""What `sagas doctor` prints: a line for each check, and below it each finding with its reason and its cure."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from typing import Any, Final

import typer
from rich.text import Text

from sagas.cli.words import console, fitted, one_line, terminal_width
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
    out, width = console(), terminal_width()
    for examined in every:
        out.print(fitted(_line(examined), width, indent=_STATE_WIDTH + _NAME_WIDTH))
        for finding in examined.findings:
            for line in _told(finding):
                out.print(fitted(line, width, indent=12))
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


def _number(count: Counter[Severity], severity: Severity) -> str:
    return f"{count[severity]} {severity}{'' if count[severity] == 1 else 's'}"


def _as_json(every: Iterable[Examined], count: Counter[Severity]) -> dict[str, Any]:
    return {
        "problems": count[Severity.PROBLEM],
        "warnings": count[Severity.WARNING],
        "checks": [{"state": str(examined.state), **asdict(examined)} for examined in every],
    }

"""Results as rows: a figure, the figure to compare with, and whether the goal is met."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rich.table import Table


@dataclass(frozen=True, kw_only=True)
class Row:
    """One ratio, measured in one run on one machine.

    Attributes:
        name: name of the measurement.
        measured: our figure, in `unit`.
        against: the limit, the peer or the other size that it is compared with.
        limit: the figure of `against`, in the same unit.
        goal: the bound of the ratio of both figures.
        at_most: True if the ratio must not be above the goal; False if it must not be below.
        details: further results of the run: figures of single rounds, plans, counts.
    """

    name: str
    unit: str
    measured: float
    against: str
    limit: float
    goal: float
    at_most: bool = False
    ratio: float = 0.0
    details: dict[str, Any] = field(default_factory=dict)

    @property
    def met(self) -> bool:
        """Whether the ratio meets its goal."""
        return self.ratio <= self.goal if self.at_most else self.ratio >= self.goal

    def as_json(self) -> dict[str, Any]:
        """Return the row as plain data."""
        return {**asdict(self), "met": self.met}


def save(rows: Sequence[Row], file: Path, machine: dict[str, Any]) -> None:
    """Write rows to the file, and replace those with the same names."""
    kept = json.loads(file.read_text())["rows"] if file.exists() else []
    new = {row.name: row.as_json() | {"machine": machine} for row in rows}
    merged = [new.pop(row["name"], row) for row in kept] + list(new.values())
    file.write_text(json.dumps({"rows": merged}, indent=2) + "\n")


def number(value: float) -> str:
    """Return a figure with three significant digits and a separator of thousands."""
    return f"{value:,.3g}" if abs(value) < 1000 else f"{value:,.0f}"


def table(rows: Sequence[dict[str, Any]]) -> Table:
    """Return rows as a table for a terminal."""
    shown = Table(title="celery-sagas, measured")
    for column in ("what", "measured", "against", "limit", "ratio", "goal", "met"):
        shown.add_column(column, justify="left" if column in ("what", "against") else "right")
    for row in rows:
        bound = "≤" if row["at_most"] else "≥"
        shown.add_row(
            row["name"],
            f"{number(row['measured'])} {row['unit']}",
            row["against"],
            number(row["limit"]),
            f"{row['ratio']:.2f}",
            f"{bound} {row['goal']:g}",
            "yes" if row["met"] else "[bold red]no[/]",
        )
    return shown

"""What is measured, as rows: a figure, what it is held against, and whether it is good enough."""

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
        name: what was measured.
        measured: our figure, in `unit`.
        against: the limit, the peer or the other size that it is held against.
        limit: that one's figure, in the same unit.
        goal: the bound of the ratio of the two.
        at_most: whether the ratio must not be above the goal; else it must not be below.
        details: what else the run told: figures of single rounds, plans, counts.
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
        """Whether the ratio is at its goal or better."""
        return self.ratio <= self.goal if self.at_most else self.ratio >= self.goal

    def as_json(self) -> dict[str, Any]:
        """Return it as plain data."""
        return {**asdict(self), "met": self.met}


def save(rows: Sequence[Row], file: Path, machine: dict[str, Any]) -> None:
    """Write rows to the file in the place of those with the same names."""
    kept = json.loads(file.read_text())["rows"] if file.exists() else []
    new = {row.name: row.as_json() | {"machine": machine} for row in rows}
    merged = [new.pop(row["name"], row) for row in kept] + list(new.values())
    file.write_text(json.dumps({"rows": merged}, indent=2) + "\n")


def number(value: float) -> str:
    """Return a figure with three digits that count, and thousands apart."""
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

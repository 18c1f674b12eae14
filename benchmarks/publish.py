"""Write the last results into the documentation, as charts and as a table: `python -m benchmarks.publish`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib import pyplot as plt

from benchmarks.rows import number

HERE = Path(__file__).parent
#: The table between these lines of the page is rewritten.
BEGINS, ENDS = "<!-- the last results -->", "<!-- end of the last results -->"
#: Upper end of the axis, in multiples of the goal.
_LONGEST_BAR = 4.0
_OURS, _OTHERS = "#2f6f4f", "#b9bec4"

mpl.use("Agg")
mpl.rcParams["svg.hashsalt"] = "sagas"  # equal figures give equal files


def main() -> None:
    """Draw `benchmarks/results.json` into `docs/charts`, and write its table into `docs/performance.md`."""
    rows = {row["name"]: row for row in json.loads((HERE / "results.json").read_text())["rows"]}
    page = HERE.parent / "docs" / "performance.md"
    before, _, rest = page.read_text().partition(BEGINS)
    page.write_text(f"{before}{BEGINS}\n\n{table(list(rows.values()))}\n{ENDS}{rest.partition(ENDS)[2]}")
    folder = HERE.parent / "docs" / "charts"
    folder.mkdir(exist_ok=True)
    if "running a saga, one client" in rows:  # results of `make bench`; `make bench-scale` alone has none
        _speed(rows, folder / "running.svg")
        _breakdown(rows, folder / "where-the-time-goes.svg")
    _goals(list(rows.values()), folder / "goals.svg")


def table(rows: list[dict[str, Any]]) -> str:
    """Return results as a Markdown table."""
    lines = ["| what | measured | against | its figure | ratio | goal |", "|---|---|---|---|---|---|"]
    for row in rows:
        bound = "at most" if row["at_most"] else "at least"
        lines.append(
            f"| {row['name']} | {number(row['measured'])} {row['unit']} | {row['against']} | {number(row['limit'])} "
            f"| **{row['ratio']:.2f}** | {bound} {row['goal']:g}{'' if row['met'] else ', **missed**'} |"
        )
    return "\n".join(lines) + "\n"


def _speed(rows: dict[str, Any], file: Path) -> None:
    alone = rows["running a saga, one client"]
    bars = {
        "4 bare commits (the limit)": alone["limit"],
        "celery-sagas": alone["measured"],
        "dbos": rows["running a saga, against dbos"]["limit"],
        "python-cqrs": rows["running a saga, against python-cqrs"]["limit"],
    }
    _draw(
        bars,
        file,
        title="Sagas of three no-op steps a second, one client",
        colours=[_OURS if name == "celery-sagas" else _OTHERS for name in bars],
        label="{:,.0f}",
    )


def _breakdown(rows: dict[str, Any], file: Path) -> None:
    row = rows["running a saga: statements, each a round trip and a commit"]
    parts = row["details"]["microseconds"]
    _draw(
        parts,
        file,
        title="Where the time of a saga of three steps goes, microseconds",
        colours=[_OTHERS if name == "four bare commits" else _OURS for name in parts],
        label="{:,.0f}",
    )


def _goals(rows: list[dict[str, Any]], file: Path) -> None:
    # The ratio of each figure to its goal: 1 is the goal, more is better. One much longer bar would hide the rest.
    bars = {row["name"]: min(_past_goal(row), _LONGEST_BAR) for row in rows}
    _draw(
        bars,
        file,
        title="Each figure against its goal (1.0)",
        colours=[_OURS if row["met"] else "#b3423a" for row in rows],
        label="{:.2f}",
        goal=1.0,
    )


def _past_goal(row: dict[str, Any]) -> float:
    if not row["at_most"]:
        return float(row["ratio"] / row["goal"])
    return float(row["goal"] / row["ratio"]) if row["ratio"] > 0 else _LONGEST_BAR


def _draw(
    bars: dict[str, float], file: Path, *, title: str, colours: list[str], label: str, goal: float | None = None
) -> None:
    figure, axes = plt.subplots(figsize=(9, 0.8 + 0.42 * len(bars)), layout="constrained")
    drawn = axes.barh(list(bars), list(bars.values()), color=colours)
    axes.bar_label(drawn, labels=[label.format(value) for value in bars.values()], padding=4)
    axes.invert_yaxis()
    axes.set_title(title, loc="left")
    axes.spines[["top", "right", "bottom"]].set_visible(False)
    axes.xaxis.set_visible(False)
    axes.margins(x=0.12)
    if goal is not None:
        axes.axvline(goal, color="black", linewidth=0.8)
    figure.savefig(file, metadata={"Date": None})
    plt.close(figure)


if __name__ == "__main__":
    main()

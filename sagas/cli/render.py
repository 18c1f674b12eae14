"""Tables and lines for people: times in UTC, fitted to the terminal, and harmless to it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Final

from rich.cells import set_cell_size
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from sagas.duration import duration
from sagas.text import one_line, printable

#: What a table holds: text without a style is escaped.
Cell = Text | str | int

NOTHING: Final = "-"
_GAP: Final = (0, 2, 0, 0)
_LABEL: Final = 10
#: Cells of a column that is no wider than this stay on their line, whole.
_SHORT: Final = 16
#: A wider column is continued or cut rather than that another is left out.
_COMFORTABLE: Final = 32
#: The width of what is no terminal: nothing is shortened there.
_UNLIMITED: Final = 1_000_000


def ago(moment: datetime | None, now: datetime) -> str:
    """Return how long ago it was, as '7 min ago'."""
    return NOTHING if moment is None else f"{duration((now - moment).total_seconds())} ago"


def count_of(number: int, noun: str) -> str:
    """Return the number with its noun, as '1 saga' or '2 sagas'."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def text(cell: Cell, style: str = "") -> Text:
    """Return the cell as text that can be printed, escaped unless it is such text already."""
    return cell if isinstance(cell, Text) else Text(printable(cell), style)


def console() -> Console:
    """Return what prints to stdout; colours only on a terminal, and none if NO_COLOR is set."""
    # Lines are fitted to a terminal before they are printed; in a file or a pipe they are as long as they are.
    return Console(soft_wrap=True, markup=False, emoji=False, highlight=False)


def out(*parts: Cell) -> None:
    """Print the parts to stdout, each on lines of its own."""
    console().print(Text("\n").join(map(text, parts)))


def terminal_width() -> int | None:
    """Return how many columns the terminal has; None if stdout is a file or a pipe."""
    terminal = console()
    return terminal.width if terminal.is_terminal else None


def fitted(line: Text | str, *, indent: int = 4) -> Text:
    """Return a line, continued on indented ones where it is wider than the terminal."""
    whole, width = text(line), terminal_width()
    if width is None or whole.cell_len <= width:
        return whole
    lines = whole.wrap(console(), max(width - indent, 1))
    for each in lines:
        each.rstrip()
    return Text("\n" + " " * indent).join(lines)


def facts(pairs: Iterable[tuple[str, Text | str]]) -> Text:
    """Return a line for each label and its value, continued below the value where it is wider than the terminal."""
    grid = Table.grid(padding=_GAP)
    grid.add_column(style="bold", min_width=_LABEL)
    grid.add_column(overflow="fold")
    for label, value in pairs:
        grid.add_row(label, Text(one_line(value)) if isinstance(value, str) else value)
    return _rendered(grid, terminal_width())


def table(
    headers: Sequence[str], rows: Iterable[Sequence[Cell]], *, spare: Sequence[str] = (), show_header: bool = True
) -> Text:
    """Return a table. Where it is wider than the terminal, sentences are continued below and long names are cut.

    Args:
        headers: a name for each column. IDs and times (UTC) are never cut.
        rows: cells in the order of the headers.
        spare: columns that are left out, the first of them first, rather than that others become narrow.
        show_header: whether the headers are printed.
    """
    width, cells = terminal_width(), [[text(cell) for cell in row] for row in rows]
    columns = {header: [row[place] for row in cells] for place, header in enumerate(headers)}
    widths = {header: max(cell.cell_len for cell in (Text(header), *column)) for header, column in columns.items()}
    if width is None:
        # Rich takes ten times as long, and a listing in a file may have a million rows.
        whole = [[Text(header) for header in headers]] * show_header + cells
        lines = ("  ".join(map(set_cell_size, (cell.plain for cell in row), widths.values())) for row in whole)
        return Text("\n".join(line.rstrip() for line in lines))
    for header in spare:
        if sum(min(widths[each], _COMFORTABLE) + 2 for each in columns) > width + 2:
            del columns[header]
    grid = Table(box=None, padding=_GAP, pad_edge=False, show_header=show_header, header_style="bold")
    for header in columns:
        uncut = header == "ID" or header.endswith("(UTC)")
        grid.add_column(
            Text(header),
            no_wrap=uncut or widths[header] <= _SHORT,
            min_width=widths[header] if uncut else None,
            overflow="ellipsis",
        )
    for row in zip(*columns.values(), strict=True):
        grid.add_row(*row)
    return _rendered(grid, width)


def _rendered(table: RenderableType, width: int | None) -> Text:
    """Return the table as text, without blanks at the ends of its lines."""
    terminal = console()
    options = terminal.options.update(width=width or _UNLIMITED)
    lines = []
    for segments in terminal.render_lines(table, options, pad=False):
        line = Text.assemble(*((segment.text, segment.style or "") for segment in segments))
        line.rstrip()
        lines.append(line)
    return Text("\n").join(lines)

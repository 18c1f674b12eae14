"""How times, texts and tables look: in UTC, aligned, made to fit the terminal, and harmless to it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from itertools import zip_longest
from typing import Final

from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.text import Text

from sagas.duration import duration
from sagas.text import printable

NOTHING: Final = "-"
#: The header of a column that is never cut.
WHOLE: Final = "ID"
_GAP: Final = 2
_LABEL: Final = 12
#: No column is made narrower, however narrow the terminal is.
_NARROWEST: Final = 6
#: So much of a name, and of a sentence, is shown before other columns get more.
_NAME: Final = 16
_SENTENCE: Final = 25
#: A cell of several words that is no longer than this, such as a time, stays on its line.
_SHORT: Final = 20
#: A wider column may as well be continued or cut, rather than that another is left out.
_COMFORTABLE: Final = 32


def ago(moment: datetime | None, now: datetime) -> str:
    """Return how long ago it was, as '7 min ago'."""
    return NOTHING if moment is None else f"{duration((now - moment).total_seconds())} ago"


def utc(moment: datetime | None) -> str:
    """Return the time in UTC as '2026-11-22 19:38:05'."""
    return NOTHING if moment is None else f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S}"


def when(moment: datetime | None, now: datetime) -> str:
    """Return the time and its distance from now, as '2026-11-22 19:38:05 (7 min ago)'."""
    if moment is None:
        return NOTHING
    seconds = (moment - now).total_seconds()
    distance = f"in {duration(seconds)}" if seconds > 0 else f"{duration(-seconds)} ago"
    return f"{utc(moment)} ({distance})"


def one_line(text: str, longest: int | None = None) -> str:
    """Return a message on one line, its own lines joined, harmless to a terminal, and cut to so many characters."""
    line = printable(re.sub(r"[ \t\r\n]+", " ", text.strip()))
    return line if longest is None or len(line) <= longest else f"{line[: longest - 1]}…"


def console() -> Console:
    """Return what prints to stdout; colours only on a terminal, and none if NO_COLOR is set."""
    # Lines are made to fit a terminal before they are printed; in a file or a pipe they are as long as they are.
    return Console(soft_wrap=True, markup=False, emoji=False, highlight=False)


def error_console() -> Console:
    """Return what draws on stderr, for what is not a result."""
    return Console(stderr=True)


def terminal_width() -> int | None:
    """Return how many columns the terminal has; None if stdout is a file or a pipe, where nothing is shortened."""
    out = console()
    return out.width if out.is_terminal else None


def fitted(text: Text | str, width: int | None, *, indent: int = 4) -> Text:
    """Return a line, continued on indented ones where it is wider than the terminal."""
    line = Text(text) if isinstance(text, str) else text
    if width is None or line.cell_len <= width:
        return line
    first, *_ = _wrapped(line, width)
    rest = line[len(first.plain) :]
    rest = rest[len(rest.plain) - len(rest.plain.lstrip()) :]
    parts = _wrapped(rest, max(_NARROWEST, width - indent))
    return Text("\n").join([first, *(Text(" " * indent).append_text(part) for part in parts)])


def labelled(label: str, value: Text | str, width: int | None = None) -> Text:
    """Return a line of a header, continued below its value where it is wider than the terminal."""
    text = Text(one_line(value)) if isinstance(value, str) else value
    lines = _wrapped(text, max(_NARROWEST, width - _LABEL) if width else None)
    first = Text.assemble((f"{label:<{_LABEL}}", "bold"), lines[0])
    return Text("\n").join([first, *(Text(" " * _LABEL).append_text(line) for line in lines[1:])])


def columns(
    headers: Sequence[str], rows: Sequence[Sequence[Text]], width: int | None = None, *, spare: Sequence[str] = ()
) -> Text:
    """Return a table. Where it is wider than the terminal, sentences are continued below and long names are cut.

    Args:
        headers: a name for each column.
        rows: cells in the order of the headers.
        width: of the terminal; None for as wide as it is.
        spare: columns that are left out, the first of them first, rather than that others are made narrow.
    """
    table = [[Text(header, style="bold") for header in headers], *rows]
    places = list(range(len(headers)))
    for name in spare:
        if width is not None and _sum(min(max(_needs(table, place)), _COMFORTABLE) for place in places) > width:
            places.remove(headers.index(name))
    widths = _fitted([_needs(table, place) for place in places], width)
    lines = [line for row in table for line in _lines([row[place] for place in places], widths)]
    return Text("\n").join(lines)


def _sum(widths: Iterable[int]) -> int:
    every = list(widths)
    return sum(every) + _GAP * (len(every) - 1)


def _needs(table: Sequence[Sequence[Text]], place: int) -> tuple[int, int]:
    """Return how narrow a column may become, and how wide it would like to be."""
    cells = [row[place] for row in table]
    sentences = any(" " in cell.plain.strip() for cell in cells[1:])
    longest_word = max(cell_len(word) for cell in cells for word in (cell.plain.strip().split(" ") or [""]))
    wide = max(cell.cell_len for cell in cells)
    if cells[0].plain == WHOLE or (sentences and wide <= _SHORT):
        return wide, wide
    # A sentence is continued between its words; a name can only be cut.
    return (min(longest_word, _SENTENCE) if sentences else min(wide, _NAME)), wide


def _fitted(needs: Sequence[tuple[int, int]], width: int | None) -> list[int]:
    """Return the widths: what each would like, or else what each needs and a share of what is left."""
    if width is None or _sum(wide for _, wide in needs) <= width:
        return [wide for _, wide in needs]
    fitted = [narrow for narrow, _ in needs]
    left = width - _sum(fitted)
    # Those that miss the least get it first, so that as few as possible are continued or cut.
    missing = sorted(range(len(needs)), key=lambda place: needs[place][1] - needs[place][0])
    for done, place in enumerate(missing):
        share = max(0, min(needs[place][1] - fitted[place], left // (len(missing) - done)))
        fitted[place] += share
        left -= share
    cuttable = [place for place, (narrow, wide) in enumerate(needs) if narrow < wide]
    while _sum(fitted) > width and (widest := max(cuttable, key=fitted.__getitem__, default=None)) is not None:
        if fitted[widest] == _NARROWEST:
            break
        fitted[widest] -= 1
    return fitted


def _lines(cells: Sequence[Text], widths: Sequence[int]) -> Iterator[Text]:
    parts = [_wrapped(_cut(cell, width), width) for cell, width in zip(cells, widths, strict=True)]
    for row in zip_longest(*parts, fillvalue=Text()):
        line = Text()
        for part, width in zip(row, widths, strict=True):
            line.append_text(part).append(" " * (width - part.cell_len + _GAP))
        line.rstrip()
        yield line


def _cut(cell: Text, width: int) -> Text:
    """Cut words that are wider than their column."""
    if cell.cell_len <= width:
        return cell
    words = [
        word if cell_len(word) <= width else f"{set_cell_size(word, width - 1)}…" for word in cell.plain.split(" ")
    ]
    return Text(" ".join(words), style=cell.style)


def _wrapped(text: Text, width: int | None) -> list[Text]:
    if width is None or text.cell_len <= width:
        return [text]
    lines = list(text.wrap(console(), width))
    for line in lines:
        line.rstrip()
    return lines

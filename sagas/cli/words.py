"""How times, texts and tables look: in UTC, aligned, made to fit the terminal, and harmless to it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from itertools import zip_longest
from typing import Final

from rich.console import Console
from rich.text import Text

from sagas.duration import duration
from sagas.text import printable

NOTHING: Final = "-"
_GAP: Final = 2
_LABEL: Final = 12
#: No column is made narrower, however narrow the terminal is.
_NARROWEST: Final = 6
#: A wider one may as well take several lines.
_COMFORTABLE: Final = 40


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
    first = Text(f"{label:<{_LABEL}}", style="bold").append_text(lines[0])
    return Text("\n").join([first, *(Text(" " * _LABEL).append_text(line) for line in lines[1:])])


def columns(
    headers: Sequence[str], rows: Sequence[Sequence[Text]], width: int | None = None, *, spare: Sequence[str] = ()
) -> Text:
    """Return a table. What is too wide for the terminal is continued below its column, between words.

    Args:
        headers: a name for each column.
        rows: cells in the order of the headers.
        width: of the terminal; None for as wide as it is.
        spare: columns that are left out, the first of them first, rather than that a row takes several lines.
    """
    table = [[Text(header, style="bold") for header in headers], *rows]
    places = list(range(len(headers)))
    for name in spare:
        needed = sum(min(each, _COMFORTABLE) for each in _widths(table, places)) + _GAP * (len(places) - 1)
        if width is not None and needed > width:
            places.remove(headers.index(name))
    widths = _fitted(_widths(table, places), width)
    lines = [line for row in table for line in _lines([row[place] for place in places], widths)]
    return Text("\n").join(lines)


def _widths(table: Sequence[Sequence[Text]], places: Sequence[int]) -> list[int]:
    return [max(row[place].cell_len for row in table) for place in places]


def _fitted(widths: list[int], width: int | None) -> list[int]:
    """Return the widths, the widest of them reduced until a row fits."""
    if width is None:
        return widths
    left = max(width - _GAP * (len(widths) - 1), 0)
    fitted = dict.fromkeys(range(len(widths)), 0)
    # The narrow ones get what they need, the wide ones share what is left.
    for done, place in enumerate(sorted(fitted, key=widths.__getitem__)):
        fitted[place] = min(widths[place], max(left // (len(widths) - done), _NARROWEST))
        left -= fitted[place]
    return list(fitted.values())


def _lines(cells: Sequence[Text], widths: Sequence[int]) -> Iterator[Text]:
    for parts in zip_longest(*map(_wrapped, cells, widths), fillvalue=Text()):
        line = Text()
        for part, width in zip(parts, widths, strict=True):
            line.append_text(part).append(" " * (width - part.cell_len + _GAP))
        line.rstrip()
        yield line


def _wrapped(text: Text, width: int | None) -> list[Text]:
    if width is None or text.cell_len <= width:
        return [text]
    lines = list(text.wrap(console(), width))
    for line in lines:
        line.rstrip()
    return lines

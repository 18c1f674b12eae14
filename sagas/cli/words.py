"""How times, texts and tables look: in UTC, aligned, on one line each however wide, and harmless to a terminal."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

from rich.console import Console
from rich.text import Text

from sagas.duration import duration

NOTHING: Final = "-"
_GAP: Final = 2


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


def printable(text: str) -> str:
    """Return the text with control characters written out, so that stored data cannot drive the terminal."""
    return "".join(
        f"\\x{ord(char):02x}" if unicodedata.category(char) == "Cc" and char != "\n" else char for char in text
    )


def one_line(text: str, longest: int | None = None) -> str:
    """Return the text on one line, cut to so many characters."""
    line = printable(" ".join(text.split()))
    return line if longest is None or len(line) <= longest else f"{line[: longest - 1]}…"


def labelled(label: str, value: Text | str) -> Text:
    """Return a line of a header; text is put on one line."""
    text = Text(one_line(value)) if isinstance(value, str) else value
    return Text(f"{label:<12}", style="bold").append_text(text)


def console() -> Console:
    """Return what prints to stdout; colours only on a terminal, and none if NO_COLOR is set."""
    return Console(soft_wrap=True)


def error_console() -> Console:
    """Return what draws on stderr, for what is not a result."""
    return Console(stderr=True)


def columns(headers: Sequence[str], rows: Sequence[Sequence[Text]]) -> Text:
    """Return a table of one line a row: a terminal wraps what is too wide for it, so no id is ever cut.

    Args:
        headers: a name for each column.
        rows: cells in the order of the headers.
    """
    titled = [[Text(header, style="bold") for header in headers], *rows]
    widths = [max(cell.cell_len for cell in column) for column in zip(*titled, strict=True)]
    return Text("\n").join(_row(row, widths) for row in titled)


def _row(cells: Sequence[Text], widths: Sequence[int]) -> Text:
    line = Text()
    for cell, width in zip(cells, widths, strict=True):
        line.append_text(cell).append(" " * (width - cell.cell_len + _GAP))
    line.rstrip()
    return line

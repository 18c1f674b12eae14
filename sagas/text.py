"""Makes text safe to print: it stays on one line and in its order, and sends no commands to a terminal."""

from __future__ import annotations

import re
import traceback
from collections.abc import Generator, Iterator
from typing import Any, Final
from unicodedata import category

#: Control, format (bidirectional, zero-width), surrogate, line separator, paragraph separator.
_ESCAPED: Final = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})


def printable(text: object, *, keep: str = "") -> str:
    r"""Return the text with its control and invisible characters escaped as Python writes them: `\n`, `\u202e`.

    A backslash is not escaped, so the result is for people and logs, and cannot be read back.

    Args:
        text: the text to show; any other object is passed to `str()`.
        keep: characters that are not escaped, such as "\n" for a text of several lines.
    """
    text = text if isinstance(text, str) else str(text)
    if text.isprintable():
        return text
    return "".join(character if character in keep else _shown(character) for character in text)


def _shown(character: str) -> str:
    escaped = category(character) in _ESCAPED
    return character.encode("unicode_escape").decode("ascii") if escaped else character


def one_line(text: str, longest: int | None = None) -> str:
    """Return a message on one line, safe for a terminal, and cut to at most `longest` characters."""
    line = printable(re.sub(r"[ \t\r\n]+", " ", text.strip()))
    return line if longest is None or len(line) <= longest else f"{line[: longest - 1]}…"


def printable_traceback(error: BaseException) -> str:
    """Return the traceback as Python prints it, but with the message of each error on one line."""
    whole = traceback.TracebackException.from_exception(error, compact=True)
    for each in _all_within(whole):
        each.__class__ = _OneLineMessage
    return printable("".join(whole.format()), keep="\n\t").rstrip("\n")


class _OneLineMessage(traceback.TracebackException):
    def format_exception_only(self, **options: Any) -> Generator[str, None, None]:
        self.__notes__ = None if self.__notes__ is None else [printable(note) for note in self.__notes__]
        for line in super().format_exception_only(**options):
            yield printable(line.removesuffix("\n")) + "\n"


def _all_within(error: traceback.TracebackException) -> Iterator[traceback.TracebackException]:
    waiting = [error]
    while waiting:
        yield (each := waiting.pop())
        waiting += [other for other in (each.__cause__, each.__context__, *(each.exceptions or ())) if other]

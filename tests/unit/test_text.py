"""Text that is printed cannot forge a line, hide itself, reorder what stands beside it, or command a terminal."""

from __future__ import annotations

import sys
import unicodedata

import pytest

from sagas.text import printable, printable_traceback


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("", ""),
        (
            "plain, ünïcode, 漢字, \N{NO-BREAK SPACE}and \\n as written",
            "plain, ünïcode, 漢字, \N{NO-BREAK SPACE}and \\n as written",
        ),
        ("boom\nFORGED ERROR\x1b[31m", "boom\\nFORGED ERROR\\x1b[31m"),
        ("a\r\tb\0\x7f\x85", "a\\r\\tb\\x00\\x7f\\x85"),
        ("\u202egpj.exe\u200b\u2028\u2029\ufeff", "\\u202egpj.exe\\u200b\\u2028\\u2029\\ufeff"),
        ("\ud800 and \U000e0041", "\\ud800 and \\U000e0041"),
        (ValueError("a\nb"), "a\\nb"),
    ],
)
def test_control_and_invisible_characters_are_escaped(text: object, shown: str) -> None:
    assert printable(text) == shown


def test_every_character_of_the_escaped_categories_is_escaped_and_no_other() -> None:
    for character in map(chr, range(sys.maxunicode + 1)):
        escaped = unicodedata.category(character) in ("Cc", "Cf", "Cs", "Zl", "Zp")
        assert (printable(character) != character) is escaped, hex(ord(character))


def test_characters_to_keep_stay() -> None:
    assert printable("one\ntwo\x1b\u200b", keep="\n") == "one\ntwo\\x1b\\u200b"


def raised(error: BaseException) -> BaseException:
    try:
        raise error
    except BaseException as caught:
        return caught


def test_traceback_keeps_its_own_lines_and_no_line_of_a_message() -> None:
    noted = ValueError("three\nFORGED")
    noted.add_note("four\nFORGED")
    chained = ValueError("one\nFORGED\x1b[31m")
    chained.__cause__ = raised(
        ExceptionGroup("two\nFORGED", [noted, ExceptionGroup("five\nFORGED", [OSError("s\nFORGED")])])
    )
    chained.__cause__.__context__ = KeyError("six\nFORGED")

    lines = printable_traceback(raised(chained)).splitlines()

    assert lines[-1] == "ValueError: one\\nFORGED\\x1b[31m"
    assert any("test_text.py" in line for line in lines)
    assert sum("FORGED" in line for line in lines) == 7
    assert not any(line.lstrip(" |").startswith("FORGED") for line in lines)


def test_traceback_of_an_ordinary_error_is_pythons() -> None:
    import traceback

    error = raised(ZeroDivisionError("division by zero"))

    assert printable_traceback(error) == "".join(traceback.format_exception(error)).rstrip("\n")

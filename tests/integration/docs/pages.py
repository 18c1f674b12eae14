"""The documentation as tests see it: its pages, and every fenced block of each."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[3]
DOCS = REPOSITORY / "docs"
README = REPOSITORY / "README.md"
QUICKSTART = DOCS / "quickstart.md"
DOCUMENTS = [README, REPOSITORY / "CHANGELOG.md", *sorted(DOCS.rglob("*.md"))]

every_document = pytest.mark.parametrize(
    "document", DOCUMENTS, ids=lambda path: path.relative_to(REPOSITORY).as_posix().removeprefix("docs/")
)

_FENCE = re.compile(r"^(?P<indent> *)(?P<fence>`{3,}|~{3,}) *(?P<language>[^\s`]*)")


@dataclass(frozen=True)
class Block:
    """A fenced block of a document.

    Attributes:
        place: the document and the line it begins in, for messages.
    """

    language: str
    text: str
    place: str


def read_blocks(text: str, name: str) -> Iterator[Block]:
    """Every fenced block, in order, also those within lists."""
    lines = iter(enumerate(text.splitlines(keepends=True), start=1))
    for number, line in lines:
        if opened := _FENCE.match(line):
            inside: list[str] = []
            for _, line in lines:
                if line.strip() and not line.strip().strip(opened["fence"][0]) and len(line) > len(opened["fence"]):
                    break
                inside.append(line.removeprefix(opened["indent"]))
            else:
                pytest.fail(f"{name}:{number}: this fence is never closed")
            yield Block(opened["language"], "".join(inside), f"{name}:{number}")


@dataclass
class Page:
    """A document whose blocks are checked off one by one.

    Attributes:
        unchecked: the blocks that nothing has checked yet, in order.
    """

    path: Path
    unchecked: list[Block] = field(init=False)

    def __post_init__(self) -> None:
        self.unchecked = list(read_blocks(self.path.read_text(), self.path.relative_to(REPOSITORY).as_posix()))

    def take(self, language: str) -> list[Block]:
        """Return the unchecked blocks of a language: whoever takes them checks them."""
        taken = [block for block in self.unchecked if block.language == language]
        self.unchecked = [block for block in self.unchecked if block.language != language]
        return taken

    def take_those_in(self, other: Path) -> None:
        """Leave the blocks that another page has as well to the check of that page."""
        known = {(block.language, block.text) for block in Page(other).unchecked}
        self.unchecked = [block for block in self.unchecked if (block.language, block.text) not in known]


def blocks(document: Path, language: str) -> list[Block]:
    """The fenced blocks of this language, in order."""
    return Page(document).take(language)


def prose(document: Path) -> str:
    """The text without its fenced blocks."""
    text = document.read_text()
    return re.sub(r"^( *)(```+).*?^\1\2$", "", text, flags=re.MULTILINE | re.DOTALL)

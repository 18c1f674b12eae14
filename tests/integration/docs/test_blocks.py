"""Every fenced block of every page is run, parsed by what reads it, or refused."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.integration.docs.languages import check_python, check_rest
from tests.integration.docs.pages import DOCUMENTS, REPOSITORY, Page, every_document, prose, read_blocks
from tests.integration.docs.reader import Reader
from tests.integration.docs.stories import STORIES


@pytest.mark.slow(8)
@every_document
def test_every_block_does_what_the_page_says(document: Path, reader: Reader) -> None:
    page = Page(document)
    if story := STORIES.get(document.relative_to(REPOSITORY).as_posix()):
        story(page, reader)
    check_python(page, reader)
    check_rest(page.unchecked, reader)


def test_every_story_is_of_a_page() -> None:
    assert set(STORIES) <= {document.relative_to(REPOSITORY).as_posix() for document in DOCUMENTS}


def test_no_code_is_outside_of_fences_where_nothing_checks_it() -> None:
    for document in DOCUMENTS:
        found = re.search(r"^(?![-*] |\d+\. | ).*\n\n    \S.*", prose(document), re.MULTILINE)
        assert not found, (document, found and found[0])


# -- the checks themselves --------------------------------------------------------------------------------------------


def page_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> Page:
    monkeypatch.setattr("tests.integration.docs.pages.REPOSITORY", tmp_path)
    path = tmp_path / "page.md"
    path.write_text(text)
    return Page(path)


@pytest.mark.parametrize(
    "text",
    [
        "```\nno language\n```\n",
        "```rust\nfn main() {}\n```\n",
        "```text\nprinted by nothing\n```\n",
        "```console\n$ sagas dance\n```\n",
        "```console\n$ sagas list --sideways\n```\n",
        "```console\n$ celery -A sagas call sagas.dance\n```\n",
        "```console\n$ curl http://127.0.0.1:5555/api/no/such\n```\n",
        "```console\n$ sagas list\nsomething it might print\n```\n",
        "- in a list:\n\n  ```ini\n  [unknown]\n  a = 1\n  ```\n",
    ],
    ids=lambda text: text.replace("\n", " ").strip("` ")[:40],
)
def test_a_block_that_nothing_can_check_is_refused(
    text: str, tmp_path: Path, reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = page_of(tmp_path, monkeypatch, text)

    with pytest.raises((AssertionError, pytest.fail.Exception)):
        check_rest(page.unchecked, reader)


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("```python\nprint('a')\n```\n\n```text\na\n```\n", True),
        ("```python\nprint('a')\n```\n\n```text\nb\n```\n", False),
        ("```python\nprint('a')\n```\n", False),
        ("```python\nx = 1\n```\n\n```python\nprint(x)\n```\n\n```text\n1\n```\n", True),
        ("```python\nraise ValueError\n```\n", False),
        ("```python\ndef test_it():\n    assert not 'so'\n```\n", False),
        ("```python\nclass TestIt:\n    def test_it(self):\n        assert not 'so'\n```\n", False),
    ],
)
def test_python_is_run_and_what_it_prints_is_compared(
    text: str, right: bool, tmp_path: Path, reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = page_of(tmp_path, monkeypatch, text)

    if right:
        check_python(page, reader)
        assert page.unchecked == []
    else:
        with pytest.raises(AssertionError):
            check_python(page, reader)


def test_fences_are_found_within_lists_and_longer_ones_hold_shorter_ones() -> None:
    text = "1. first\n\n   ```sql\n   SELECT 1\n   ```\n\n````text\n```\ninside\n```\n````\n"
    assert [(block.language, block.text) for block in read_blocks(text, "x")] == [
        ("sql", "SELECT 1\n"),
        ("text", "```\ninside\n```\n"),
    ]
    with pytest.raises(pytest.fail.Exception, match="never closed"):
        list(read_blocks("```python\n", "x"))

"""The site: built without a warning, complete, and asking nobody else for anything."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from pymdownx.superfences import SuperFencesException

import sagas
from docs import reference
from docs.hooks import draw
from tests.integration.docs.pages import DOCS, REPOSITORY, blocks


def _build(folder: Path, config: Path = REPOSITORY / "mkdocs.yml") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "-f", str(config), "-d", str(folder)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    return subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(("page", "name", "write"), reference.PARTS, ids=lambda part: part if type(part) is str else "")
def test_what_pages_repeat_is_what_the_code_has(page: Path, name: str, write: Callable[[], str]) -> None:
    text = page.read_text()
    assert reference.replaced(text, name, write()) == text, "run `make docs`, and commit what it writes"


def test_every_public_name_is_in_the_reference() -> None:
    told = re.findall(r"^::: sagas\.(\w+)$", (DOCS / "api.md").read_text(), re.MULTILINE)
    assert sorted(told) == sorted(sagas.__all__)


@pytest.mark.slow(9)
def test_the_site_is_built_whole_and_without_a_warning(tmp_path: Path) -> None:
    # One test, since building it takes seconds.
    built = _build(tmp_path)

    assert built.returncode == 0, built.stderr
    assert "WARNING" not in built.stderr
    _every_page_is_there_and_in_the_navigation(tmp_path)
    _browsers_are_sent_to_no_other_server(tmp_path)
    _diagrams_are_drawn(tmp_path)
    _files_outside_the_documentation_are_shown(tmp_path)


def _every_page_is_there_and_in_the_navigation(site: Path) -> None:
    front = (site / "index.html").read_text()
    for page in DOCS.rglob("*.md"):
        folder = re.sub(r"(^|/)index$", "", page.relative_to(DOCS).with_suffix("").as_posix())
        assert (site / folder / "index.html").is_file(), page
        assert f'href="{folder or "."}/' in front or f'href="{folder or "."}"' in front, page


def _browsers_are_sent_to_no_other_server(site: Path) -> None:
    for page in site.rglob("*.html"):
        loaded = re.findall(r"<(?:script|img|iframe|link)\b[^>]*?(?:src|href)=\"?(\w+:[^\"> ]+)", page.read_text())
        assert [url for url in loaded if not url.startswith("data:")] == [], page


def _diagrams_are_drawn(site: Path) -> None:
    drawn = (site / "recovery" / "index.html").read_text()
    assert drawn.count('<div class="diagram"><svg') == len(blocks(DOCS / "recovery.md", "mermaid"))


def _files_outside_the_documentation_are_shown(site: Path) -> None:
    assert 'href="../source/examples/saga_recovery_scheduler.py/"' in (site / "recovery" / "index.html").read_text()
    shown = (site / "source" / "examples" / "saga_recovery_scheduler.py" / "index.html").read_text()
    assert "get_sagas_for_recovery" in shown
    assert 'href="../performance/"' in (site / "changelog" / "index.html").read_text()


def test_links_that_lead_nowhere_and_pages_without_a_place_fail_the_build(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    for name in ("mkdocs.yml", "docs/hooks.py"):
        shutil.copy(REPOSITORY / name, tmp_path / name)
    links = ["[a page](no-page.md)", "[a heading](index.md#no-heading)", "[a file](../no-file.py)"]
    for name, text in {
        "CHANGELOG.md": "# Changelog\n",
        "docs/.nav.yml": "nav: [index.md, changelog.md]\n",
        "docs/site.css": "",
        "docs/index.md": "# Index\n",
        "docs/new.md": "# New\n\n" + "\n".join(links),
    }.items():
        (tmp_path / name).write_text(text)

    built = _build(tmp_path / "site", tmp_path / "mkdocs.yml")

    assert built.returncode != 0
    assert built.stderr.count("WARNING") == 4, built.stderr
    for broken in ("no-page.md", "no-heading", "no-file.py", 'not included in the "nav"'):
        assert broken in built.stderr


def test_a_diagram_that_cannot_be_drawn_fails_the_build() -> None:
    with pytest.raises(SuperFencesException, match=r"cannot be drawn .*Parse error"):
        draw("flowchart LR\n  a --")

"""The things that the documentation names: links, files, modules, tasks, queues, settings, statuses and pictures."""

from __future__ import annotations

import pkgutil
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from docs import screenshots
from docs.screenshots import COLUMNS, MAX_BYTES
from sagas import SagaStatus, Settings
from sagas.celery import app as celery_app
from sagas.settings import PREFIX
from tests.integration.docs.pages import DOCS, DOCUMENTS, REPOSITORY, blocks, prose

#: Files that the documentation tells the reader to make.
READERS_OWN = {
    ".sagas/",
    "place_order.py",
    "shop.py",
    "shop/celery.py",
    "sagas.py",
    "orders.jsonl",
    ".env",
    "env.py",
    "modules/",
}


def test_the_statuses_are_the_codes_own() -> None:
    diagram = blocks(DOCS / "recovery.md", "mermaid")[0].text
    assert {str(status) for status in SagaStatus} == set(re.findall(r"\b[A-Z]{6,}\b", diagram))


def test_the_documentation_is_for_users() -> None:
    for document in DOCUMENTS:
        assert not re.search(r"/home/|/tmp/|localhost:\d+/simple|TODO|FIXME", document.read_text()), document


def test_every_relative_link_leads_somewhere_on_the_forge() -> None:
    missing = []
    for document, target in _named(r"\]\(([^)\s]+)\)", prose):
        path, _, anchor = target.partition("#")
        file = (document.parent / path) if path else document
        if not target.startswith("https://") and not (file.exists() and (not anchor or anchor in _anchors(file))):
            missing.append((document.name, target))
    assert missing == []


def test_every_file_named_exists() -> None:
    named = _named(r"`([\w./-]+(?:\.(?:py|md|yml|toml|txt|jsonl)|/))`")
    missing = [(document.name, name) for document, name in named if not (REPOSITORY / name).exists()]
    assert [each for each in missing if each[1] not in READERS_OWN] == []


def test_every_task_queue_and_module_named_exists() -> None:
    known = {*READERS_OWN, *celery_app.tasks, *(queue.name for queue in celery_app.conf.task_queues)}
    for _, name in _named(r"`(sagas(?:\.\w+)+)`"):
        if name not in known:
            pkgutil.resolve_name(name)


def test_every_setting_named_is_one_that_is_read() -> None:
    known = {PREFIX + name.upper() for name in Settings.model_fields}
    named = _named(r"\bSAGAS_[A-Z_]*[A-Z]")
    assert [(document.name, name) for document, name in named if name not in known] == []


def _named(pattern: str, text: Callable[[Path], str] = Path.read_text) -> list[tuple[Path, str]]:
    """What matches the pattern in any document, and in which."""
    found = [(document, name) for document in DOCUMENTS for name in re.findall(pattern, text(document))]
    assert found, pattern
    return found


def _anchors(document: Path) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", document.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_picture_is_small_and_shown() -> None:
    pictures = sorted((DOCS / "screenshots").glob("*.png"))
    shown = (DOCS / "flower.md").read_text() + (DOCS / "console.md").read_text()
    assert pictures
    for picture in pictures:
        assert picture.stat().st_size < MAX_BYTES
        assert f"](screenshots/{picture.name})" in shown


def test_the_columns_of_flowers_list_are_those_of_the_pictures() -> None:
    assert f"FLOWER_TASKS_COLUMNS={COLUMNS}\n" in (DOCS / "flower.md").read_text()
    assert f"FLOWER_TASKS_COLUMNS: {COLUMNS}\n" in (REPOSITORY / "docker-compose.yml").read_text()


def test_taking_pictures_without_a_browser_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(SystemExit, match=r"no Chromium here .* apt install chromium"):
        screenshots.main()

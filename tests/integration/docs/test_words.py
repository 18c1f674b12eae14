"""What the documentation says in words: its guarantee, its numbers, and the things that it names."""

from __future__ import annotations

import pkgutil
import re
from pathlib import Path

import pytest

from docs import screenshots
from docs.screenshots import COLUMNS, MAX_BYTES
from sagas import SagaStatus, Settings
from sagas.celery import app as celery_app
from sagas.context import MAX_CONTEXT_BYTES
from sagas.settings import PREFIX
from tests.integration.docs.pages import DOCS, README, REPOSITORY, blocks, every_document, prose

GUARANTEE = (
    "every step runs at least once; at most one worker's result is kept; "
    "the same idempotency key accompanies every attempt."
)
#: Files that the documentation tells the reader to make.
READERS_OWN = {"place_order.py", "shop.py", "shop/celery.py", "sagas.py", "orders.jsonl", ".env", "env.py", "modules/"}
_LINK = re.compile(r"\]\(([^)\s]+)\)")


@pytest.mark.parametrize("name", ["README.md", "docs/index.md", "docs/concepts.md", "docs/recovery.md"])
def test_the_guarantee_is_given_in_its_own_words(name: str) -> None:
    assert GUARANTEE in " ".join((REPOSITORY / name).read_text().replace("\n> ", "\n").split())


def test_the_numbers_in_the_prose_are_the_codes() -> None:
    text = " ".join(README.read_text().split())
    assert f"up to {MAX_CONTEXT_BYTES // 2**20} MB" in text
    assert f"holds it for {Settings().lease_seconds:g} seconds at a time" in text
    assert f"costs its lease time**, up to {Settings().lease_seconds:g} seconds" in text
    assert f"SIGQUIT gives it {celery_app.conf.worker_soft_shutdown_timeout} seconds" in text
    concepts = " ".join((DOCS / "concepts.md").read_text().split())
    assert f"holds it for a time, {Settings().lease_seconds:g} seconds by default" in concepts


def test_the_statuses_are_the_codes_own() -> None:
    diagram = blocks(DOCS / "recovery.md", "mermaid")[0].text
    assert {str(status) for status in SagaStatus} == set(re.findall(r"\b[A-Z]{6,}\b", diagram))


@every_document
def test_the_documentation_is_for_users(document: Path) -> None:
    assert not re.search(r"/home/|/tmp/|localhost:\d+/simple|TODO|FIXME", document.read_text())


@every_document
def test_every_relative_link_leads_somewhere_on_the_forge(document: Path) -> None:
    for target in _LINK.findall(prose(document)):
        if target.startswith("https://"):
            continue
        path, _, anchor = target.partition("#")
        file = (document.parent / path) if path else document
        assert file.exists(), target
        if anchor:
            assert anchor in _anchors(file), target


@every_document
def test_every_file_named_exists(document: Path) -> None:
    for name in re.findall(r"`([\w./-]+(?:\.(?:py|md|yml|toml|txt|jsonl)|/))`", document.read_text()):
        assert name in READERS_OWN or (REPOSITORY / name).exists(), name


@every_document
def test_every_task_queue_and_module_named_exists(document: Path) -> None:
    for name in re.findall(r"`(sagas(?:\.\w+)+)`", document.read_text()):
        if (
            name not in READERS_OWN
            and name not in celery_app.tasks
            and name not in {queue.name for queue in celery_app.conf.task_queues}
        ):
            pkgutil.resolve_name(name)


@every_document
def test_every_setting_named_is_one_that_is_read(document: Path) -> None:
    known = {PREFIX + name.upper() for name in Settings.model_fields}
    assert set(re.findall(r"\bSAGAS_[A-Z_]*[A-Z]", document.read_text())) <= known


def _anchors(document: Path) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", document.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_picture_is_small_and_shown() -> None:
    pictures = sorted((DOCS / "screenshots").glob("*.png"))
    assert pictures
    for picture in pictures:
        assert picture.stat().st_size < MAX_BYTES
        assert f"](screenshots/{picture.name})" in (DOCS / "flower.md").read_text()


def test_the_columns_of_flowers_list_are_those_of_the_pictures() -> None:
    assert f"FLOWER_TASKS_COLUMNS={COLUMNS}\n" in (DOCS / "flower.md").read_text()
    assert f"FLOWER_TASKS_COLUMNS: {COLUMNS}\n" in (REPOSITORY / "docker-compose.yml").read_text()


def test_taking_pictures_without_a_browser_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(SystemExit, match=r"no Chromium here .* apt install chromium"):
        screenshots.main()

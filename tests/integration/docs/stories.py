"""What happens to a reader who does what a page says, where that takes more than running its blocks in order."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any
from uuid import UUID

import httpx
import sqlalchemy as sa

from docs.screenshots import PASSWORD, flower
from sagas import PostgresSagaStorage, SagaEngine, SagaStatus, Settings, api
from sagas.doctor import every_check, every_finding
from sagas.ids import new_saga_id
from sagas.storage.leases import Lease, LeaseRequest
from sagas.storage.records import Definition, NewSaga
from sagas.storage.saga_filter import SagaFilter
from sagas.storage.transitions import FailedAttempt
from sagas.testing.processes import wait_until
from tests.forking import start_celery
from tests.integration.callbacks.conftest import serving
from tests.integration.cli.test_documentation import examples
from tests.integration.docs.commands import commands_of
from tests.integration.docs.languages import check_python, run_sql
from tests.integration.docs.pages import DOCS, QUICKSTART, REPOSITORY, Page, blocks
from tests.integration.docs.reader import Reader

Story = Callable[[Page, Reader], None]
_TRIPS = """
from dataclasses import dataclass

from sagas import Call, Saga, Step


@dataclass
class Trip:
    city: str


class BookHotel(Step[Trip]):
    def act(self, trip: Trip, call: Call) -> None:
        pass


class BookTrip(Saga[Trip]):
    steps = [BookHotel]
"""


def commands_and_programs_bring_the_saga_to_its_end(page: Page, reader: Reader) -> None:
    saga, *programs = [block for block in page.unchecked if block.language == "python"]
    # The application of one's own is another way to carry sagas, on a broker of its own.
    programs = [block for block in programs if "install(app)" not in block.text]
    (asking,) = [block for block in programs if "wait(" in block.text]
    answer = page.unchecked[page.unchecked.index(asking) + 1]
    programs.remove(asking)
    page.unchecked = [block for block in page.unchecked if block not in (*programs, asking, answer)]
    check_python(page, reader)
    assert len(saga.text.splitlines()) <= 35, "it is announced as one of 30 lines"
    settings = _exported(page) | {"SAGAS_DATABASE_URL": reader.database_url, "SAGAS_BROKER_URL": reader.broker_url}
    assert list(settings) == ["SAGAS_DATABASE_URL", "SAGAS_BROKER_URL", "SAGAS_MODULES"]

    migrated = reader.run(sys.executable, "-m", "sagas.cli", "migrate", **settings)
    assert migrated.startswith("already at ")
    worker = ["worker", "-c", "1"]
    environment, log = reader.environment(settings), reader.directory / "log"
    with start_celery(worker, environment=environment, log=log, directory=reader.directory) as process:
        # The first of them twice, with the same key: it starts nothing new.
        reader.play([programs[0], *programs], **settings)

        storage = reader.storage
        wait_until(
            lambda: all(record.status.finished for record in storage.find(SagaFilter())), what="the end of the sagas"
        )
        process.kill()  # an orderly stop would take longer than all of this
    ended = [(record.idempotency_key, record.status) for record in storage.find(SagaFilter())]
    keys = ("order-1003", "order-1002", "order-1001")
    assert ended == [(key, SagaStatus.COMPENSATED) for key in keys]
    page.unchecked += [asking, answer]
    check_python(page, reader, **settings)


def what_other_pages_show_too_is_checked_there(page: Page, reader: Reader) -> None:
    page.take_those_in(QUICKSTART)
    page.take_those_in(DOCS / "waiting.md")
    assert not [block for block in page.unchecked if block.language == "python"]


def the_recovery_loop_recovers(page: Page, reader: Reader) -> None:
    loop = next(block for block in reversed(page.unchecked) if block.language == "python")
    page.unchecked.remove(loop)
    storage = reader.storage
    saga_id = _left_by_a_worker_that_died(storage).saga_id

    # Touched a moment ago, so only the staleness is not met.
    code = loop.text.replace("stale_after_seconds=60", "stale_after_seconds=0")
    settings = {"SAGAS_DATABASE_URL": reader.database_url, "SAGAS_MODULES": "place_order"}
    said = reader.run(sys.executable, "-c", code, **settings)

    assert f"{saga_id} compensated the saga is COMPENSATED." in said
    assert storage.load(saga_id).status is SagaStatus.COMPENSATED


def the_column_is_added_to_a_layout_without_it(page: Page, reader: Reader) -> None:
    page.take_those_in(DOCS / "testing.md")  # the suite for a storage
    (statement,) = page.take("sql")
    run_sql(statement, reader, "ALTER TABLE saga_executions DROP COLUMN recovery_attempts")


def the_query_counts_unfinished_sagas_by_version(page: Page, reader: Reader) -> None:
    (query,) = page.take("sql")
    stored = Definition(hash="0" * 64, name="place-order", graph='{"saga":"place-order","version":3,"nodes":[]}')
    reader.storage.register_definition(stored)
    # Those without a definition are of version 0.1.0, or of releases before it.
    versions = {("1.abcd", None): 2, ("2.abcd", None): 1, ("", None): 1, ("", stored.hash): 2}
    new = [
        NewSaga(id=new_saga_id(), name="place-order", context="{}", definition_version=version, definition=definition)
        for (version, definition), count in versions.items()
        for _ in range(count)
    ]
    reader.storage.create_sagas(new)

    counted = run_sql(query, reader)
    assert sorted(counted) == [
        ("place-order", version, count) for version, count in (("", 1), ("1", 2), ("2", 1), ("3", 2))
    ]


def the_readers_own_sagas_are_in_a_module(page: Page, reader: Reader) -> None:
    (reader.directory / "trips.py").write_text(_TRIPS)


def every_request_to_flower_is_answered(page: Page, reader: Reader) -> None:
    requests = [
        words
        for block in page.unchecked
        if block.language == "console"
        for words in commands_of(block)
        if words[0] == "curl"
    ]
    shown = json.loads(page.take("json")[0].text)
    saga_id = shown["result"]["saga_id"]
    dead = _left_by_a_worker_that_died(reader.storage, saga_id)
    reader.storage.apply(dead, FailedAttempt(events=(), after_seconds=0, max_recovery_attempts=1))
    urls = {"SAGAS_DATABASE_URL": reader.database_url, "SAGAS_BROKER_URL": reader.broker_url}
    environment = reader.environment(urls | {"SAGAS_MODULES": "place_order"})
    worker, log = ["worker", "-c", "1", "-l", "INFO"], reader.directory / "log"
    with (
        flower(environment, reader.directory) as client,
        start_celery(worker, environment=environment, log=log, directory=reader.directory) as process,
    ):
        process.wait_for_log(" ready.")
        answers = [_curl(words, client, reader) for words in requests]
        process.kill()

    assert answers[0].keys() == shown.keys()
    assert (answers[0]["state"], answers[0]["result"]) == ("SUCCESS", shown["result"])
    assert list(answers[0]["result"]) == list(shown["result"])
    _, later, scanned, pruned, failed, *_ = answers
    assert later["task-id"]
    assert scanned["result"]["dispatched"] == 0
    assert pruned["result"] == {"pruned": 0, "older_than_days": 90}
    assert failed == {}


def _curl(words: list[str], client: httpx.Client, reader: Reader) -> dict[str, Any]:
    """Run a documented request to Flower, with its password, at the address it has here."""
    address = str(client.base_url).rstrip("/")
    words = [word.replace("http://127.0.0.1:5555", address) for word in words]
    words[words.index("--user") + 1] = ":".join(PASSWORD)
    return dict(json.loads(reader.run(*words, "--silent", "--show-error", "--fail-with-body")))


def what_each_command_prints_is_compared_by_the_commands_own_test(page: Page, reader: Reader) -> None:
    compared = [command for command, _ in examples(page.path.read_text())]
    shown = [words for block in page.take("console") for words in commands_of(block)]
    assert [shlex.split(command) for command in compared] == shown


def the_doctors_answer_is_in_the_words_of_the_code(page: Page, reader: Reader) -> None:
    (answer,) = page.take("text")
    told = re.findall(r"^(?:ok|warning|problem|skipped) +(\w+)", answer.text, re.MULTILINE)
    assert len(told) > 10
    assert told == [check.name for check in every_check()][: len(told)]
    found = re.findall(r"^    ([\w-]+): .*\n +why: +(.*)\n +cure: +(.*)", answer.text, re.MULTILINE)
    assert found
    findings = {finding.id: finding for finding in every_finding()}
    for name, why, cure in found:
        before, *after = re.split(r"\{.*?\}", findings[name].cure)  # what it names is the example's own
        assert (why, cure.startswith(before), cure.endswith("".join(after[-1:]))) == (findings[name].why, True, True)


def the_project_of_the_page_passes_its_own_test(page: Page, reader: Reader) -> None:
    project = reader.directory / "project"
    shutil.copytree(REPOSITORY / "tests" / "integration" / "django" / "project", project)
    for block in page.take("python"):
        path = project / block.text.partition("\n")[0].removeprefix("# ")
        if path.name == "settings.py":
            # The rest of a project's settings is the reader's own.
            own = path.read_text()
            assert '    "sagas.django",\n' in own
            path.write_text(own.replace('    "sagas.django",\n', "") + block.text)
        else:
            path.write_text(block.text + ("async def order_async(request): ..." if path.name == "views.py" else ""))
    url = sa.make_url(reader.database_url)
    names = {"NAME": url.database, "USER": url.username, "PASSWORD": url.password, "HOST": url.host, "PORT": url.port}
    settings = {"DATABASE": json.dumps(names), "BROKER": reader.broker_url, "PYTHONPATH": str(project)}
    command = [sys.executable, str(project / "manage.py"), "test", "shop"]
    reader.run(*command, DJANGO_SETTINGS_MODULE="proj.settings", **settings)


def the_link_of_the_page_is_answered_by_its_requests(page: Page, reader: Reader) -> None:
    requests = [words for block in page.unchecked for words in commands_of(block) if words[0] == "curl"]
    page.unchecked = [block for block in page.unchecked if "curl" not in block.text]
    shop = ModuleType("the_shop_with_callbacks")
    sys.modules[shop.__name__] = shop  # where dataclasses look their annotations up
    for block in page.take("python"):
        exec(compile(block.text, block.place, "exec", dont_inherit=True), vars(shop))
    mails: list[str] = []
    shop.send_mail = lambda to, text: mails.append(text.rpartition(" ")[2])  # type: ignore[attr-defined]
    with serving(shop.site) as address:
        settings = Settings(callback_secret=("s" * 32,), callback_url=f"{address}/callbacks")
        engine = SagaEngine(reader.storage, settings=settings)
        api.configure(engine)
        try:
            saga_id = engine.run(shop.SendParcel, shop.Parcel("lamp")).saga_id
            (link,) = mails
            asked = httpx.get(link)
            without, with_choice = (_curl_status(words, link, reader) for words in requests)
            again = _curl_status(requests[1], link, reader)
            wrong = {httpx.put(link).status_code, httpx.get(f"{link}x").status_code}
            late = engine.recover(saga_id, by_hand=True)
        finally:
            api.configure(None)
            del sys.modules[shop.__name__]
    assert "Do you take the lamp?" in asked.text
    # The first request is for a link with one payload; this one has two.
    assert (asked.status_code, without, with_choice, again, wrong) == (200, 400, 200, 410, {404, 405})
    assert late.status is SagaStatus.COMPLETED
    assert [signal.actor for signal in reader.storage.signals(saga_id)] == ["callback link"]


def _curl_status(words: list[str], link: str, reader: Reader) -> int:
    """Send a documented request to the reader's own link."""
    assert words[-1] == "https://shop.example/callbacks/eyJzIjoi..."
    return int(reader.run(*words[:-1], link, "-s", "-o", "/dev/null", "-w", "%{http_code}"))


def the_steps_write_to_the_readers_own_database(page: Page, reader: Reader) -> None:
    # The model of the Django step is the reader's: its body is not run, but the class is made.
    check_python(page, reader, SAGAS_DATABASE_URL=reader.database_url)


#: The page, below docs/ → its story. What a story leaves is checked by its language.
STORIES: dict[str, Story] = {
    "README.md": what_other_pages_show_too_is_checked_there,
    "docs/quickstart.md": commands_and_programs_bring_the_saga_to_its_end,
    "docs/recovery.md": the_recovery_loop_recovers,
    "docs/storage.md": the_column_is_added_to_a_layout_without_it,
    "docs/callbacks.md": the_link_of_the_page_is_answered_by_its_requests,
    "docs/changing-sagas.md": the_query_counts_unfinished_sagas_by_version,
    "docs/cli.md": what_each_command_prints_is_compared_by_the_commands_own_test,
    "docs/django.md": the_project_of_the_page_passes_its_own_test,
    "docs/doctor.md": the_doctors_answer_is_in_the_words_of_the_code,
    "docs/exactly-once.md": the_steps_write_to_the_readers_own_database,
    "docs/flower.md": every_request_to_flower_is_answered,
    "docs/testing.md": the_readers_own_sagas_are_in_a_module,
}


def _exported(page: Page) -> dict[str, str]:
    """The variables that the page's commands export, without the path, which is the reader's directory."""
    commands = [words for block in blocks(page.path, "console") for words in commands_of(block)]
    given = dict(assignment.split("=", 1) for words in commands if words[0] == "export" for assignment in words[1:])
    assert given.pop("PYTHONPATH") == "$PWD"
    assert given.pop("SAGAS_CELERY_APP") == "shop:app"  # of the section on an application of one's own
    return given


def _left_by_a_worker_that_died(storage: PostgresSagaStorage, saga_id: str | None = None) -> Lease:
    order = '{"item": "lamp", "cents": 2990}'
    new = NewSaga(id=UUID(saga_id) if saga_id else new_saga_id(), name="place-order", context=order)
    request = LeaseRequest(owner="a-worker-that-died", seconds=0)
    storage.create_sagas([new], lease=request)
    return Lease(new.id, 1, request.owner, request.token)

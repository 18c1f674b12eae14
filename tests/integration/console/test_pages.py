"""The pages: what they show, that hostile text stays text, and how many statements each costs."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partialmethod
from typing import Any, Final
from uuid import UUID

import httpx
import psycopg
import pytest

from sagas import PostgresSagaStorage, SagaEngine, Schedule
from sagas.console import LoopbackOnly, Person, console
from sagas.ids import new_saga_id
from sagas.inspection import Inspector
from sagas.storage.leases import LeaseRequest
from sagas.storage.records import NewSaga
from tests.integration.console.conftest import Browser, Started, served
from tests.integration.console.shop import Order, PlaceOrder, PrintBill, Restock

HOSTILE: Final = "<script>alert(1)</script><img src=x onerror=alert(2)>'\"&\u202egnp.exe{{ 7*7 }}"
#: Statements that read: those that begin, end and bound a transaction are not among them.
CONTROL: Final = ("BEGIN", "COMMIT", "ROLLBACK", "SET TRANSACTION", "SELECT set_config")


def test_the_overview_counts_sagas_by_name_and_state(vic: Browser, started: Started) -> None:
    started()
    started("stuck")
    started(saga=Restock)

    page = vic.get("/").text

    assert ">1 saga</a> failed as often as allowed" in page
    assert re.search(r'state=waiting">1</a>', page)
    assert re.search(r'state=dead">1</a>', page)
    assert "1 saga ended" in page
    assert "None has ever run" in page  # scans


def test_an_overview_of_many_sagas_estimates_and_says_so(
    vic: Browser, started: Started, emptied_storage: PostgresSagaStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(3):
        started()
        started(saga=Restock)
    with emptied_storage.connections.cursor() as cursor:
        cursor.execute("ANALYZE saga_executions")
    monkeypatch.setattr(Inspector, "overview", partialmethod(Inspector.overview, most=2))

    found = Inspector(emptied_storage).overview()
    page = vic.get("/").text

    (waiting,), (ended,) = found.unfinished, found.ended
    assert (waiting.tally.sagas, waiting.tally.estimated) == (3, True)
    assert ended.tally.estimated
    assert ended.tally.sagas >= 3
    assert 'title="estimated, not counted">≈ 3</span>' in page
    assert "Numbers with ≈ are estimates" in page
    assert "About 6 sagas in all, an estimate" in page


def test_a_saga_shows_its_steps_and_why_it_does_not_run(vic: Browser, started: Started) -> None:
    page = vic.get(f"/sagas/{started()}").text

    assert "It waits for the signal courier-accepts, which has not come." in page
    for step in ("reserve", "charge", "courier-accepts", "cool-down", "ship"):
        assert f"<strong>{step}</strong>" in page
    assert page.count('class="badge n-done"') == 2
    assert page.count('class="badge n-waiting"') == 1
    assert page.count('class="badge n-not-begun"') == 2
    assert 'class="actions"' not in page  # for viewers


def test_secret_fields_are_hidden_wherever_they_are_quoted(ann: Browser, started: Started, engine: SagaEngine) -> None:
    customer = {"phone": "555-0199-7", "name": "Cy"}
    dead = started("stuck", card_number="4111-22", customer=customer)
    waiting = started(card_number="4111-22", customer=customer)
    engine.signal(waiting, "courier-accepts", {"courier": "kim", "pin": "9876"})

    for saga_id in (dead, waiting):
        for path in (f"/sagas/{saga_id}", f"/sagas/{saga_id}/resolve", f"/sagas/{saga_id}/retry", "/dead"):
            page = ann.get(path).text
            assert "4111-22" not in page
            assert "555-0199-7" not in page
            assert "9876" not in page
    assert "jammed&lt;/b&gt; for ••••••" in ann.get(f"/sagas/{dead}").text
    assert "Cy" in ann.get(f"/sagas/{dead}").text


@pytest.fixture
def hostile(engine: SagaEngine, emptied_storage: PostgresSagaStorage) -> UUID:
    """A saga whose every text is hostile."""
    saga_id = engine.start(PlaceOrder, Order(HOSTILE), idempotency_key=HOSTILE, tags={HOSTILE: HOSTILE})
    with emptied_storage.connections.cursor() as cursor:
        cursor.execute(
            "UPDATE saga_executions SET name = %s, last_error = %s, status = 'FAILED', state = 'dead', "
            "available_at = 'infinity' WHERE id = %s",
            [HOSTILE, HOSTILE, saga_id],
        )
        cursor.execute(
            "INSERT INTO saga_logs (saga_id, step_name, action, status, worker, details) "
            "VALUES (%s, %s, 'operator', 'completed', %s, jsonb_build_object('by', %s::text, 'because', %s::text))",
            [saga_id, HOSTILE, HOSTILE, HOSTILE, HOSTILE],
        )
        cursor.execute("INSERT INTO saga_schedules VALUES (%s, now())", [HOSTILE])
    emptied_storage.pause(HOSTILE, actor=HOSTILE, reason=HOSTILE)
    return saga_id


def test_hostile_text_stays_text(ann: Browser, hostile: UUID, emptied_storage: PostgresSagaStorage) -> None:
    owner = LeaseRequest(owner=HOSTILE, seconds=600)
    emptied_storage.create_sagas([NewSaga(id=new_saga_id(), name=HOSTILE, context="{}")], lease=owner)
    pages = (
        "/",
        "/sagas",
        "/dead",
        "/schedules",
        "/workers",
        "/pauses",
        f"/sagas/{hostile}",
        f"/sagas/{hostile}/retry",
    )

    for path in pages:
        page = ann.get(path, params={"error": HOSTILE} if path == "/sagas" else None)
        assert page.status_code == 200, path
        assert "<script>alert" not in page.text, path
        assert "<img" not in page.text, path
        assert "\u202e" not in page.text, path
        assert "\\u202egnp.exe" in page.text, path
    for path in ("/sagas", "/bulk", "/pauses/resume", "/pauses/pause", "/find", "/login"):
        asked = dict.fromkeys(("name", "status", "state", "tags", "since", "q", "action", "next", "after"), HOSTILE)
        page = ann.get(path, params=asked)
        assert "<script>alert" not in page.text, path
        assert "<img" not in page.text, path


def test_a_context_that_cannot_be_shown_breaks_no_page(
    vic: Browser, started: Started, emptied_storage: PostgresSagaStorage
) -> None:
    deep, large = started(), started()
    with emptied_storage.connections.cursor() as cursor:
        cursor.execute("UPDATE saga_executions SET context = %s WHERE id = %s", ["[" * 2000 + "]" * 2000, deep])
        cursor.execute(
            "UPDATE saga_executions SET context = %s WHERE id = %s", ['{"a": "' + "x" * 90_000 + '"}', large]
        )

    assert vic.get(f"/sagas/{deep}").status_code == 200
    assert "the first 50000 of" in vic.get(f"/sagas/{large}").text


def test_a_saga_of_unknown_steps_is_shown_without_them(
    vic: Browser, started: Started, emptied_storage: PostgresSagaStorage
) -> None:
    older, foreign = started(), started()
    with emptied_storage.connections.cursor() as cursor:
        cursor.execute("UPDATE saga_executions SET definition = NULL WHERE id = %s", [older])
        cursor.execute("UPDATE saga_logs SET step_name = 'gone' WHERE saga_id = %s", [foreign])

    assert "Its steps are not stored" in vic.get(f"/sagas/{older}").text
    assert "Its steps cannot be shown" in vic.get(f"/sagas/{foreign}").text


def test_a_kind_of_node_without_a_template_is_shown_as_a_step(
    vic: Browser, started: Started, emptied_storage: PostgresSagaStorage
) -> None:
    saga_id = started(saga=PrintBill)
    with emptied_storage.connections.cursor() as cursor:
        cursor.execute("UPDATE saga_definitions SET graph = replace(graph::text, '\"ship\",', '\"ship\",')::json")
        cursor.execute(
            "UPDATE saga_definitions SET graph = jsonb_set(graph::jsonb, '{nodes,1,kind}', '\"../../etc\"')::json"
        )

    page = vic.get(f"/sagas/{saga_id}")

    assert page.status_code == 200
    assert "<strong>ship</strong>" in page.text


def test_lists_are_filtered_and_paged(vic: Browser, started: Started, engine: SagaEngine) -> None:
    ids = [engine.start(Restock, Order(), idempotency_key=f"k-{n}", tags={"n": str(n % 2)}) for n in range(60)]
    dead = started("stuck")

    def found(page: str) -> list[str]:
        return re.findall(r'<a class="id" href="/sagas/([0-9a-f-]{36})"', page)

    first = vic.get("/sagas", params={"name": "restock"}).text
    assert found(first) == [str(saga_id) for saga_id in ids[:9:-1]]
    following = re.search(r'rel="next" href="([^"]*)"', first)
    assert following is not None
    second = vic.get(following[1].replace("&amp;", "&")).text
    assert found(second) == [str(saga_id) for saga_id in ids[9::-1]]
    assert 'rel="next"' not in second
    assert found(vic.get("/sagas", params={"key": "k-7"}).text) == [str(ids[7])]
    assert len(found(vic.get("/sagas", params={"tags": "n=1"}).text)) == 30
    assert found(vic.get("/sagas", params={"error": "JAMMED"}).text) == [str(dead)]
    assert found(vic.get("/sagas", params={"state": "dead"}).text) == [str(dead)]
    assert found(vic.get("/dead").text) == [str(dead)]
    assert found(vic.get("/sagas", params={"since": "2001-01-01", "until": "2001-01-02"}).text) == []
    assert f"/sagas/{ids[3]}" in str(vic.get("/find", params={"q": str(ids[3])}).url)
    assert found(vic.get("/find", params={"q": "k-4"}).text) == [str(ids[4])]


@pytest.mark.parametrize(
    ("field", "value", "problem"),
    [
        ("status", "DONE", "is no status"),
        ("state", "gone", "is no state"),
        ("tags", "customer", "is no tag with its value"),
        ("since", "yesterday", "is no time"),
        ("name", "a\0b", "NUL"),
        ("after", "x", "is no id"),
    ],
)
def test_a_filter_that_is_not_understood_is_left_out_with_a_sentence(
    vic: Browser, field: str, value: str, problem: str
) -> None:
    page = vic.get("/sagas", params={field: value})

    assert page.status_code == 200
    assert problem in page.text


def test_a_search_without_an_index_looks_at_so_many_sagas_and_goes_on_from_there(
    vic: Browser, engine: SagaEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    rare = engine.start(PrintBill, Order())
    for _ in range(6):
        engine.start(Restock, Order())
    monkeypatch.setattr("sagas.console.pages.MOST_SEARCHED", 4)

    first = vic.get("/sagas", params={"name": "print-bill"}).text

    assert str(rare) not in first
    further = re.search(r'rel="next" href="([^"]*)">Look further back', first)
    assert further is not None
    assert str(rare) in vic.get(further[1].replace("&amp;", "&")).text


def test_what_does_not_exist_gets_a_page_that_says_so(vic: Browser) -> None:
    for path in (f"/sagas/{new_saga_id()}", "/sagas/nonsense", "/nowhere", "/static/nothing.css"):
        page = vic.get(path)
        assert page.status_code == 404, path
        assert "Content-Security-Policy" in page.headers


class Counter:
    """Counts the statements that reach the server, apart from those that begin and end transactions."""

    def __init__(self) -> None:
        self.statements: list[str] = []


@pytest.fixture
def counter(monkeypatch: pytest.MonkeyPatch) -> Iterator[Counter]:
    """What the server is asked meanwhile."""
    counter = Counter()
    execute = psycopg.Cursor.execute

    def counted(self: Any, statement: Any, *args: Any, **options: Any) -> Any:
        text = str(statement).lstrip()
        text = "\n".join(line for line in text.splitlines() if not line.startswith("--")).lstrip()
        if text and not text.startswith(CONTROL):
            counter.statements.append(text)
        return execute(self, statement, *args, **options)

    monkeypatch.setattr(psycopg.Cursor, "execute", counted)
    return counter


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/sagas",
        "/sagas?name=restock",
        "/dead",
        "/schedules",
        "/workers",
        "/pauses",
        "/sagas/{id}",
        "/sagas/{id}/cancel",
    ],
)
def test_no_page_asks_more_than_five_statements(ann: Browser, started: Started, counter: Counter, path: str) -> None:
    saga_id = started()
    asked = path.format(id=saga_id)
    ann.get(asked)
    counter.statements.clear()

    assert ann.get(asked).status_code == 200

    assert 1 <= len(counter.statements) <= 5, counter.statements


def test_schedules_are_shown_with_their_code_and_without(
    vic: Browser, engine: SagaEngine, emptied_storage: PostgresSagaStorage
) -> None:
    nightly = Schedule(Restock, "0 3 * * *", context=lambda _: Order(), timezone="Europe/Berlin", name="nightly")
    engine.registry.add_schedule(nightly)
    with emptied_storage.connections.cursor() as cursor:
        cursor.execute("INSERT INTO saga_schedules VALUES ('nightly', '2001-01-01 02:00:00+00')")

    assert "runs without the code of some schedules" in vic.get("/schedules").text
    with served(console(engine, access=LoopbackOnly(Person("dev")))) as url:
        page = httpx.get(f"{url}/schedules").text
    assert "0 3 * * *" in page
    assert "Europe/Berlin" in page
    assert ">late</span>" in page
    assert "without the code" not in page

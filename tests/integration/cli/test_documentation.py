"""docs/cli.md: every command in it, run against real sagas, prints what the page shows; times and pids aside."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import pytest

from sagas import PostgresSagaStorage, SagaEngine
from sagas.progress import Action, SagaStatus
from sagas.storage.leases import Lease, LeaseRequest
from sagas.storage.records import NewSaga, completed
from sagas.storage.transitions import GaveBack, Progressed
from tests.integration.cli.conftest import Command

#: The ids that the page shows, by what became of the sagas.
IDS: Final = {
    name: UUID(f"019aad7e-{number:02x}00-7c3a-9d41-5be80d6c{number:04x}")
    for number, name in enumerate(
        ("completed", "compensated", "dead", "held", "expired", "sleeping", "queued", "due", "parked"), start=0x11
    )
}


@pytest.fixture
def page(repository: Path) -> str:
    return (repository / "docs" / "cli.md").read_text()


@pytest.fixture
def shop(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The module that the page shows."""
    code = re.search(r"```python\n(.*?)```", page, re.DOTALL)
    assert code is not None
    (tmp_path / "shop.py").write_text(code[1])
    monkeypatch.syspath_prepend(tmp_path)
    sys.modules.pop("shop", None)
    yield __import__("shop")
    sys.modules.pop("shop", None)


@pytest.fixture
def incident(shop: Any, storage: PostgresSagaStorage, sql: Callable[..., Any]) -> None:
    """A saga in every standing, the oldest first, a minute apart."""
    engine = SagaEngine(storage, sagas=[shop.PlaceOrder], node="worker-1@shop")
    made: dict[str, UUID] = {}
    for name, item, cents in (("completed", "lamp", 2990), ("compensated", "desk", 89_900), ("dead", "piano", 450_000)):
        made[name] = engine.run(shop.PlaceOrder, shop.Order(item, cents), idempotency_key=f"order-{cents}").saga_id
    while not storage.load(made["dead"]).dead:
        engine.recover(made["dead"], by_hand=True)
    for name, item in (("held", "chair"), ("expired", "rug"), ("sleeping", "sofa")):
        saga = _new(shop, made, name, item)
        owner = {"held": "worker-2@shop/4711.90210", "expired": "worker-3@shop/815.4242"}.get(name, "worker-1@shop/1.1")
        request = LeaseRequest(owner=owner, seconds=-60 if name == "expired" else 110)
        storage.create_sagas([saga], lease=request)
        lease = Lease(saga.id, 1, owner, request.token)
        reserved = (completed("reserve-stock", Action.ACT),)
        storage.apply(lease, Progressed(events=reserved, status=SagaStatus.RUNNING, in_flight=("charge-card",)))
        if name == "sleeping":
            storage.apply(lease, GaveBack(status=SagaStatus.RUNNING, after_seconds=115))
    storage.create_sagas([_new(shop, made, "queued", "shelf")], queued=True)
    storage.create_sagas([_new(shop, made, "due", "clock")])
    storage.create_sagas([_new(shop, made, "parked", "vase", "return-parcel")])
    storage.pause("return-parcel", actor="ann@ops-1", reason="the carrier is on strike")
    sql("INSERT INTO saga_scans (worker, at) VALUES ('worker-1.shop', now() - interval '3 s')")
    _give_fixed_ids_and_ages(made, sql)


def _new(shop: Any, made: dict[str, UUID], name: str, item: str, saga: str = "place-order") -> NewSaga:
    made[name] = IDS[name]
    return NewSaga(
        id=IDS[name],
        name=saga,
        context=f'{{"item": "{item}", "cents": 2990}}',
        definition=shop.PlaceOrder.graph.hash,
    )


def _give_fixed_ids_and_ages(made: dict[str, UUID], sql: Callable[..., Any]) -> None:
    for place, (name, saga_id) in enumerate(made.items()):
        seconds = 60 * (len(made) - place) + 130
        sql("UPDATE saga_logs SET saga_id = :id WHERE saga_id = :was", id=IDS[name], was=saga_id)
        sql(
            """UPDATE saga_executions SET id = :id, created_at = now() - make_interval(secs => :s),
                updated_at = now() - make_interval(secs => :s - 15),
                finished_at = CASE WHEN finished_at IS NOT NULL THEN now() - make_interval(secs => :s - 15) END
            WHERE id = :was""",
            id=IDS[name],
            was=saga_id,
            s=seconds,
        )
    sql("""
        UPDATE saga_logs l SET created_at = e.created_at + 1.5 * n * interval '1 s'
        FROM saga_executions e, (SELECT id, row_number() OVER (PARTITION BY saga_id ORDER BY id) AS n FROM saga_logs) o
        WHERE e.id = l.saga_id AND o.id = l.id""")


#: What differs from run to run.
CHANGING: Final = (
    (re.compile(r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d(?:\.\d+\+00:00)?"), "TIME"),
    (re.compile(r"\b\d+ (?:s|min)\b"), "DURATION"),
    (re.compile(r"/\d+\.\d+"), "/PROCESS"),
    (re.compile(r'"age_seconds": [\d.]+'), '"age_seconds": N'),
)


def normal(text: str) -> str:
    text = " ".join(text.split())  # where a line is continued depends on what changes
    for pattern, fixed in CHANGING:
        text = pattern.sub(fixed, text)
    return text


def examples(page: str) -> list[tuple[str, str]]:
    """Each command of the page and what it prints below it."""
    found = []
    for block in re.findall(r"```console\n(.*?)```", page, re.DOTALL):
        for example in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, _, output = example.partition("\n")
            found.append((command, output))
    return found


@pytest.mark.usefixtures("incident")
def test_every_command_prints_what_the_page_shows(page: str, sagas: Command) -> None:
    ran = 0
    for command, expected in examples(page):
        program, *arguments = shlex.split(command)
        assert program == "sagas"
        if arguments[0] == "--install-completion":
            continue
        result = sagas(*arguments, SAGAS_MODULES="shop", COLUMNS="100", FORCE_COLOR="1")
        # Without colours, and without a progress bar that the terminal no longer shows.
        output = re.sub("\x1b\\[\\?25l.*?\x1b\\[1A|\x1b\\[[0-9;]*[mK]", "", result.output, flags=re.DOTALL)
        assert normal(output) == normal(expected), f"$ {command}\n{output}"
        assert result.exit_code == 0
        ran += 1
    assert ran > 10

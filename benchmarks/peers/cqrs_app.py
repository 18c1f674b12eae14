"""Recovery of python-cqrs by two plain Celery tasks: the loop of its example scheduler, split into scan and fan-out."""

from __future__ import annotations

import asyncio
import os
import uuid
from typing import Any

from celery import Celery, signals
from cqrs.saga.recovery import recover_saga

from benchmarks.peers.cqrs_sagas import Container, FaultyOrder, OrderContext, storage

SCAN_SECONDS = float(os.environ.get("SAGAS_SCAN_INTERVAL_SECONDS", "1"))
#: No step takes longer, so no running saga looks stale.
STALE_SECONDS = max(1, round(float(os.environ.get("SAGAS_LEASE_SECONDS", "2"))))

app = Celery("peer", broker=os.environ.get("SAGAS_BROKER_URL"))
app.conf.update(
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    worker_prefetch_multiplier=1,
    task_ignore_result=True,
    broker_connection_retry_on_startup=True,
    beat_scheduler="celery.beat:Scheduler",
    beat_schedule={"scan": {"task": "peer.scan", "schedule": SCAN_SECONDS}},
    broker_transport_options={"socket_connect_timeout": 2, "max_retries": 1},
)
_of_this_process: list[Any] = []


@signals.worker_process_init.connect
def _prepare(**_: Any) -> None:
    _of_this_process[:] = [asyncio.new_event_loop(), storage()]


def _run(action: Any) -> Any:
    if not _of_this_process:
        _prepare()
    loop, kept = _of_this_process
    return loop.run_until_complete(action(kept))


@app.task(name="peer.scan")
def scan() -> None:
    """Find stale sagas, and send a task for each."""
    found = _run(lambda kept: kept.get_sagas_for_recovery(1000, 5, STALE_SECONDS))
    for saga_id in found:
        recover.delay(str(saga_id))


@app.task(name="peer.recover")
def recover(saga_id: str) -> None:
    """Run or recover a saga."""
    _run(lambda kept: recover_saga(FaultyOrder(), uuid.UUID(saga_id), OrderContext, Container(), kept))

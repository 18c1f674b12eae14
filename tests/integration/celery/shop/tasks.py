"""Tasks of the shop that belong to no application in particular."""

from __future__ import annotations

import time

from celery import shared_task

from tests.integration.celery.shop import note


@shared_task
def mail(to: str) -> str:
    """Pretend to send a mail."""
    return f"to {to}"


@shared_task
def report() -> str:
    """Pretend to write a report."""
    return "written"


@shared_task
def sleepy(seconds: float) -> str:
    """Sleep longer than a task of the shop may."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        time.sleep(0.05)
    return "awake"


@shared_task(rate_limit="100/s")
def tick() -> None:
    """Note that beat is there."""
    note("tick")

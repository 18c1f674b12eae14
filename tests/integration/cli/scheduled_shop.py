"""Schedules beside the shop's saga, for a command that reads SAGAS_MODULES."""

from __future__ import annotations

from datetime import datetime

from sagas import Schedule
from tests.integration.cli.shop import Order, PlaceOrder


def _fails(tick: datetime) -> Order:
    raise LookupError("the shelf is empty")


weekly = Schedule(
    PlaceOrder, "30 9 * * MON", context=lambda tick: Order("tea"), timezone="Europe/Berlin", catch_up="all"
)
nightly = Schedule(PlaceOrder, "0 3 * * *", context=_fails, name="nightly")

"""Sagas whose steps run in other threads than their worker's."""

from dataclasses import dataclass
from datetime import timedelta

from shop.models import Order

from sagas import Call, Saga, Step, Wait


@dataclass
class Bill:
    number: str


class PrintBill(Step[Bill]):
    timeout = 30

    def act(self, bill: Bill, call: Call) -> None:
        Order.objects.filter(number=bill.number).update(state="printed")


class SendBill(Step[Bill]):
    async def act(self, bill: Bill, call: Call) -> None:
        assert await Order.objects.filter(number=bill.number, state="printed").aupdate(state="sent") == 1


class SettleBill(Saga[Bill]):
    steps = [PrintBill, SendBill]


class Approval(Wait[bool]):
    timeout = timedelta(days=2)


class ApproveBill(Saga[Bill]):
    steps = [Approval]

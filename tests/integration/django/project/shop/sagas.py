"""Sagas that use models, as Django's users write them."""

from dataclasses import dataclass

from sagas import Call, Saga, Step
from shop.models import Order


@dataclass
class Purchase:
    number: str


class Pay(Step[Purchase]):
    def act(self, purchase: Purchase, call: Call) -> None:
        Order.objects.filter(number=purchase.number).update(state="paid")

    def compensate(self, purchase: Purchase, call: Call) -> None:
        Order.objects.filter(number=purchase.number).update(state="refunded")


class PlaceOrder(Saga[Purchase]):
    steps = [Pay]

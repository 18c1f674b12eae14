"""A program of the project: what a view or a command of a real one would do; prints ids as JSON."""

import json
import os

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "proj.settings")

import django

django.setup()

from billing.sagas import Bill, SettleBill
from django.db import transaction
from shop.models import Order
from shop.sagas import PlaceOrder, Purchase
from shop.tasks import mail

from sagas import start

mail.delay("before")
with transaction.atomic():
    Order.objects.create(number="a")
    Order.objects.create(number="b")
    ids = [start(PlaceOrder, Purchase("a")), start(SettleBill, Bill("b"))]
mail.delay("after")
print(json.dumps([str(saga_id) for saga_id in ids]))

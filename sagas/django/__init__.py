"""Sagas in Django: add `sagas.django` to INSTALLED_APPS.

Django's setting `SAGAS` has the engine's settings. Each application defines its sagas in its module `sagas`. `manage.py
sagas` is the command line.
A saga that is started inside `transaction.atomic` exists if and only if the transaction commits.
"""

from sagas.django.steps import TransactionalStep
from sagas.django.transactions import outside_transaction

__all__ = ["TransactionalStep", "outside_transaction"]

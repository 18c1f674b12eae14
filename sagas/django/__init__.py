"""Sagas in Django: put `sagas.django` into INSTALLED_APPS.

Settings are in `SAGAS`, sagas in the module `sagas` of each application, and `manage.py sagas` is the command line.
A saga that is started inside `transaction.atomic` exists if and only if the transaction commits.
"""

from sagas.django.transactions import outside_transaction

__all__ = ["outside_transaction"]

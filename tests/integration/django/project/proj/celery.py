"""As in Celery's documentation, and one line for sagas."""

import os

from celery import Celery

from sagas.celery import install

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "proj.settings")

app = Celery("proj")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()
install(app)

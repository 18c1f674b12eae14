"""The settings of a small project; tests give the servers."""

import json
import os

SECRET_KEY = "of a test"
INSTALLED_APPS = [
    "django.contrib.contenttypes",
    "django.contrib.auth",
    "sagas.django",
    "shop",
    "billing",
]
USE_TZ = True
ROOT_URLCONF = "proj.urls"
ALLOWED_HOSTS = ["*"]

_default = {"ENGINE": "django.db.backends.postgresql", "ATOMIC_REQUESTS": True, **json.loads(os.environ["DATABASE"])}
DATABASES = {
    "default": _default,
    "other": {**_default, "NAME": _default["NAME"] + "_other", "ATOMIC_REQUESTS": False},
    "file": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"},
}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

CELERY_BROKER_URL = os.environ["BROKER"]
CELERY_WORKER_PREFETCH_MULTIPLIER = 1

SAGAS = json.loads(os.environ.get("SAGAS", '{"SCAN_INTERVAL_SECONDS": 0.5, "LEASE_SECONDS": 3}'))
if os.environ.get("BROKEN"):
    raise RuntimeError("these settings are broken")

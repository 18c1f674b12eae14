"""Celery's settings of the reference deployment: they are the settings of the sagas' own application.

`sagas.celery.configuration` gives the reason of each. Values that differ between installations come from `SAGAS_...`
variables. An assignment below replaces a value, as in any settings module of Celery.
"""

from sagas.celery.configuration import configuration
from sagas.settings import Settings

globals().update(configuration(Settings.from_environment()))

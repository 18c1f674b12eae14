"""Celery's settings of the reference deployment: those of the sagas' own application.

`sagas.celery.configuration` gives each with its reason. Whatever differs between installations comes from `SAGAS_...`
variables. An assignment below would replace a value, as in any settings module of Celery.
"""

from sagas.celery.configuration import configuration
from sagas.settings import Settings

globals().update(configuration(Settings.from_environment()))

"""The reference deployment: a Celery application with sagas, as you would build your own.

`celery -A tasks worker`, `celery -A tasks beat` and `celery -A tasks flower` run it from the checkout.
"""

from celery import Celery

from sagas.celery import install

app = Celery("tasks")
app.config_from_object("celeryconfig")
install(app)

"""Links by which people and outside services answer a saga that waits: signed, for one wait, expiring, used once.

`callback_url` makes a link. `app` is the ASGI application that serves the links; mount it, or run it by itself.
"""

from sagas.callbacks.asgi import CallbackApp, app
from sagas.callbacks.links import callback_url

__all__ = ["CallbackApp", "app", "callback_url"]

"""The console: pages that show how sagas stand and why, and let operators act on them. `sagas console` serves it.

To have it in an application of your own, mount `console(access=...)`, which is an ASGI application. It needs the extra
`celery-sagas[console]`.
"""

from sagas.console.access import Access, Login, LoopbackOnly, Passwords, Person, Role
from sagas.console.application import console

__all__ = ["Access", "Login", "LoopbackOnly", "Passwords", "Person", "Role", "console"]

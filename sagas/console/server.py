"""Serves the console by itself, as `sagas console` does."""

from __future__ import annotations

import uvicorn

from sagas.console.access import Access, LoopbackOnly, Passwords, Person, Role, is_loopback
from sagas.console.application import console
from sagas.engine import SagaEngine
from sagas.errors import ConfigurationError
from sagas.settings import Settings


def access_of(settings: Settings, host: str, *, person: str) -> Access:
    """Return who may use a console that listens on a host.

    Args:
        settings: they have the passwords.
        host: the name or address that it listens on.
        person: who acts where there is no password.

    Raises:
        ConfigurationError: it can be reached from other machines and has no password, or a password cannot be used.
    """
    if settings.console_password is None and settings.console_viewer_password is None:
        if not is_loopback(host):
            raise ConfigurationError(
                f"the console would be open to everybody who reaches {host}: set SAGAS_CONSOLE_PASSWORD, or let it "
                "listen on 127.0.0.1 only."
            )
        return LoopbackOnly(Person(person, Role.OPERATOR))
    return Passwords(
        operator=settings.console_password,
        viewer=settings.console_viewer_password,
        secret=settings.console_secret,
    )


def serve(engine: SagaEngine, access: Access, *, host: str, port: int) -> None:
    """Serve the console until the process is asked to end.

    Args:
        engine: acts on sagas.
        access: who may use it.
        host, port: where it listens.
    """
    app = console(engine, access=access)
    # No configuration of its own: it would take the lines of this process's loggers away.
    uvicorn.run(app, host=host, port=port, log_config=None, log_level="warning", server_header=False)

"""`sagas console`: pages that show how sagas stand, and let operators act on them."""

from __future__ import annotations

import logging
import sys
from typing import Annotated

import typer

from sagas import api
from sagas.cli.database import storage
from sagas.cli.errors import CommandFailed
from sagas.cli.prompts import operator
from sagas.engine import SagaEngine


def console(
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65_535, help="The port to listen on.")] = 5580,
) -> None:
    """Serve the console: what stands how and why, and actions on it.

    Without a password it answers this machine only. SAGAS_CONSOLE_PASSWORD lets operators in from elsewhere, and
    SAGAS_CONSOLE_VIEWER_PASSWORD people who may only look. It needs neither broker nor worker, and runs no code of
    sagas.
    """
    try:
        from sagas.console.server import access_of, serve
    except ModuleNotFoundError as error:
        raise CommandFailed(
            f"the console needs {error.name}, which is not installed: pip install 'celery-sagas[console]'."
        ) from error
    by, settings = operator(), api.settings()
    access = access_of(settings, host, person=by)
    engine = SagaEngine(storage(), settings=settings, node=by)
    logging.basicConfig(
        stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", force=True
    )
    shown = f"[{host}]" if ":" in host else host
    typer.echo(f"The console is at http://{shown}:{port}/ until Ctrl-C.")
    serve(engine, access, host=host, port=port)

"""`sagas metrics`: print the metrics of the database, or serve them to Prometheus until it is stopped."""

from __future__ import annotations

from threading import Event
from typing import Annotated

import typer

from sagas.cli.database import storage
from sagas.cli.errors import CommandFailed


def metrics(
    port: Annotated[int, typer.Option(min=1, max=65_535, help="Where to listen.")] = 9808,
    host: Annotated[str, typer.Option(help="On which interface; the default is this host's own.")] = "127.0.0.1",
    once: Annotated[bool, typer.Option("--once", help="Print them and end.")] = False,
) -> None:
    """Serve metrics of the database to Prometheus.

    No worker needs to be up.
    """
    try:
        from prometheus_client import CollectorRegistry, generate_latest, start_http_server

        from sagas.telemetry.database import DatabaseMetrics
    except ModuleNotFoundError as error:
        raise CommandFailed(
            f"metrics need more than is installed ({error}): pip install 'celery-sagas[metrics]'."
        ) from error
    registry = CollectorRegistry()
    registry.register(DatabaseMetrics(storage()))
    if once:
        typer.echo(generate_latest(registry), nl=False)
        return
    try:
        start_http_server(port, host, registry)
    except OSError as error:
        raise CommandFailed(f"{host}:{port} cannot be listened on ({error}): give another --port or --host.") from error
    typer.echo(f"serving metrics at http://{host}:{port}/metrics; Ctrl-C ends it", err=True)
    Event().wait()

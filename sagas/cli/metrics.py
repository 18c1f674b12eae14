"""What `sagas metrics` does: print the metrics of the database, or serve them to Prometheus until it is stopped."""

from __future__ import annotations

from threading import Event

import typer

from sagas.cli.errors import CommandFailed
from sagas.storage import PostgresSagaStorage


def metrics(storage: PostgresSagaStorage, *, host: str, port: int, once: bool) -> None:
    """Print the metrics once, or serve them on this address; each scrape asks the database.

    Raises:
        CommandFailed: prometheus-client is not installed, or the address is taken.
    """
    try:
        from prometheus_client import CollectorRegistry, generate_latest, start_http_server

        from sagas.telemetry.database import DatabaseMetrics
    except ModuleNotFoundError as error:
        raise CommandFailed(
            f"metrics need more than is installed ({error}): pip install 'celery-sagas[metrics]'."
        ) from error
    registry = CollectorRegistry()
    registry.register(DatabaseMetrics(storage))
    if once:
        typer.echo(generate_latest(registry), nl=False)
        return
    try:
        start_http_server(port, host, registry)
    except OSError as error:
        raise CommandFailed(f"{host}:{port} cannot be listened on ({error}): give another --port or --host.") from error
    typer.echo(f"serving metrics at http://{host}:{port}/metrics; Ctrl-C ends it", err=True)
    Event().wait()

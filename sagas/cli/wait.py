"""`sagas wait`: wait until a saga has ended, and tell by the exit code how."""

from __future__ import annotations

from typing import Annotated

import typer

from sagas.cli.database import inspector, storage
from sagas.cli.durations import parse_wait
from sagas.cli.errors import complain
from sagas.cli.ids import WHICH, saga_id_of
from sagas.cli.serialize import AsJson, everything_of, print_json
from sagas.definitions import Definitions
from sagas.progress import SagaStatus
from sagas.reading import Reader
from sagas.registry import Registry
from sagas.text import one_line


def wait(
    saga_id: Annotated[str, typer.Argument(metavar="ID", help=WHICH)],
    timeout: Annotated[
        float | None,
        typer.Option(parser=parse_wait, metavar="SECONDS", help="How long to wait at most; default: without a limit."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Wait until a saga has ended.

    The exit code is 0 if it is COMPLETED, and 1 if it is COMPENSATED, dead, or not over in time.
    """
    asked, stored, registry = inspector(), storage(), Registry()
    view = Reader(stored, registry, Definitions(stored, registry)).wait(saga_id_of(saga_id, asked), timeout)
    if as_json:
        print_json(everything_of(stored.load(view.id)))
    if view.status is SagaStatus.COMPLETED:
        if not as_json:
            typer.echo(f"saga {view.id} is COMPLETED.")
        return
    why = f": {one_line(view.last_error)}" if view.last_error else "."
    what = f"dead, and waits for an operator (`sagas show {view.id}`)" if view.dead else view.status
    complain(f"saga {view.id} is {what}{why}")

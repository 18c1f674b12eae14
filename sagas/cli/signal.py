"""The commands that send something to sagas: signal and cancel. The worker that runs the saga reads it."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from sagas import api
from sagas.cli.database import inspector, storage
from sagas.cli.errors import complain
from sagas.cli.ids import WHICH, SagaIds, saga_id_of, saga_ids_of
from sagas.cli.prompts import Reason, Yes, confirm_for, operator
from sagas.cli.render import fitted, out
from sagas.cli.serialize import AsJson, print_json
from sagas.engine import SagaEngine
from sagas.errors import ConfigurationError, SagaNotFound, SignalRefused
from sagas.inspection.standing import in_words
from sagas.settings import Settings
from sagas.storage import PostgresSagaStorage
from sagas.text import one_line, printable


def signal(
    saga_id: Annotated[str, typer.Argument(metavar="ID", help=WHICH)],
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="The wait's name, as `sagas show` and `sagas graph` tell it.")
    ],
    *,
    payload: Annotated[str, typer.Option(metavar="JSON", help="What the signal brings.")] = "null",
    signal_id: Annotated[
        str | None,
        typer.Option("--id", metavar="TEXT", help="Your name for the signal: the same one twice is one signal."),
    ] = None,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Send a signal to a saga, for one of its waits; it is kept if the saga does not wait for it yet."""
    try:
        brings: Any = json.loads(payload)
    except ValueError as error:
        raise typer.BadParameter(
            f'{printable(payload)[:100]!r} is not JSON ({error}): write it as \'{{"courier": "ann"}}\'.',
            param_hint="'--payload'",
        ) from None
    engine, found = _engine(), saga_id_of(saga_id, inspector())
    record = engine.storage.load(found)
    confirm_for(record, f"send it the signal {name!r}", yes)
    new = engine.signal(found, name, brings, signal_id=signal_id, actor=operator())
    details = inspector().details(found)
    if as_json:
        print_json({"saga_id": found, "name": name, "is_new": new, "next": in_words(details)})
        return
    sent = f"{found}  {printable(record.name)}  signal {printable(name)} sent: {in_words(details)}"
    known = (
        f"{found}  {printable(record.name)}  signal {printable(name)} was sent before with this id: nothing was sent"
    )
    out(fitted(sent if new else known))


def cancel(saga_ids: SagaIds, reason: Reason, yes: Yes = False, as_json: AsJson = False) -> None:
    """Ask for sagas to be aborted: what they did is undone.

    One that a worker holds is aborted after its present step, without waiting for that here.
    """
    engine, asked, by = _engine(), inspector(), operator()
    ids = saga_ids_of(saga_ids, asked)
    for saga_id in ids:
        confirm_for(engine.storage.load(saga_id), "abort it and undo what it did", yes)
    cancelled = []
    for saga_id in ids:
        try:
            engine.cancel(saga_id, reason, actor=by)
        except (SignalRefused, SagaNotFound) as error:
            complain(error)
            continue
        details = asked.details(saga_id)
        cancelled.append({"saga_id": saga_id, "name": details.record.name, "next": in_words(details)})
        if not as_json:
            out(fitted(f"{saga_id}  {printable(details.record.name)}  asked to abort: {in_words(details)}"))
    if as_json:
        print_json(cancelled)


def _engine() -> SagaEngine:
    """Return what sends; without code where SAGAS_MODULES cannot be imported, as the worker checks a signal too."""
    try:
        return api.new_engine(storage=_storage)
    except ConfigurationError as error:
        typer.echo(f"warning: what is sent is not checked here ({one_line(str(error))})", err=True)
    return api.new_engine(storage=_storage, settings=api.settings().model_copy(update={"modules": ()}))


def _storage(_: Settings) -> PostgresSagaStorage:
    return storage()

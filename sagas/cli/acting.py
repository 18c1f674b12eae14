"""The commands that act on sagas: each asks first, and goes through the lease and the fence as a worker does."""

from __future__ import annotations

import getpass
import socket
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated
from uuid import UUID

import typer

from sagas import api
from sagas.cli.ages import waiting_seconds
from sagas.cli.asking import Yes, confirm
from sagas.cli.errors import CommandFailed, complain
from sagas.cli.ids import WHICH, saga_ids_of
from sagas.cli.names import nearest_of, stored_name, warn_if_unknown
from sagas.cli.recovering import recover_sagas
from sagas.cli.standing import in_words
from sagas.cli.words import console, fitted, terminal_width
from sagas.engine import SagaEngine
from sagas.errors import ActionRefused, LogDoesNotFit, SagaNotFound, UnknownSaga
from sagas.operating import Operator
from sagas.progress import SagaStatus
from sagas.storage import PostgresSagaStorage
from sagas.storage.operations import Operations
from sagas.storage.records import SagaRecord
from sagas.text import printable

acting = typer.Typer()

SagaId = Annotated[str, typer.Argument(metavar="ID", help=WHICH)]
SagaIds = Annotated[list[str], typer.Argument(metavar="ID...", help=WHICH)]
Because = Annotated[str, typer.Option("--because", metavar="TEXT", help="Why; kept in the saga's log with your name.")]
Wait = Annotated[
    float,
    typer.Option(
        parser=waiting_seconds,
        metavar="SECONDS",
        help="How long to wait for a worker that holds the saga; it is asked to give it back.",
    ),
]


class End(StrEnum):
    """How a saga may be resolved."""

    COMPLETED = "completed"
    COMPENSATED = "compensated"


@acting.command()
def recover(
    saga_ids: SagaIds,
    because: Because = "recovered by hand",
    yes: Yes = False,
) -> None:
    """Recover sagas here and now.

    Also while they back off, are dead or paused; never one that a worker holds.
    """
    engine = _engine()
    ids, well = saga_ids_of(saga_ids, _operations())
    if ids:
        _confirm_many("recover", len(ids), yes)
        well = recover_sagas(engine, ids, by=operator(), because=because) and well
    if not well:
        raise typer.Exit(1)


@acting.command()
def retry(
    saga_ids: Annotated[list[str] | None, typer.Argument(metavar="[ID...]", help=WHICH)] = None,
    dead: Annotated[bool, typer.Option("--dead", help="All that are dead.")] = False,
    name: Annotated[str | None, typer.Option(help="With --dead: only sagas of this name.")] = None,
    because: Because = "retried by hand",
    yes: Yes = False,
) -> None:
    """Make sagas due at once, with all their attempts again; the next scan sends them to workers."""
    if bool(saga_ids) == dead or (name and not dead):
        raise typer.BadParameter("give either ids, or --dead with or without --name.")
    operating = _without_code()
    ids, well = [], True
    if dead:
        ids = [record.id for record in operating.dead(name)]
        if not ids:
            typer.echo(
                "no sagas are dead." if name is None else f"no sagas named {printable(name)} are dead.", err=True
            )
            well = name is None or warn_if_unknown(name, _operations())
    else:
        ids, well = saga_ids_of(saga_ids or (), _operations())
    if ids:
        _confirm_many("retry", len(ids), yes)
    _for_each(ids, lambda saga_id: operating.retry(saga_id, because=because), well=well)


@acting.command()
def compensate(saga_ids: SagaIds, because: Because, wait: Wait = 30.0, yes: Yes = False) -> None:
    """Abort sagas, running or failed: what they did is undone, and they never run forward again."""
    operating = _with_code(wait)
    _act(saga_ids, "abort it and undo what it did", yes, lambda wanted: operating.compensate(wanted, because=because))


@acting.command()
def skip(
    saga_id: SagaId,
    step: Annotated[str, typer.Argument(metavar="STEP", help="The saga's next step, as `sagas show` names it.")],
    because: Because,
    wait: Wait = 30.0,
    yes: Yes = False,
) -> None:
    """Have a saga go on as if its next step were done: its act, or its compensation if the saga was aborted.

    You answer for the step: code neither acts nor compensates it from then on.
    """
    operating = _with_code(wait)
    _act([saga_id], f"skip its step {step!r}", yes, lambda wanted: operating.skip(wanted, step, because=because))


@acting.command()
def resolve(
    saga_ids: SagaIds,
    as_: Annotated[End, typer.Option("--as", help="How it was settled.")],
    because: Because,
    wait: Wait = 30.0,
    yes: Yes = False,
) -> None:
    """End sagas that were settled by other means; none of their code runs, and none needs to be here."""
    status = SagaStatus(as_.value.upper())
    operating = _without_code(wait)
    _act(saga_ids, f"end it as {status}", yes, lambda wanted: operating.resolve(wanted, status, because=because))


@acting.command()
def pause(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The sagas' name, as `sagas list` shows it.")],
    because: Because,
    yes: Yes = False,
) -> None:
    """Let no saga of this name be started, gone on with or recovered by workers until it is resumed.

    Running ones stop at the next step's boundary. What is started meanwhile is kept and runs later.
    """
    storage = _storage()
    name = stored_name(name)
    known = warn_if_unknown(name, Operations(storage))
    confirm(f"pause every saga named {printable(name)!r}?", yes)
    parked = storage.pause(name, by=operator(), because=because)
    shown = printable(name)
    typer.echo(f"{shown} is paused; {parked} that were due are parked. `sagas resume {shown}` ends it.")
    if not known:
        raise typer.Exit(1)


@acting.command()
def resume(name: Annotated[str, typer.Argument(metavar="NAME")], yes: Yes = False) -> None:
    """Let sagas of a paused name go on."""
    storage = _storage()
    name = stored_name(name)
    paused = [pause.name for pause in storage.pauses()]
    if name not in paused:
        raise CommandFailed(f"{printable(name)!r} is not paused. {nearest_of(name, paused, 'Paused are')}")
    confirm(f"resume every saga named {printable(name)!r}?", yes)
    typer.echo(f"{printable(name)} is resumed; {storage.resume(name)} that were parked are due.")


def operator() -> str:
    """Return who acts: the user and host of this process."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = "unknown"  # a container's user without a name
    return printable(f"{user}@{socket.gethostname()}")


# -- details ------------------------------------------------------------------------------------------------------


def _engine() -> SagaEngine:
    return api.new_engine(node=operator())


def _with_code(wait: float = 0.0) -> Operator:
    return Operator(_engine(), by=operator(), wait_seconds=wait)


def _without_code(wait: float = 0.0) -> Operator:
    """For what needs no saga's class: it works where SAGAS_MODULES cannot be imported, too."""
    settings = api.settings()
    engine = SagaEngine(PostgresSagaStorage(settings.database_url), settings=settings, node=operator())
    return Operator(engine, by=operator(), wait_seconds=wait)


def _storage() -> PostgresSagaStorage:
    return PostgresSagaStorage(api.settings().database_url)


def _operations() -> Operations:
    return Operations(_storage())


def _confirm_many(what: str, count: int, yes: bool) -> None:
    confirm(f"{what} {count} saga{'' if count == 1 else 's'}?", yes)


def _act(saga_ids: Sequence[str], what: str, yes: bool, action: Callable[[UUID], SagaRecord]) -> None:
    ids, well = saga_ids_of(saga_ids, _operations())
    storage = _storage()
    for saga_id in ids:
        record = storage.load(saga_id)
        confirm(f"{printable(record.name)} {record.id} is {record.status}: {what}?", yes)
    _for_each(ids, action, well=well)


def _for_each(ids: Iterable[UUID], action: Callable[[UUID], SagaRecord], *, well: bool = True) -> None:
    for saga_id in ids:
        try:
            record = action(saga_id)
        except (ActionRefused, LogDoesNotFit, SagaNotFound, UnknownSaga) as error:
            complain(error)
            well = False
        else:
            told = f"{record.id}  {printable(record.name)}  {record.status}: {in_words(record, datetime.now(UTC))}"
            console().print(fitted(told, terminal_width()))
    if not well:
        raise typer.Exit(1)

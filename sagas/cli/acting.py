"""The commands that act on sagas: each asks first, and goes through the lease and the fence as a worker does."""

from __future__ import annotations

import getpass
import socket
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated
from uuid import UUID

import typer

from sagas import api
from sagas.cli.asking import Yes, confirm
from sagas.cli.errors import CommandFailed, complain
from sagas.cli.recovering import recover_sagas
from sagas.cli.standing import in_words
from sagas.cli.words import one_line
from sagas.engine import SagaEngine
from sagas.errors import ActionRefused, InvalidSagaId, SagaError, SagaNotFound
from sagas.operating import Operator
from sagas.progress import SagaStatus
from sagas.recovery import parse_saga_id
from sagas.registry import Registry
from sagas.storage import SqlAlchemySagaStorage
from sagas.storage.base import SagaRecord

acting = typer.Typer()

SagaId = Annotated[str, typer.Argument(metavar="ID")]
Because = Annotated[str, typer.Option("--because", metavar="TEXT", help="Why; kept in the saga's log with your name.")]
Wait = Annotated[
    float,
    typer.Option(
        min=0, metavar="SECONDS", help="How long to wait for a worker that holds the saga; it is asked to give it back."
    ),
]


class End(StrEnum):
    """How a saga may be resolved."""

    COMPLETED = "completed"
    COMPENSATED = "compensated"


@acting.command()
def recover(
    saga_ids: Annotated[list[str], typer.Argument(metavar="ID...")],
    because: Because = "recovered by hand",
    yes: Yes = False,
) -> None:
    """Recover sagas here and now.

    Also while they back off, are dead or paused; never one that a worker holds.
    """
    _confirm_many("recover", len(saga_ids), yes)
    if not recover_sagas(_engine(), saga_ids, by=operator(), because=because):
        raise typer.Exit(1)


@acting.command()
def retry(
    saga_ids: Annotated[list[str] | None, typer.Argument(metavar="[ID...]")] = None,
    dead: Annotated[bool, typer.Option("--dead", help="All that are dead.")] = False,
    name: Annotated[str | None, typer.Option(help="With --dead: only sagas of this name.")] = None,
    because: Because = "retried by hand",
    yes: Yes = False,
) -> None:
    """Make sagas due at once, with all their attempts again; the next scan sends them to workers."""
    if bool(saga_ids) == dead or (name and not dead):
        raise typer.BadParameter("give either ids, or --dead with or without --name.")
    operating = _without_code()
    ids = [record.id for record in operating.dead(name)] if dead else [parse_saga_id(text) for text in saga_ids or ()]
    if not ids:
        typer.echo("no sagas are dead." if name is None else f"no sagas named {name} are dead.", err=True)
        return
    _confirm_many("retry", len(ids), yes)
    _for_each(ids, lambda saga_id: operating.retry(saga_id, because=because))


@acting.command()
def compensate(saga_id: SagaId, because: Because, wait: Wait = 30.0, yes: Yes = False) -> None:
    """Turn a saga back, running or failed: what it did is undone, and it never runs forward again."""
    _act(saga_id, "turn it back", yes, lambda wanted: _with_code(wait).compensate(wanted, because=because))


@acting.command()
def skip(
    saga_id: SagaId,
    step: Annotated[str, typer.Argument(metavar="STEP", help="The saga's next step, as `sagas show` names it.")],
    because: Because,
    wait: Wait = 30.0,
    yes: Yes = False,
) -> None:
    """Have a saga go on as if its next step were done: its act, or its compensation if the saga turned back.

    You answer for the step: code neither acts nor compensates it from then on.
    """
    _act(saga_id, f"skip its step {step!r}", yes, lambda wanted: _with_code(wait).skip(wanted, step, because=because))


@acting.command()
def resolve(
    saga_id: SagaId,
    as_: Annotated[End, typer.Option("--as", help="How it was settled.")],
    because: Because,
    wait: Wait = 30.0,
    yes: Yes = False,
) -> None:
    """End a saga that was settled by other means; none of its code runs, and none needs to be here."""
    status = SagaStatus(as_.value.upper())
    _act(
        saga_id, f"end it as {status}", yes, lambda wanted: _without_code(wait).resolve(wanted, status, because=because)
    )


@acting.command()
def pause(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The sagas' name, as `sagas list` shows it.")],
    because: Because,
    yes: Yes = False,
) -> None:
    """Let no saga of this name be started, gone on with or recovered by workers until it is resumed.

    Running ones stop at the next step's boundary. What is started meanwhile is kept and runs later.
    """
    name = _stored(name)
    confirm(f"pause every saga named {name!r}?", yes)
    parked = _storage().pause(name, by=operator(), because=because)
    typer.echo(f"{name} is paused; {parked} that were due are parked. `sagas resume {name}` ends it.")


@acting.command()
def resume(name: Annotated[str, typer.Argument(metavar="NAME")], yes: Yes = False) -> None:
    """Let sagas of a paused name go on."""
    storage = _storage()
    name = _stored(name)
    if name not in [paused.name for paused in storage.pauses()]:
        raise CommandFailed(f"{name!r} is not paused: `sagas stats` lists the names that are.")
    confirm(f"resume every saga named {name!r}?", yes)
    typer.echo(f"{name} is resumed; {storage.resume(name)} that were parked are due.")


def operator() -> str:
    """Return who acts: the user and host of this process."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = "unknown"  # a container's user without a name
    return f"{user}@{socket.gethostname()}"


# -- details ------------------------------------------------------------------------------------------------------


def _engine() -> SagaEngine:
    return api.new_engine(node=operator())


def _with_code(wait: float = 0.0) -> Operator:
    return Operator(_engine(), by=operator(), wait_seconds=wait)


def _without_code(wait: float = 0.0) -> Operator:
    """For what needs no saga's class: it works where SAGAS_MODULES cannot be imported, too."""
    settings = api.settings()
    engine = SagaEngine(SqlAlchemySagaStorage(settings.database_url), settings=settings, node=operator())
    return Operator(engine, by=operator(), wait_seconds=wait)


def _storage() -> SqlAlchemySagaStorage:
    return SqlAlchemySagaStorage(api.settings().database_url)


def _confirm_many(what: str, count: int, yes: bool) -> None:
    confirm(f"{what} {count} saga{'' if count == 1 else 's'}?", yes)


def _stored(name: str) -> str:
    """Return the name under which these sagas are stored, which is another for one that was renamed."""
    registry = Registry()
    try:
        registry.load(api.settings().modules)
        stored = registry.get(name).stored_name()
    except SagaError:
        return name  # sagas are paused, too, where their code cannot be imported
    if stored != name:
        typer.echo(f"{name} was renamed: its sagas are stored as {stored}.", err=True)
    return stored


def _act(saga_id: str, what: str, yes: bool, action: Callable[[UUID], SagaRecord]) -> None:
    wanted = parse_saga_id(saga_id)
    record = _storage().load(wanted)
    confirm(f"{record.name} {record.id} is {record.status}: {what}?", yes)
    typer.echo(_told(action(wanted)))


def _for_each(ids: Iterable[UUID], action: Callable[[UUID], SagaRecord]) -> None:
    well = True
    for saga_id in ids:
        try:
            typer.echo(_told(action(saga_id)))
        except (ActionRefused, InvalidSagaId, SagaNotFound) as error:
            complain(error)
            well = False
    if not well:
        raise typer.Exit(1)


def _told(record: SagaRecord) -> str:
    return f"{record.id}  {one_line(record.name)}  {record.status}: {in_words(record, datetime.now(UTC))}"

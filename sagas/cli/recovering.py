"""What `sagas recover` does: bring sagas on by hand, in this process, one after the other."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import typer

from sagas.cli.errors import complain
from sagas.cli.words import one_line
from sagas.engine import SagaEngine
from sagas.errors import InvalidSagaId, LeaseLost, SagaNotFound
from sagas.execution import Report
from sagas.storage.base import note

#: Outcomes that leave the operator something to see to.
_BAD_OUTCOMES: Final = frozenset({"failed", "dead", "declined", "lost"})


def recover_sagas(engine: SagaEngine, saga_ids: Iterable[str], *, by: str, because: str) -> bool:
    """Recover the sagas, print what was done for each, and return whether all went well.

    Raises:
        StorageUnavailable: the database does not answer; the sagas that follow are not tried.
    """
    well = True
    for saga_id in saga_ids:
        try:
            report = engine.recover(saga_id, by_hand=True, told=note("recover", by=by, because=because))
        except (InvalidSagaId, LeaseLost, SagaNotFound) as error:
            complain(error)
            well = False
            continue
        typer.echo(_told(report))
        well = well and report.outcome not in _BAD_OUTCOMES
    return well


def _told(report: Report) -> str:
    done = [f"    {one_line(deed)}" for deed in report.did]
    return "\n".join([f"{report.saga_id}  {report.name}  {report.outcome}: {one_line(report.message)}", *done])

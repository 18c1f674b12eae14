"""What `sagas recover` does: bring sagas on by hand, in this process, one after the other."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final
from uuid import UUID

from rich.text import Text

from sagas.cli.errors import complain
from sagas.cli.words import console, fitted, one_line, terminal_width
from sagas.engine import SagaEngine
from sagas.errors import LeaseLost, SagaNotFound
from sagas.execution import Report
from sagas.storage.records import note
from sagas.text import printable

#: Outcomes that leave the operator something to see to.
_BAD_OUTCOMES: Final = frozenset({"failed", "dead", "declined", "lost"})


def recover_sagas(engine: SagaEngine, saga_ids: Iterable[UUID], *, by: str, because: str) -> bool:
    """Recover the sagas, print what was done for each, and return whether all went well.

    Raises:
        StorageUnavailable: the database does not answer; the sagas that follow are not tried.
    """
    well = True
    for saga_id in saga_ids:
        try:
            report = engine.recover(saga_id, by_hand=True, told=note("recover", by=by, because=because))
        except (LeaseLost, SagaNotFound) as error:
            complain(error)
            well = False
            continue
        console().print(Text("\n").join(_told(report)))
        well = well and report.outcome not in _BAD_OUTCOMES
    return well


def _told(report: Report) -> Iterator[Text]:
    width = terminal_width()
    told = f"{report.saga_id}  {printable(report.name)}  {report.outcome}: {one_line(report.message)}"
    yield fitted(told, width)
    for deed in report.did:
        yield fitted(f"    {one_line(deed)}", width, indent=8)

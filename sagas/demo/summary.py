"""What came of it all, in a few lines."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from sagas import SagaStatus
from sagas.demo.ledger import Books
from sagas.demo.watching import Kill
from sagas.progress import Verdict
from sagas.storage.records import SagaRecord


def summary(kill: Kill, records: Sequence[SagaRecord], books: Books) -> str:
    """Say who was killed, what was taken over, how the sagas ended, and that the books balance.

    Args:
        kill: the worker that was killed, all of whose sagas were taken over.
        records: all sagas, with their logs, after they passed the check.
        books: after they passed the check.
    """
    all_of_them, held = len(records), len(kill.held)
    ends = Counter(record.status for record in records)
    retried = sum(entry.verdict is Verdict.RETRY for record in records for entry in record.log)
    # A request whose attempt the log knows nothing of was made by the worker that died.
    repeated = sum(times - 1 for times in books.requests.values()) - retried
    effects = sum(not entry.undone for entry in books.entries)
    undone = sum(entry.undone and entry.change != 0 for entry in books.entries)
    by_whom = " and ".join(sorted({takeover.worker for takeover in kill.takeovers.values()}))
    lines = {
        "killed": f"{kill.worker} with SIGKILL, after {kill.finished_before} of {all_of_them} orders; "
        f"it held {_count(held, 'saga')}",
        "taken over": f"{len(kill.takeovers)} of {held} by {by_whom}, {kill.median_seconds:.1f} s after the kill "
        f"(median), {kill.slowest_seconds:.1f} s (slowest)",
        "finished": f"{all_of_them} of {all_of_them} as expected: {ends[SagaStatus.COMPLETED]} completed, "
        f"{ends[SagaStatus.COMPENSATED]} compensated",
        "retried": f"{_count(retried, 'attempt')} at services that were busy",
        "repeated": f"{_count(repeated, 'request')} that the kill cut off; none took effect twice",
        "ledger": f"balances: {effects} effects, each once; {undone} undone; stock and money add up",
    }
    return "\n".join(f"{name:<12}{text}" for name, text in lines.items())


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"

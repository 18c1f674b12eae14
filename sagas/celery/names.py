"""Names of tasks and queues in the broker. Messages of older releases are understood only while these names stay."""

from __future__ import annotations

from typing import Final

SCAN_TASK: Final = "sagas.scan"
PRUNE_TASK: Final = "sagas.prune"
RUN_TASK: Final = "sagas.run_saga"
RECOVER_TASK: Final = "sagas.recover_saga"

#: Scans have a queue of their own, so that no backlog of sagas delays them. New sagas and sagas to be recovered have
#: one queue each, so that a backlog of new sagas delays no recovery. Lost messages are found for each queue separately,
#: because messages are first in, first out within one queue only.
SCAN_QUEUE: Final = "sagas.scan"
RECOVER_QUEUE: Final = "sagas.recover"
RUN_QUEUE: Final = "sagas.run"
QUEUES: Final = (SCAN_QUEUE, RECOVER_QUEUE, RUN_QUEUE)

#: Name of a task → name of its queue.
ROUTES: Final = {
    SCAN_TASK: SCAN_QUEUE,
    PRUNE_TASK: SCAN_QUEUE,
    RECOVER_TASK: RECOVER_QUEUE,
    RUN_TASK: RUN_QUEUE,
}
#: Whether the saga is pending (it never ran) → the task that is sent for it.
TASK_FOR: Final = {True: RUN_TASK, False: RECOVER_TASK}

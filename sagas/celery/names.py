"""Names that are in the broker: tasks and queues. A message of an older release is understood as long as they stay."""

from __future__ import annotations

from typing import Final

SCAN_TASK: Final = "sagas.scan"
PRUNE_TASK: Final = "sagas.prune"
RUN_TASK: Final = "sagas.run_saga"
RECOVER_TASK: Final = "sagas.recover_saga"

#: Scans have a queue of their own, so that no backlog of sagas delays them. Sagas that never ran and sagas to be
#: recovered have one each, so that a backlog of new ones delays no recovery. Lost messages are found for each of the
#: two by itself, because messages are first in, first out within a queue only.
SCAN_QUEUE: Final = "sagas.scan"
RECOVER_QUEUE: Final = "sagas.recover"
RUN_QUEUE: Final = "sagas.run"
QUEUES: Final = (SCAN_QUEUE, RECOVER_QUEUE, RUN_QUEUE)

#: Task → its queue.
ROUTES: Final = {
    SCAN_TASK: SCAN_QUEUE,
    PRUNE_TASK: SCAN_QUEUE,
    RECOVER_TASK: RECOVER_QUEUE,
    RUN_TASK: RUN_QUEUE,
}
#: Whether the saga is pending (never ran) → the task that is sent for it.
TASK_FOR: Final = {True: RUN_TASK, False: RECOVER_TASK}

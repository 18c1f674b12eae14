"""Adapter to the engine and its storage: no other module of this package calls them."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any, Final, cast
from uuid import UUID

from sagas.definition import PATIENT, AnySaga, Resolver, Step, parts_of, steps_of
from sagas.definitions import Definitions
from sagas.execution import Outcome
from sagas.lease import KeptLease, LeaseKeeper
from sagas.progress import Action, EntryStatus, Progress, Verdict
from sagas.recovery import recover
from sagas.registry import Registry
from sagas.runtime import Runtime
from sagas.settings import Settings
from sagas.storage.answers import Applied
from sagas.storage.contract import ISagaStorage
from sagas.storage.leases import Lease
from sagas.storage.memory import MemorySagaStorage
from sagas.storage.records import LogEntry, NewSaga, SagaRecord, SagaState, Signal
from sagas.storage.transitions import Transition, describe
from sagas.testing.clock import FakeClock
from sagas.testing.crashes.places import Moment, Waiting
from sagas.testing.crashes.script import Crash, Script
from sagas.testing.crashes.simulated_parts import SimulatedWaits

__all__ = ["SAGA_ID", "LogEntry", "SimulatedSaga", "describe"]

#: The same id in every run, so that idempotency keys are the same, too.
SAGA_ID: Final = UUID("00000000-0000-7000-8000-000000000001")
_SETTINGS: Final = Settings()


class SimulatedSaga:
    """A saga that is stored in memory; processes run it one after the other, and no time passes meanwhile.

    Args:
        saga: the saga's class.
        context: the initial context.
        script: it decides what goes wrong.
        signals: what the signals bring that the saga waits for, as JSON, by the name of the wait.

    Raises:
        ContextError: the context cannot be stored.
    """

    def __init__(self, saga: AnySaga, context: Any, script: Script, signals: Mapping[str, str]) -> None:
        self._saga = saga
        self._script = script
        self._signals = dict(signals)
        self._waits = [part.name for part in parts_of(saga) if not issubclass(part, Step)]
        self._clock = FakeClock()
        self._storage = MemorySagaStorage(self._clock)
        self._registry = Registry([saga])
        self._keeper = _NoKeeper(self._storage, _SETTINGS.lease_seconds)
        new = NewSaga(
            id=SAGA_ID,
            name=saga.stored_name(),
            context=saga.codec.dump_checked(context),
            definition=Definitions(self._storage, self._registry).register(saga.graph),
        )
        self._storage.create_sagas([new])
        script.send = self._send
        script.send_early(-1)

    @property
    def record(self) -> SagaRecord:
        """The saga as it is stored."""
        return self._storage.load(SAGA_ID)

    @property
    def failures(self) -> tuple[LogEntry, ...]:
        """The actions that failed, oldest first."""
        return tuple(entry for entry in self.record.log if describe(entry) is not None)

    def run_process(self, number: int, resolve: Resolver) -> bool:
        """Recover the saga in a new process; return whether another process could continue it.

        If another process could, the signal comes for which the saga waits. Or else the clock advances until the saga
        is due: its lease has expired, its retry is due, or a wait or a sleep is over.
        """
        self._script.begin(number)
        storage = cast(ISagaStorage, CrashingStorage(self._storage, self._script, self._waits))
        runtime = Runtime(
            storage=storage,
            keeper=self._keeper,
            settings=_SETTINGS,
            owner=f"process {number}",
            resolve=resolve,
            stopping=lambda: False,
            send=lambda _: None,
            sleep=self._clock.advance,
            random=lambda: 0.0,
            framework=SimulatedWaits(self._script, self._attempt_of),
        )
        try:
            definitions = Definitions(storage, self._registry)
            declined = recover(SAGA_ID, runtime=runtime, definitions=definitions).outcome is Outcome.DECLINED
        except Crash:
            declined = False
        record = self.record
        # A worker whose code does not fit leaves the saga to other workers, and the simulation has none.
        if record.status.finished or declined or self._repeats_itself(record):
            return False
        if record.state is SagaState.WAITING:
            self._send_awaited()
            record = self.record
        if record.state is SagaState.QUEUED:
            return True  # a signal came, and its message arrives at once
        if record.available_at is None:
            return False
        self._clock.advance(max((record.available_at - self._clock()).total_seconds(), 0.0))
        return True

    def _send_awaited(self) -> None:
        """Send the signals for which the saga waits now."""
        awaiting = Progress(self._saga.graph, self.record.log).frontier().awaiting
        for name in [move.node.name for move in awaiting]:
            if name in self._signals and not self._script.withholds(name):
                self._send(name)

    def _send(self, wait: str) -> None:
        payload = self._signals.pop(wait)
        self._storage.post_signal(Signal(saga_id=SAGA_ID, name=wait, signal_id=wait, payload=payload))

    def _attempt_of(self, wait: str) -> int:
        progress = Progress(self._saga.graph, self.record.log)
        return progress.move(self._saga.graph.named[wait], Action.ACT).attempt

    def _repeats_itself(self, record: SagaRecord) -> bool:
        """Whether an action has failed as often as makes a saga dead; by default, actions are retried for hours."""
        last = record.log[-1] if record.log else None
        step = next((step for step in steps_of(self._saga) if last and step.name == last.step), None)
        if last is None or step is None or last.verdict is not Verdict.RETRY:
            return False
        if last.action is Action.ACT and step.fallback is not None:
            return False  # its attempts are spent in the end, and its fallback is tried
        policy = step.compensate_retry if last.action is Action.COMPENSATE else step.retry_after_pivot()
        return policy is PATIENT and last.attempt >= _SETTINGS.max_recovery_attempts


class CrashingStorage:
    """The storage for one process: a dead process gets no answer, and a process may crash at a checkpoint.

    Args:
        storage: the storage.
        script: it decides where the process crashes.
        waits: the names of the saga's waits and sleeps.
    """

    def __init__(self, storage: ISagaStorage, script: Script, waits: Collection[str] = ()) -> None:
        self._storage = storage
        self._script = script
        self._waits = waits

    def __getattr__(self, name: str) -> Any:
        self._script.require_alive()
        return getattr(self._storage, name)

    def apply(self, lease: Lease, transition: Transition) -> Applied:
        self._script.require_alive()
        self._script.turn += 1
        ended = [e for e in transition.events if e.action in (Action.ACT, Action.COMPENSATE)]
        if not ended:
            return self._storage.apply(lease, transition)
        first = ended[0]
        reach = partial(
            self._script.reach,
            step=first.step,
            action=first.action,
            attempt=first.attempt,
            waiting=self._waiting(first),
        )
        reach(Moment.BEFORE_CHECKPOINT)
        applied = self._storage.apply(lease, transition)
        reach(Moment.AFTER_CHECKPOINT)
        return applied

    def _waiting(self, entry: LogEntry) -> Waiting | None:
        if entry.step not in self._waits:
            return None
        if entry.status is EntryStatus.ARMED:
            return Waiting.BEGINS
        last = self._script.trace[-1]
        received = (last.step, last.waiting) == (entry.step, Waiting.RECEIVES)
        return Waiting.RECEIVES if received else Waiting.ENDS


class _NoKeeper(LeaseKeeper):
    """Renews no lease, because time passes only between processes."""

    @contextmanager
    def keep(self, lease: Lease) -> Iterator[KeptLease]:
        yield KeptLease(lease)

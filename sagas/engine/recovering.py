"""Recovering sagas whose worker died, and the scan that finds them."""

from __future__ import annotations

from dataclasses import replace
from uuid import UUID

from sagas import recovery
from sagas.engine.base import EngineBase
from sagas.errors import ConfigurationError
from sagas.execution import Report
from sagas.loops import refuse_within_async_step
from sagas.recovery import ScanReport, parse_saga_id
from sagas.storage.records import Claim, LogEntry
from sagas.telemetry.resolving import resolve_observer


class Recovering(EngineBase):
    """Recovers sagas, one or all that are due."""

    def recover(
        self,
        saga_id: UUID | str,
        *,
        version: int | None = None,
        by_hand: bool = False,
        note: LogEntry | None = None,
        delivered: Claim | None = None,
    ) -> Report:
        """Resume a saga from its log, forward or backward, and report what was done.

        It counts a failed attempt and sets the time of the next one. A saga that is finished, or that another worker
        holds, is left alone, and the report says so.

        Args:
            saga_id: the saga.
            version: acquire the saga only at this version, for which the message was sent.
            by_hand: an operator asks, so the saga is also acquired while it backs off, is dead or paused.
            note: the operator's row for the saga's log.
            delivered: the claim of the message that asks for this. It is recorded, so that scans find lost messages.

        Raises:
            SagaNotFound, InvalidSagaId: there is no such saga.
            StorageUnavailable: the database does not answer.
            RuntimeError: called within an async step, whose event loop it would block: await `recover_async`.
        """
        refuse_within_async_step("recover", "recover_async")
        if delivered is not None:
            self._deliveries.note(delivered)
        return recovery.recover(
            parse_saga_id(saga_id),
            runtime=self.runtime(),
            definitions=self.definitions,
            version=version,
            by_hand=by_hand,
            note=note,
        )

    async def recover_async(self, saga_id: UUID | str, *, by_hand: bool = False) -> Report:
        """Do as `recover` does, from a coroutine. Steps run as `run_async` runs them."""
        return await self._shielded(
            recovery.recover_async(
                parse_saga_id(saga_id),
                runtime=self.runtime(),
                definitions=self.definitions,
                writer=self._writer,
                by_hand=by_hand,
            )
        )

    def scan(self) -> ScanReport:
        """Start the sagas of schedules that are due, claim all sagas that are due, and send them to workers.

        Tasks that wait in the outbox are sent too.

        Raises:
            ConfigurationError: this engine has no dispatcher.
            StorageUnavailable: the database does not answer.
        """
        if self.dispatcher is None:
            raise ConfigurationError(
                "this engine has no dispatcher to send sagas to workers with: give it a CeleryDispatcher of "
                "sagas.celery.dispatch, or recover sagas by a loop as in examples/saga_recovery_scheduler.py."
            )
        started = self._scheduler.start_due(self.registry.schedules)
        report = recovery.scan(self.storage, self.dispatcher, self.settings, resolve_observer(self._observer))
        tasks = recovery.send_outbox(self.storage, self.dispatcher)
        return replace(report, scheduled=started.sagas, schedules_failed=started.failed, tasks=tasks)

"""Sending signals and requests to cancel to sagas."""

from __future__ import annotations

from sagas import signals
from sagas.engine.base import EngineBase
from sagas.reading import SagaReference
from sagas.storage.records import Signal
from sagas.storage.transactions import AsyncTransactionOwner, TransactionOwner


class Signalling(EngineBase):
    """Sends signals and requests to cancel."""

    def signal(
        self,
        saga: SagaReference,
        name: str,
        payload: object = None,
        *,
        signal_id: str | None = None,
        actor: str | None = None,
        connection: TransactionOwner | None = None,
    ) -> bool:
        """Send a signal to a saga, for one of its waits. It is kept if the saga does not wait for it yet.

        Args:
            saga: its id, or its class or name with its idempotency key: `(PlaceOrder, "order-7")`.
            name: the wait's name.
            payload: what the signal brings: an instance of the wait's type, or plain data that describes one.
            signal_id: the sender's name for the signal. The same one twice is one signal. Default: a random one.
            actor: who sends it, for the log.
            connection: as for `start`: the signal is sent if and only if the caller commits.

        Returns:
            Whether the signal is new.

        Raises:
            SignalRefused: the saga has ended, has no such wait, or the payload is of another type; nothing was stored.
            SagaNotFound, InvalidSagaId: there is no such saga.
            TransactionRefused, StorageUnavailable: as for `start`.
        """
        record = self.storage.head(self._reader.id_of(saga))
        new = signals.new_signal(record, name, payload, definitions=self.definitions, signal_id=signal_id, actor=actor)
        return self._post(new, connection)

    async def signal_async(
        self,
        saga: SagaReference,
        name: str,
        payload: object = None,
        *,
        signal_id: str | None = None,
        actor: str | None = None,
        connection: AsyncTransactionOwner | None = None,
    ) -> bool:
        """Do as `signal` does, from a coroutine."""

        def send(within: TransactionOwner | None) -> bool:
            return self.signal(saga, name, payload, signal_id=signal_id, actor=actor, connection=within)

        return await self._within(send, connection)

    def cancel(
        self,
        saga: SagaReference,
        reason: str,
        *,
        actor: str | None = None,
        connection: TransactionOwner | None = None,
    ) -> None:
        """Ask for a saga to be aborted: what it did is undone. It need not wait for a worker that holds the saga.

        A saga that waits, sleeps, backs off or has not begun is woken for it. A worker that holds the saga aborts it
        after its present step. If that step is the pivot, the request comes too late; the log says so.

        Args:
            saga: as for `signal`.
            reason: why, for the log.
            actor: who asks for it, for the log.
            connection: as for `start`: the request is made if and only if the caller commits.

        Raises:
            SignalRefused: the saga has ended, is being undone already, or is past its pivot.
            SagaNotFound, InvalidSagaId: there is no such saga.
            TransactionRefused, StorageUnavailable: as for `start`.
        """
        record = self.storage.load(self._reader.id_of(saga))
        self._post(signals.request_to_cancel(record, reason, actor=actor, definitions=self.definitions), connection)

    async def cancel_async(
        self,
        saga: SagaReference,
        reason: str,
        *,
        actor: str | None = None,
        connection: AsyncTransactionOwner | None = None,
    ) -> None:
        """Do as `cancel` does, from a coroutine."""
        await self._within(lambda within: self.cancel(saga, reason, actor=actor, connection=within), connection)

    def _post(self, signal: Signal, connection: TransactionOwner | None) -> bool:
        """Store what is sent to a saga, and deliver it once that is committed."""
        if connection is None:
            connection = self._framework.transaction()
        if connection is None:
            is_new, claims = self.storage.post_signal(signal)
            self._sender.send(claims)
            return is_new
        transaction = self.storage.join(connection)
        is_new = self.storage.add_signal(signal, connection=transaction)
        transaction.on_commit(lambda: self._sender.deliver_after_commit(signal.saga_id))
        return is_new

"""Every error that the engine raises. Messages name the thing, the reason and the cure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sagas.deprecation import former_names

if TYPE_CHECKING:
    from uuid import UUID


class SagaError(Exception):
    """The root of all errors of this library."""


class DefinitionError(SagaError, TypeError):
    """A saga or step class that could never run correctly; raised when the class is defined."""


class ConfigurationError(SagaError, ValueError):
    """A setting that cannot work; the message names the setting and what to write instead."""


class ContextError(SagaError, ValueError):
    """A context that cannot be stored as JSON and read back as it was."""


class InvalidSagaId(SagaError, ValueError):
    """Text that is not a saga's id."""


class DefinitionNotFound(SagaError):
    """No stored definition has this hash."""


class SagaNotFound(SagaError, LookupError):
    """No saga has this id."""


class UnknownSaga(SagaError, LookupError):
    """No saga class of this name, or of the version that a saga was started with, is registered in this process."""


class LogDoesNotFit(SagaError):
    """A saga or its log has steps that this code's definition lacks or has changed too much."""


class UnstorableText(SagaError, ValueError):
    """Text that no database can hold: it has a NUL, or half of a surrogate pair."""


class LeaseLost(SagaError):
    """This worker no longer holds the saga at this version. Another worker may have acquired it.

    Every fenced write that changed no row raises it. A holder that gets it must stop and write nothing more.
    """


class AlreadyStarted(SagaError, ValueError):
    """A saga of this name and idempotency key exists; raised by `start(..., on_conflict="raise")`.

    Attributes:
        saga_id: the saga that exists.
        saga_name: its name.
        idempotency_key: the key.
    """

    def __init__(self, saga_id: UUID, saga_name: str, idempotency_key: str | None) -> None:
        super().__init__(saga_id, saga_name, idempotency_key)
        self.saga_id = saga_id
        self.saga_name = saga_name
        self.idempotency_key = idempotency_key

    def __str__(self) -> str:
        return (
            f"saga {self.saga_id} was started before as {self.saga_name!r} with the idempotency key "
            f"{self.idempotency_key!r}, so nothing was started: use that saga, or give another key."
        )


class SagaExists(SagaError, ValueError):
    """A new saga has the id of one that exists; nothing was stored."""


class TransactionRefused(SagaError, ValueError):
    """A transaction cannot be used as asked.

    A saga cannot be started on a connection of the caller's, and nothing was stored; or a transactional step tried to
    end the transaction that it shares with its checkpoint.
    """


class StepRolledBack(SagaError):
    """The database refused to commit a transactional step: nothing of the step was kept.

    Attributes:
        cause: the error of the database or of the session's flush, if there is one.
    """

    def __init__(self, message: str, cause: BaseException | None = None) -> None:
        super().__init__(message)
        self.cause = cause


class IllegalStatusChange(SagaError, ValueError):
    """A saga in its present state cannot have this status; nothing was changed."""


class StorageUnavailable(SagaError):
    """The database did not answer; whether the statement took effect is unknown."""


class CharacterNotStorable(SagaError, ValueError):
    """A text has a character that the database's encoding lacks. The encoding UTF8 has every character."""


class HiddenRow(SagaError):
    """The database does not show a row that it must have. The message says what may hide it. Nothing was changed."""


class SagaUnreadable(SagaError):
    """A saga was acquired, but its row cannot be read. The saga was given back, and no attempt was spent."""


class QueryTimeout(SagaError):
    """The server cancelled a query of the inspector because it took too long; nothing was changed."""


class WaitTimedOut(SagaError, TimeoutError):
    """A saga has not ended within the time that a program waited for it. The saga goes on.

    Attributes:
        saga_id, status: the saga and its status when it was read last; None if the database did not answer.
    """

    def __init__(self, message: str, *, saga_id: UUID | None = None, status: str | None = None) -> None:
        super().__init__(message)
        self.saga_id = saga_id
        self.status = status


class SchemaBehind(SagaError):
    """The database lacks tables or columns that this version needs: run `sagas migrate`."""


class SchemaAhead(SagaError):
    """A newer release has changed the tables so that this one cannot use them: install the newer one."""


class MigrationRefused(SagaError):
    """The database cannot be migrated in its present state. The message gives the reason. Nothing was changed."""


class BrokerUnavailable(SagaError):
    """The broker did not answer. The sagas that could not be sent stay due in the database."""


class OutcomeUnknown(SagaError):
    """Raise this from a step whose effect may or may not have happened.

    The step is then *in doubt*: if the saga aborts, it is compensated too.
    """


class StepTimedOut(OutcomeUnknown):
    """A step ran longer than its `timeout`; it may still take effect, so it is in doubt."""


class InboxMoved(SagaError):
    """Something was delivered to the saga that its holder has not read; nothing was written.

    Attributes:
        inbox: how many signals and requests are delivered now.
    """

    def __init__(self, inbox: int) -> None:
        super().__init__(inbox)
        self.inbox = inbox


class SignalRefused(SagaError, ValueError):
    """A signal that no wait of the saga can take, or a saga that has ended; nothing was stored."""


class ActionRefused(SagaError):
    """An operator action is not possible in the saga's present state; nothing was changed."""


class SagaHeld(ActionRefused):
    """A worker holds the saga, and did not give it back while the operator waited; nothing was changed.

    Attributes:
        owner: the worker.
    """

    def __init__(self, message: str, owner: str) -> None:
        super().__init__(message)
        self.owner = owner


class SagaChanged(ActionRefused):
    """The saga is no longer as it was when an operator decided to act on it; nothing was changed."""


if TYPE_CHECKING:
    QuestionTooLong = QueryTimeout
else:
    __getattr__ = former_names(__name__, {"QuestionTooLong": (QueryTimeout, "sagas.errors.QueryTimeout")})

"""The former home of the storage contract, for one release: other modules of `sagas.storage` have it now.

Only what kept its meaning is here. A storage of 0.1.0 has other methods than this version asks for: see the upgrade
notes in docs/storage.md.
"""

from __future__ import annotations

from sagas.deprecation import former_names
from sagas.storage import answers, arguments, contract, errors, records, saga_filter

_HOMES = {
    answers: "ClaimResult Refusal",
    arguments: """
        DEFAULT_MAX_RECOVERY_ATTEMPTS LARGEST MOST_ATTEMPTS require_attempts require_counts require_positive
        require_recovery_arguments require_seconds
    """,
    contract: "ISagaStorage",
    records: "Claim LogEntry NewSaga OnConflict Pause SagaRecord completed failed note",
    errors: "exists not_found",
    saga_filter: "SagaFilter",
}

__getattr__ = former_names(
    __name__,
    {
        name: (getattr(module, name), f"{module.__name__}.{name}")
        for module, names in _HOMES.items()
        for name in names.split()
    },
)

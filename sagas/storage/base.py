"""The former home of the storage contract, for one release: `sagas.storage.contract` and `.records` have it now.

Only what kept its meaning is here. A storage of 0.1.0 has other methods than this version asks for: see the upgrade
notes in docs/storage.md.
"""

from __future__ import annotations

from sagas.deprecation import former_names
from sagas.storage import contract, records

_IN_CONTRACT = """
    DEFAULT_MAX_RECOVERY_ATTEMPTS LARGEST MOST_ATTEMPTS ISagaStorage exists not_found require_attempts require_counts
    require_positive require_recovery_arguments require_seconds
"""
_IN_RECORDS = """
    Claim ClaimResult LogEntry NewSaga OnConflict Pause Refusal SagaFilter SagaRecord completed failed note
"""

__getattr__ = former_names(
    __name__,
    {
        name: (getattr(module, name), f"{module.__name__}.{name}")
        for module, names in ((contract, _IN_CONTRACT), (records, _IN_RECORDS))
        for name in names.split()
    },
)

"""The suite that every saga storage must pass; the author of a custom one runs it too, in pytest.

    class TestMyStorage(StorageContract):
        @pytest.fixture
        def storage(self) -> Iterator[ISagaStorage]:
            yield an_empty_storage()

        def pass_time(self, storage: ISagaStorage, seconds: float) -> None:
            clock.advance(seconds)

Without a `pass_time` of its own the suite sleeps, and takes some minutes; `Foundation` tells of its two other settings.
"""

import pytest

_PARTS = (
    "foundation",
    "attempts",
    "starting",
    "taking",
    "fencing",
    "writing",
    "dispatching",
    "operating",
    "housekeeping",
)
# Before they are imported: then a failed assert in them shows its values, as one in the author's own module does.
pytest.register_assert_rewrite(*(f"{__name__}.{part}" for part in _PARTS))

from sagas.testing.storage_contract.attempts import AttemptsContract, RecoveryQueryContract  # noqa: E402
from sagas.testing.storage_contract.dispatching import ClaimingContract, CrashContract, MarkContract  # noqa: E402
from sagas.testing.storage_contract.fencing import FencingContract  # noqa: E402
from sagas.testing.storage_contract.housekeeping import HousekeepingContract  # noqa: E402
from sagas.testing.storage_contract.operating import (  # noqa: E402
    AskingContract,
    InterveningContract,
    OperatorLogContract,
    PausingContract,
)
from sagas.testing.storage_contract.starting import ReadingContract, StartingContract  # noqa: E402
from sagas.testing.storage_contract.taking import RefusingContract, SeizingContract, TakingContract  # noqa: E402
from sagas.testing.storage_contract.writing import CheckpointContract, GivingBackContract, RenewingContract  # noqa: E402

__all__ = ["StorageContract"]


class StorageContract(
    StartingContract,
    ReadingContract,
    TakingContract,
    SeizingContract,
    RefusingContract,
    FencingContract,
    CheckpointContract,
    GivingBackContract,
    RenewingContract,
    ClaimingContract,
    CrashContract,
    MarkContract,
    RecoveryQueryContract,
    AttemptsContract,
    PausingContract,
    InterveningContract,
    AskingContract,
    OperatorLogContract,
    HousekeepingContract,
):
    """Everything that `ISagaStorage` promises, one test for each promise.

    Subclass it with a name that begins with `Test`, and give it a fixture `storage`: an empty storage for each test.
    """

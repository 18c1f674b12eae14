"""The suite that every saga storage must pass; the author of a custom one runs it too, in pytest.

    class TestMyStorage(StorageContract):
        @pytest.fixture
        def storage(self) -> Iterator[ISagaStorage]:
            yield an_empty_storage()

        def pass_time(self, storage: ISagaStorage, seconds: float) -> None:
            clock.advance(seconds)

Without a `pass_time` of its own the suite sleeps, and takes many minutes; see `ContractBase`.
"""

import pytest

_PARTS = (
    "base",
    "attempts",
    "starting",
    "fencing",
    "acquiring",
    "applying",
    "dispatching",
    "messages",
    "pausing",
    "operating",
    "housekeeping",
)
# Before they are imported: then a failed assert in them shows its values, as one in the author's own module does.
pytest.register_assert_rewrite(*(f"{__name__}.{part}" for part in _PARTS))

from sagas.testing.storage_contract import acquiring, applying, attempts, dispatching, pausing, starting  # noqa: E402
from sagas.testing.storage_contract.fencing import FencingContract  # noqa: E402
from sagas.testing.storage_contract.housekeeping import HousekeepingContract  # noqa: E402
from sagas.testing.storage_contract.messages import LostMessageContract  # noqa: E402
from sagas.testing.storage_contract.operating import OperatingContract  # noqa: E402

__all__ = ["StorageContract"]


class StorageContract(
    starting.StartingContract,
    starting.DefinitionContract,
    starting.ReadingContract,
    acquiring.AcquiringContract,
    acquiring.ReclaimingContract,
    acquiring.SuspectContract,
    acquiring.RefusingContract,
    acquiring.LostOwnerContract,
    FencingContract,
    applying.ApplyingContract,
    applying.ApplyingManyContract,
    applying.RenewingContract,
    dispatching.ClaimingContract,
    dispatching.CrashContract,
    dispatching.ReleasingContract,
    LostMessageContract,
    attempts.RecoveryQueryContract,
    attempts.AttemptsContract,
    pausing.PausingContract,
    pausing.YieldingContract,
    OperatingContract,
    HousekeepingContract,
):
    """Everything that `ISagaStorage` promises, one test for each promise.

    Subclass it with a name that begins with `Test`, and give it a fixture `storage`: an empty storage for each test.
    """

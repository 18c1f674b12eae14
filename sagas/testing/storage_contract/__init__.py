"""The test suite that every saga storage must pass. Run it in pytest for a storage of your own.

    class TestMyStorage(StorageContract):
        @pytest.fixture
        def storage(self) -> Iterator[ISagaStorage]:
            yield an_empty_storage()

        def pass_time(self, storage: ISagaStorage, seconds: float) -> None:
            clock.advance(seconds)

Without your own `pass_time` the suite sleeps, and takes many minutes; see `ContractBase`.
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
    "schedules",
    "signals",
    "housekeeping",
)
# Register the modules before they are imported, so that a failed assert in them shows its values.
pytest.register_assert_rewrite(*(f"{__name__}.{part}" for part in _PARTS))

from sagas.testing.storage_contract import (  # noqa: E402
    acquiring,
    applying,
    attempts,
    dispatching,
    pausing,
    signals,
    starting,
)
from sagas.testing.storage_contract.fencing import FencingContract  # noqa: E402
from sagas.testing.storage_contract.housekeeping import HousekeepingContract  # noqa: E402
from sagas.testing.storage_contract.messages import LostMessageContract  # noqa: E402
from sagas.testing.storage_contract.operating import OperatingContract  # noqa: E402
from sagas.testing.storage_contract.schedules import ScheduleContract  # noqa: E402

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
    ScheduleContract,
    signals.SignalContract,
    signals.DeliveringContract,
    signals.InboxContract,
    signals.StartTimeContract,
    HousekeepingContract,
):
    """Tests all promises of `ISagaStorage`, one test for each promise.

    Subclass this class with a name that begins with `Test`, and add a fixture `storage`: an empty storage for each
    test.
    """

"""The contract itself: what it asks of a storage's author, and what it says to one who left something out."""

from __future__ import annotations

import subprocess
import sys
import time
from collections import Counter
from typing import Any

import pytest

from sagas.storage import ISagaStorage, MemorySagaStorage
from sagas.testing import StorageContract
from sagas.testing.storage_contract.base import ContractBase

METHODS = sorted(ISagaStorage.__abstractmethods__)


def _lacking(*names: str) -> type[Any]:
    """A storage that has every method of the contract but these."""
    methods = {name: getattr(MemorySagaStorage, name) for name in METHODS if name not in names}
    return type("HalfAStorage", (ISagaStorage,), methods)


@pytest.mark.parametrize("method", METHODS)
def test_a_storage_that_lacks_a_method_fails_at_construction_with_its_name(method: str) -> None:
    with pytest.raises(TypeError, match=rf"HalfAStorage lacks {method}\(\), which"):
        _lacking(method)()


def test_every_method_that_is_lacking_is_named() -> None:
    with pytest.raises(TypeError, match=r"get_sagas_for_recovery\(\), increment_recovery_attempts\(\), which.*docs/"):
        _lacking("increment_recovery_attempts", "get_sagas_for_recovery")()


def test_a_storage_that_lacks_nothing_is_constructed_with_arguments_of_its_own() -> None:
    class Mine(MemorySagaStorage):
        def __init__(self, path: str, *, size: int) -> None:
            super().__init__()
            self.described = f"{path}, {size}"

    assert Mine("here", size=3).described == "here, 3"


def test_the_methods_of_recovery_are_those_of_the_public_contract() -> None:
    # Names and order of arguments are used by schedulers of the users' own.
    storage = MemorySagaStorage()

    assert storage.get_sagas_for_recovery(10, 5, 0.0, "order") == []
    assert storage.get_sagas_for_recovery(limit=10, max_recovery_attempts=5, stale_after_seconds=0, saga_name="x") == []


def test_no_test_of_the_contract_hides_another_of_the_same_name() -> None:
    defined = Counter(name for part in StorageContract.__mro__ for name in vars(part) if name.startswith("test_"))

    assert [name for name, times in defined.items() if times > 1] == []
    assert len(defined) > 100


def test_without_a_pass_time_of_the_authors_real_time_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)

    ContractBase().pass_time(MemorySagaStorage(), 1.5)

    assert slept == [1.5]


def test_only_the_contract_needs_pytest() -> None:
    script = """
import sys
sys.modules["pytest"] = None
import sagas.testing, sagas.testing.servers
try:
    sagas.testing.StorageContract
except ImportError:
    print("needs pytest")
try:
    sagas.testing.Nonsense
except AttributeError as error:
    print(error)
"""
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)

    assert run.stderr == ""
    assert run.stdout.splitlines() == ["needs pytest", "module 'sagas.testing' has no attribute 'Nonsense'"]

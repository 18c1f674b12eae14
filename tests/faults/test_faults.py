"""The short profile: every fault once, at real processes, in under a minute."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from tests.faults.run import SHORT, run, show

SEED = 20260101


@pytest.mark.timeout(400)
def test_every_fault_once_loses_doubles_and_leaves_nothing(record_property: Callable[[str, object], None]) -> None:
    told = Console(width=110, file=StringIO())
    with tempfile.TemporaryDirectory(prefix="sagas-faults-", ignore_cleanup_errors=True) as directory:
        findings, report = run(SHORT, SEED, Path(directory), told)
    show(report, told)
    record_property("figure", told.file.getvalue())  # type: ignore[attr-defined]
    assert findings.all() == []
    assert {row["times"] for row in report["faults"]} == {1}  # type: ignore[attr-defined]

"""Test the short profile: every fault once, with real processes, in under a minute."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

SEED = 20260101


@pytest.mark.slow(105)
@pytest.mark.timeout(400)
def test_every_fault_once_loses_doubles_and_leaves_nothing(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    # A process of its own can have a network of its own, in which it may drop packets.
    report_file = tmp_path / "report.json"
    command = [sys.executable, "-m", "tests.faults.run", "--short", "--seed", str(SEED), "--report", str(report_file)]
    with tempfile.TemporaryDirectory(prefix="sagas-faults-", ignore_cleanup_errors=True) as logs:
        told = subprocess.run([*command, "--logs", logs], capture_output=True, text=True, check=False, timeout=390)
    assert report_file.exists(), told.stdout + told.stderr
    record_property("figure", told.stdout[told.stdout.rindex(f"seed {SEED}") :])
    report = json.loads(report_file.read_text())
    assert [report[kind] for kind in ("lost", "doubled", "stuck", "wrong")] == [[], [], [], []]
    assert told.returncode == 0
    assert {row["times"] for row in report["faults"] if not row["lasting"]} == {1}
    assert report["operators"].keys() == {"pause", "resume", "compensate", "recover", "retry", "skip", "resolve"}

"""A program: executes a page's Python blocks, one after the other in one module, and tells what each said.

It reads the blocks' texts as a JSON list and prints a JSON list. A block says what it prints; one that defines tests is
followed by a run of those tests, and says why they failed.
"""

from __future__ import annotations

import inspect
import io
import json
import os
import subprocess
import sys
import tempfile
from contextlib import redirect_stdout
from pathlib import Path
from types import ModuleType
from typing import Any


def play(text: str, name: str, module: ModuleType) -> str:
    """Execute a block in the module, then the tests that it defines; return what it said."""
    before = dict(vars(module))
    with redirect_stdout(io.StringIO()) as said:
        exec(compile(text, name, "exec", dont_inherit=True), vars(module))
        new = {key: value for key, value in vars(module).items() if before.get(key) is not value}
        for key, value in new.items():
            if key.startswith("test_"):
                _run_function(value)
    if any(key.startswith("Test") for key in new):
        _run_suite(text)
    return said.getvalue()


def _run_function(test: Any) -> None:
    with tempfile.TemporaryDirectory(prefix="sagas-docs-", ignore_cleanup_errors=True) as directory:
        given = {"tmp_path": Path(directory)} if "tmp_path" in inspect.signature(test).parameters else {}
        try:
            test(**given)
        except AssertionError as failed:
            print(failed if str(failed) else f"{test.__name__} failed")


def _run_suite(text: str) -> None:
    Path("test_suite.py").write_text(text)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", "/dev/null", "test_suite.py"]
    plain = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    done = subprocess.run(command, env=plain, capture_output=True, text=True, check=False)
    if done.returncode:
        raise AssertionError(done.stdout)


def main() -> None:
    page = ModuleType("__main__")
    sys.modules["__main__"] = page  # where dataclasses and pydantic look their annotations up
    print(json.dumps([play(text, f"block {number}", page) for number, text in enumerate(json.load(sys.stdin), 1)]))

"""Patching what several modules have imported by name."""

from __future__ import annotations

import sys

import pytest


def patch_storages(monkeypatch: pytest.MonkeyPatch, name: str, value: object) -> None:
    """Set this name in every module of `sagas.storage` that has it."""
    for module in [each for path, each in sys.modules.items() if path.startswith("sagas.storage.")]:
        if name in vars(module):
            monkeypatch.setattr(module, name, value)

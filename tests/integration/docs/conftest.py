"""A reader for each page."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration.docs.reader import Reader


@pytest.fixture
def reader(tmp_path: Path, request: pytest.FixtureRequest) -> Reader:
    """Somebody who tries what a page says."""
    return Reader(tmp_path, request)

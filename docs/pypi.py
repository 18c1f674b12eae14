"""What package indexes show: the README, whose links into the repository lead nowhere there, without those links."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

README = Path(__file__).parent.parent / "README.md"


def description(readme: str) -> str:
    """Return the text with relative links replaced by their words, and pictures of the repository by theirs."""
    return re.sub(r"!?\[([^\]\[]*)\]\((?!https?://)[^)\s]+\)", r"\1", readme)


class CustomMetadataHook(MetadataHookInterface):
    """Gives the built package its description."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Set the description."""
        metadata["readme"] = {"content-type": "text/markdown", "text": description(README.read_text())}

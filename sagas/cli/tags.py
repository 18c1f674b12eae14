"""Tags as an operator types them."""

from __future__ import annotations

import typer


def parse_tag(written: str) -> tuple[str, str]:
    """Return a tag and its value.

    Raises:
        typer.BadParameter: it is not written as TAG=VALUE.
    """
    tag, equals, value = written.partition("=")
    if not (tag and equals):
        raise typer.BadParameter(
            f"{written!r} is no tag and its value: write them as customer=c-7.", param_hint="'--tag'"
        )
    return tag, value

"""Renders templates: every value is escaped as HTML, and characters that hide or reorder text are made visible."""

from __future__ import annotations

import hashlib
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from sagas.duration import duration, utc
from sagas.inspection.models import Tally
from sagas.text import printable

HERE: Final = Path(__file__).parent
STATIC: Final = HERE / "static"
TEMPLATES: Final = HERE / "templates"


class Pages:
    """The templates of the console."""

    def __init__(self) -> None:
        self._environment = Environment(
            loader=FileSystemLoader(TEMPLATES),
            autoescape=True,
            undefined=StrictUndefined,
            finalize=_visible,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._environment.filters |= {
            "ago": _ago,
            "clock": _clock,
            "moment": _moment,
            "path": lambda text: quote(str(text), safe=""),
            "sagas": _sagas,
            "tally": _tally,
        }
        self._environment.globals |= {"node_template": _node_template, "asset": _asset, "raw": _raw}

    def render(self, template: str, **values: Any) -> str:
        """Return a page as text."""
        return self._environment.get_template(template).render(**values)


def _visible(value: Any) -> Any:
    """Make characters visible that would hide or reorder text; called with every value before it is escaped."""
    return printable(value, keep="\n\t") if isinstance(value, str) and not hasattr(value, "__html__") else value


def _raw(text: str) -> Markup:
    """Return text that a form has to bring back as it is: escaped, and its invisible characters kept."""
    return escape(text)


def _moment(moment: datetime | None, now: datetime) -> Markup:
    """Return a time and how far from now it is."""
    if moment is None:
        return Markup("-")
    return Markup('<time datetime="{}" title="{} UTC">{}</time>').format(
        moment.isoformat(timespec="milliseconds"), utc(moment), _ago(moment, now)
    )


def _clock(moment: datetime | None, now: datetime) -> Markup:
    """Return a time of the clock, in UTC."""
    if moment is None:
        return Markup("")
    return Markup('<time datetime="{}" title="{}">{}</time>').format(
        moment.isoformat(timespec="milliseconds"), _ago(moment, now), utc(moment)
    )


def _ago(moment: datetime | None, now: datetime) -> str:
    if moment is None:
        return "-"
    seconds = (moment - now).total_seconds()
    return f"in {duration(seconds)}" if seconds > 0 else f"{duration(-seconds)} ago"


def _tally(tally: Tally) -> Markup:
    """Return a number, labelled if it is an estimate."""
    if not tally.estimated:
        return Markup("{:,}").format(tally.sagas)
    return Markup('<span class="estimate" title="estimated, not counted">≈ {:,}</span>').format(tally.sagas)


def _sagas(tally: Tally | int) -> Markup:
    """Return a number of sagas in words."""
    tally = Tally(sagas=tally) if isinstance(tally, int) else tally
    return _tally(tally) + (" saga" if tally.sagas == 1 else " sagas")


@cache
def _node_template(kind: str) -> str:
    """Return the template of a kind of node: its own, or that of a step for kinds that this version does not know."""
    own = f"nodes/{kind}.html"
    return own if kind.isidentifier() and (TEMPLATES / own).is_file() else "nodes/step.html"


@cache
def _asset(name: str) -> str:
    """Return the path of a file of ours, which changes with its content, so that browsers may keep it."""
    return f"/static/{name}?v={hashlib.sha256((STATIC / name).read_bytes()).hexdigest()[:12]}"

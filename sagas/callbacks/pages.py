"""The pages of a link: plain HTML without scripts, in which all that comes from a link is escaped."""

from __future__ import annotations

import base64
import hashlib
import json
from datetime import UTC, datetime
from html import escape
from typing import Any, Final

from sagas.callbacks.links import Link

_STYLE: Final = (
    "body{font:1.1rem/1.5 system-ui,sans-serif;max-width:36rem;margin:4rem auto;padding:0 1rem}"
    "button{font:inherit;padding:.5rem 1.5rem;margin:.5rem 0}pre{white-space:pre-wrap;overflow-wrap:anywhere}"
)
_STYLE_HASH: Final = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()

#: Headers of every page. It loads nothing, is in no frame, and is neither stored, indexed nor named to other sites.
HEADERS: Final[dict[str, str]] = {
    "content-type": "text/html; charset=utf-8",
    "content-security-policy": (
        f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; form-action 'self'; base-uri 'none'; "
        "frame-ancestors 'none'"
    ),
    "cache-control": "no-store",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "x-robots-tag": "noindex, nofollow, noarchive",
}


def question_page(link: Link) -> str:
    """Return the page that shows what would be answered, with a button for each choice."""
    question = escape(link.question or f"Please answer: {link.wait}")
    until = datetime.fromtimestamp(link.expires_at, UTC)
    choices = "".join(_choice(label, payload) for label, payload in link.choices.items())
    return _page(
        question,
        f"<form method=post>{choices}</form><p><small>This link can be used once, until {until:%Y-%m-%d %H:%M} UTC."
        "</small></p>",
    )


def sentence_page(title: str, sentence: str) -> str:
    """Return a page that says one thing."""
    return _page(escape(title), f"<p>{escape(sentence)}</p>")


def _choice(label: str, payload: Any) -> str:
    shown = "" if payload is None else f"<pre>{escape(json.dumps(payload, indent=2, ensure_ascii=False))}</pre>"
    return f'<p><button name=choice value="{escape(label)}">{escape(label)}</button></p>{shown}'


def _page(title: str, content: str) -> str:
    return (
        '<!doctype html><html lang=en><head><meta charset=utf-8><meta name=robots content="noindex, nofollow">'
        f'<meta name=viewport content="width=device-width"><title>{title}</title><style>{_STYLE}</style></head>'
        f"<body><h1>{title}</h1>{content}</body></html>\n"
    )

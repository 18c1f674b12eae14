"""Hides passwords in URLs, and says what is wrong with a URL that cannot be read."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

if TYPE_CHECKING:
    import sqlalchemy as sa

#: Replaces a password.
HIDDEN: Final = "***"
#: The brokers that sagas run on, by the scheme of their URLs.
BROKERS: Final = frozenset(
    {
        *("redis", "rediss", "redis+socket", "valkey", "valkeys", "sentinel"),
        *("amqp", "amqps", "pyamqp", "librabbitmq"),
        "memory",
    }
)
#: Schemes of URLs whose path is the number of a database.
_NUMBERED: Final = frozenset({"redis", "rediss", "valkey", "valkeys"})

_SCHEME: Final = "[A-Za-z][A-Za-z0-9+.-]*://"
#: A URL, up to the next URL that is not part of it.
_URL: Final = re.compile(rf"({_SCHEME})(.*?)(?=(?<=[\s;,'\"(<=]){_SCHEME}|$)", re.MULTILINE)
#: User and password, up to the last @: an unencoded @ or / in a password would make a parser end it too early.
_USER: Final = re.compile(r"^.*@")
#: Text in the place of the port that is no number. It may be a password whose @ is missing.
_NO_PORT: Final = re.compile(
    r"^((?:\[[^\]]*\]|[^\s:/?#\[\]'\"()]+)?):(?!\d+(?![\w%~!$&*+=-]))[^\s/?#'\"]+"  # host:what is no number
    r"|^:[^\s/?#]+"  # no host at all
)
_SECRET: Final = re.compile(r"([?&;][\w.-]*(?:pass|pwd|secret|token|credential|key)[\w.-]*=)[^&;\s]+", re.IGNORECASE)


def redacted(text: object) -> str:
    """Return the text with `***` in place of everything in a URL that may be a password.

    It hides too much rather than too little: also users' names, and all text of a URL before the last `@` on a line.

    Args:
        text: a URL, or a message that may hold some.
    """
    return _URL.sub(lambda url: url[1] + _hidden(url[2]), str(text))


def _hidden(rest: str) -> str:
    rest = _USER.sub(f"{HIDDEN}@", rest)
    at = rest.find("@") + 1
    rest = rest[:at] + _NO_PORT.sub(lambda found: f"{found[1] or ''}:{HIDDEN}", rest[at:])
    return _SECRET.sub(rf"\1{HIDDEN}", rest)


def check_broker_url(url: str) -> str:
    """Return the URL of a broker, or several URLs separated by `;`, if each can be read.

    Raises:
        ValueError: a URL cannot be read. The message shows nothing of it but its scheme.
    """
    for each in url.split(";"):
        scheme, separator, _ = each.partition("://")
        if not separator or scheme not in BROKERS:
            begins = f"it begins {scheme}://, and " if separator and re.fullmatch(r"[a-z+]{1,20}", scheme) else ""
            raise ValueError(
                f"{begins}sagas run on Redis or RabbitMQ: begin it, and what follows a ; in it, redis://, rediss://, "
                "sentinel:// or amqp://"
            )
        check_url(each)
    return url


def check_url(url: str) -> str:
    """Return the URL. A URL of Redis or RabbitMQ is checked first.

    Raises:
        ValueError: the URL cannot be read. The message shows nothing of it but its scheme.
    """
    scheme, _, rest = url.partition("://")
    if scheme not in BROKERS:
        return url
    try:
        parts = urlsplit(f"http://{rest}")  # as Celery reads it
        readable = parts.port != 0 and "@" not in f"{parts.path}{parts.query}{parts.fragment}"
        (parts.hostname or "").encode("idna")  # as the resolver does; its UnicodeError is a ValueError
    except ValueError:
        readable = False
    if not readable or re.search(r"[\s\x00-\x1f\ud800-\udfff]", rest):
        raise ValueError(
            f"it cannot be read: write it as {scheme}://user:password@host:port/, the port as a number, and special "
            "characters of user and password percent-encoded (/ as %2F, @ as %40)"
        )
    if scheme in _NUMBERED and not re.fullmatch(r"/?[0-9]*", parts.path):
        raise ValueError(
            f"what follows the host is not the number of a database: write it as {scheme}://user:password@host:port/0"
        )
    return url


def address(url: sa.URL) -> str:
    """Return host, port and database of a URL, without user and password."""
    hosts = url.query.get("host", "a local socket")
    host = url.host or (hosts if isinstance(hosts, str) else ", ".join(hosts))
    return f"{host}{f':{url.port}' if url.port else ''}/{url.database or ''}"

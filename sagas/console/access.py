"""Who may use the console: on loopback only, by password, or as the application's own login says."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, TypeAlias

from starlette.requests import Request
from starlette.responses import Response

from sagas.errors import ConfigurationError

#: A shorter password could be guessed, although guessing is slowed.
LEAST_PASSWORD_LENGTH: Final = 12
#: What a proxy adds. A request that came through one is not a request of this machine.
_ADDED_BY_PROXIES: Final = ("forwarded", "x-forwarded-for", "x-forwarded-host", "x-real-ip", "via")


class Role(StrEnum):
    """What a person may do. VIEWER: look. OPERATOR: act, too."""

    VIEWER = "viewer"
    OPERATOR = "operator"


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody who uses the console.

    Args:
        name: for the log of every action.
        role: what the person may do.
    """

    name: str
    role: Role = Role.VIEWER


#: An application's own login: given the request, it returns the person, or None to refuse, or a response, such as a
#: redirect to the application's login page.
Login: TypeAlias = Callable[[Request], "Person | Response | Awaitable[Person | Response | None] | None"]


@dataclass(frozen=True, slots=True)
class LoopbackOnly:
    """Everybody on this machine may act, and nobody else may even look. For development, and for a tunnel by SSH.

    It refuses requests that came through a proxy, and those for another host name, which a hostile page could have
    resolved to this machine.

    Args:
        person: the name and role of whoever comes.
    """

    person: Person

    def allows(self, request: Request) -> bool:
        """Whether the request was made on this machine, for this machine."""
        client = request.client.host if request.client else ""
        host = request.url.hostname or ""
        proxied = any(name in request.headers for name in _ADDED_BY_PROXIES)
        return is_loopback(client) and is_loopback(host) and not proxied


@dataclass(frozen=True, slots=True)
class Passwords:
    """One password for operators, and maybe one for viewers. A person gives a name with it, which is not proven.

    Args:
        operator: the password of those who may act; None if nobody may.
        viewer: the password of those who may look.
        secret: signs the sessions; the same in all processes that serve one console. Default: random, so that
            sessions end with the process.

    Raises:
        ConfigurationError: a password is too short, both are the same, or there is none.
    """

    operator: str | None = field(default=None, repr=False)
    viewer: str | None = field(default=None, repr=False)
    secret: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        given = [password for password in (self.operator, self.viewer) if password is not None]
        if not given:
            raise ConfigurationError("the console has no password: give one for operators, for viewers, or for both.")
        if any(len(text) < LEAST_PASSWORD_LENGTH for text in given):
            raise ConfigurationError(
                f"a password of the console has fewer than {LEAST_PASSWORD_LENGTH} characters, so it could be guessed: "
                "take a longer one, such as `openssl rand -hex 24` prints."
            )
        if self.secret is not None and len(self.secret) < 32:
            raise ConfigurationError(
                "the secret that signs sessions of the console has fewer than 32 characters: take a longer one, such "
                "as `openssl rand -hex 24` prints."
            )
        if self.operator == self.viewer:
            raise ConfigurationError(
                "operators and viewers of the console have the same password, so that viewers could act: give each "
                "their own."
            )

    def role_of(self, password: str) -> Role | None:
        """Return the role that a password gives. It takes as long for a wrong one as for a right one."""
        may_act = _same(password, self.operator)
        may_look = _same(password, self.viewer)
        return Role.OPERATOR if may_act else Role.VIEWER if may_look else None

    def signing_key(self) -> bytes:
        """Return what signs sessions: another secret or another password ends them all."""
        secret = self.secret or secrets.token_hex(32)
        text = "\0".join(("sagas.console", secret, self.operator or "", self.viewer or ""))
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


#: How the console decides who may use it.
Access: TypeAlias = LoopbackOnly | Passwords | Login


def is_loopback(host: str) -> bool:
    """Whether a host, by name or address, is this machine and cannot be reached from another."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _same(given: str, wanted: str | None) -> bool:
    """Compare in constant time; digests, so that not even the length shows."""
    expected = secrets.token_hex(32) if wanted is None else wanted
    return hmac.compare_digest(_digest(given), _digest(expected)) and wanted is not None


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()

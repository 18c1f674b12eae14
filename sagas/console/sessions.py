"""The cookie of a session, which is signed and not stored, and the tokens of its forms."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from dataclasses import dataclass
from typing import Final

from itsdangerous import BadSignature, URLSafeTimedSerializer
from starlette.requests import Request
from starlette.responses import Response

from sagas.console.access import Person, Role

COOKIE: Final = "sagas_console"
#: Seconds after which a person has to log in again.
LIFETIME: Final = 12 * 3600


@dataclass(frozen=True, slots=True)
class Session:
    """A browser's session.

    Attributes:
        nonce: random; the tokens of its forms are made from it.
        person: who has logged in; None if nobody has, or if the application's own login knows.
    """

    nonce: str
    person: Person | None = None


def new_session(person: Person | None = None) -> Session:
    """Return a session with a new nonce."""
    return Session(secrets.token_urlsafe(24), person)


class Sessions:
    """Reads and writes sessions.

    Args:
        key: signs them.
    """

    def __init__(self, key: bytes) -> None:
        self._key = key
        self._signer = URLSafeTimedSerializer(
            key, salt="sagas.console", signer_kwargs={"digest_method": hashlib.sha256}
        )

    def read(self, request: Request) -> Session | None:
        """Return the session of a request; None if it has none that is valid."""
        try:
            stored = self._signer.loads(request.cookies.get(COOKIE, ""), max_age=LIFETIME)
            person = Person(str(stored["name"]), Role(stored["role"])) if "name" in stored else None
            return Session(str(stored["nonce"]), person)
        except (BadSignature, KeyError, TypeError, ValueError):
            return None

    def write(self, response: Response, session: Session, request: Request) -> None:
        """Set the cookie of a session."""
        stored = {"nonce": session.nonce}
        if session.person is not None:
            stored |= {"name": session.person.name, "role": session.person.role.value}
        response.set_cookie(
            COOKIE,
            str(self._signer.dumps(stored)),
            max_age=LIFETIME,
            path=request.scope.get("root_path") or "/",
            secure=request.url.scheme == "https",
            httponly=True,
            samesite="lax",
        )

    def token(self, session: Session) -> str:
        """Return what each form of a session has to bring back."""
        return hmac.new(self._key, f"form:{session.nonce}".encode(), hashlib.sha256).hexdigest()

    def accepts(self, session: Session, token: str) -> bool:
        """Whether a form has the token of its session, compared in constant time."""
        return hmac.compare_digest(self.token(session).encode(), token.encode("utf-8", "surrogatepass"))

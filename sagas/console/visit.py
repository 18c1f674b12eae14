"""One request to the console: who asks, what the form has, and how the answer is made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from sagas.admin import Operator
from sagas.console.access import Person, Role
from sagas.console.rendering import Pages
from sagas.engine import SagaEngine
from sagas.inspection import Inspector
from sagas.telemetry.logs import saga_logger

logger = saga_logger(__name__)

#: Seconds that an action waits for a worker to give its saga back.
PATIENCE_SECONDS: Final = 3.0
MOST_REASON_CHARACTERS: Final = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Desk:
    """What all visits share.

    Attributes:
        engine: acts on sagas.
        inspector: answers every question.
        pages: renders templates.
        patience_seconds: how long an action waits for a worker to give its saga back.
        log_out: whether a person can log out, because the console has a login of its own.
    """

    engine: SagaEngine
    inspector: Inspector
    pages: Pages
    patience_seconds: float = PATIENCE_SECONDS
    log_out: bool = False


class Refused(Exception):
    """A request that cannot be fulfilled; the message is a sentence for the person who made it."""

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, slots=True, kw_only=True)
class Visit:
    """One request of one person.

    Attributes:
        token: what each form of the page has to bring back.
        form: the fields of the form that was sent.
    """

    desk: Desk
    request: Request
    person: Person
    token: str
    form: Mapping[str, Sequence[str]] = field(default_factory=dict)

    @property
    def may_act(self) -> bool:
        """Whether the person is an operator."""
        return self.person.role is Role.OPERATOR

    def path(self, path: str, /, **query: str | Sequence[str] | None) -> str:
        """Return the path of a page, below where the console is mounted; it never names a host."""
        return path_below(self.request, path, **query)

    def sent(self, name: str) -> str:
        """Return a field of the form, or an empty text."""
        values = self.form.get(name) or [""]
        return values[0].strip()

    def reason(self) -> str:
        """Return why the person acts.

        Raises:
            Refused: no reason was given, or one that cannot be stored.
        """
        reason = self.sent("reason")
        if not reason:
            raise Refused("Give a reason: it is kept with your name in the log of the saga.")
        if len(reason) > MOST_REASON_CHARACTERS or "\0" in reason:
            raise Refused(f"Give a reason of at most {MOST_REASON_CHARACTERS} characters, and without NUL.")
        return reason

    def operator(self, **options: Any) -> Operator:
        """Return what acts on sagas in the person's name."""
        options.setdefault("wait_seconds", self.desk.patience_seconds)
        return Operator(self.desk.engine, actor=self.person.name, without_code=True, **options)

    def log(self, action: str, about: str, reason: str) -> None:
        """Log an action with the person's name, and from where it came."""
        address = self.request.client.host if self.request.client else "unknown"
        logger.info(
            "console: %s (%s, from %s): %s %s: %s", self.person.name, self.person.role, address, action, about, reason
        )

    def show(self, template: str, status: int = 200, **values: Any) -> Response:
        """Return a page."""
        text = self.desk.pages.render(template, visit=self, desk=self.desk, to=self.path, **values)
        return HTMLResponse(text, status)

    def go(self, path: str, /, **query: str | Sequence[str] | None) -> Response:
        """Return a redirect to a page, after an action."""
        return RedirectResponse(self.path(path, **query), 303)


def path_below(request: Request, path: str, /, **query: str | Sequence[str] | None) -> str:
    """Return the path of a page, below where the console is mounted."""
    given = {name: value for name, value in query.items() if value not in (None, "", [], ())}
    asked = f"?{urlencode(given, doseq=True)}" if given else ""
    return f"{request.scope.get('root_path', '')}{path}{asked}"

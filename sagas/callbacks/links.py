"""Makes links, and reads them: what a link says is in the link itself, and signed."""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from pydantic_core import PydanticSerializationError, to_jsonable_python

from sagas import api
from sagas.definition import MAX_NAME_LENGTH
from sagas.engine import SagaEngine
from sagas.errors import ConfigurationError
from sagas.recovery import parse_saga_id
from sagas.settings import Settings
from sagas.storable import require_storable

if TYPE_CHECKING:
    from itsdangerous import Signer

#: Mail programs and browsers may cut off a longer link.
LONGEST_URL: Final = 2000
#: The label of the only choice, and the id of links that have none of their own.
DEFAULT_LABEL: Final = "Confirm"
DEFAULT_LINK_ID: Final = "callback"

_MOST_CHOICES: Final = 10
_LONGEST_LABEL: Final = 100
_LONGEST_LINK_ID: Final = 200
_LONGEST_LIFE: Final = timedelta(days=3660)
#: Signatures for another purpose, or of another format, do not fit.
_SALT: Final = "sagas.callbacks.1"
#: The content, a dot, and 256 bits. Anything else is not looked at.
_TOKEN: Final = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]{43}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """What a link says.

    Attributes:
        saga_id: the saga.
        wait: the name of the wait that the answer is for.
        choices: by label, the payloads of which one is the answer.
        question: what the page asks; None for a sentence with the name of the wait.
        link_id: links of a wait that have the same one are answered once together.
        expires_at: until when it can be answered, in seconds since 1970.
    """

    saga_id: UUID
    wait: str
    choices: Mapping[str, Any]
    question: str | None
    link_id: str
    expires_at: int

    @property
    def signal_id(self) -> str:
        """The id of the signal that the answer sends. A link was used if there is such a signal."""
        return f"link:{self.link_id}"

    @property
    def expired(self) -> bool:
        """Whether it is too late to answer, by the clock of this machine."""
        return time.time() >= self.expires_at


class Links:
    """Signs and reads links.

    Args:
        secrets: the first one signs; a link that any of them signed is read.

    Raises:
        ConfigurationError: there is no secret, or itsdangerous is not installed.
    """

    def __init__(self, secrets: Sequence[str]) -> None:
        if not secrets:
            raise ConfigurationError(
                "callback links need a secret, and SAGAS_CALLBACK_SECRET is not set: set it to a random text of 32 "
                "characters or more, the same where links are made and where they are answered."
            )
        self._signer = _signer(secrets)

    def token(self, link: Link) -> str:
        """Return the text that stands for a link in its URL."""
        content = {
            "s": link.saga_id.hex,
            "w": link.wait,
            "c": list(link.choices.items()),
            "q": link.question,
            "i": link.link_id,
            "e": link.expires_at,
        }
        from itsdangerous.encoding import base64_encode

        text = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        return self._signer.sign(base64_encode(text)).decode()

    def read(self, token: str) -> Link | None:
        """Return the link; None if it is no link that these secrets have signed."""
        from itsdangerous import BadSignature
        from itsdangerous.encoding import base64_decode

        if len(token) > LONGEST_URL or not _TOKEN.fullmatch(token):
            return None
        try:
            content = json.loads(base64_decode(self._signer.unsign(token)))
        except BadSignature:
            return None
        return Link(
            saga_id=UUID(content["s"]),
            wait=content["w"],
            choices=dict(content["c"]),
            question=content["q"],
            link_id=content["i"],
            expires_at=content["e"],
        )


def callback_url(
    saga_id: UUID | str,
    name: str,
    payload: object = None,
    *,
    expires: timedelta,
    choices: Mapping[str, object] | None = None,
    question: str | None = None,
    link_id: str = DEFAULT_LINK_ID,
    engine: SagaEngine | None = None,
) -> str:
    """Return a link by which a person or an outside service answers a wait of a saga, once.

    Opening the link shows what would be answered. Only the button on that page, or a POST to the link, answers. Whoever
    has the link can answer, and can read what is in it.

    Args:
        saga_id: the saga; it may be started later.
        name: the name of the wait.
        payload: what the signal brings: an instance of the wait's type, or plain data that describes one.
        expires: how long the link can be answered.
        choices: payloads by the label of their button, as `{"Accept": {"accepted": True}, "Refuse": ...}`, instead of
            one payload. One of them is the answer.
        question: what the page asks.
        link_id: links of this wait that have the same one are answered once together. The default is one for all links
            of the wait, so a step that runs twice and sends two links gets one answer.
        engine: its settings have the secret; default: the engine of this process.

    Raises:
        ConfigurationError: SAGAS_CALLBACK_SECRET or SAGAS_CALLBACK_URL is not set, or itsdangerous is not installed.
        InvalidSagaId: the saga's id is none.
        ValueError: an argument cannot be used, or the link would be too long.
    """
    settings = (engine or api.current_engine()).settings
    links, base = Links(settings.callback_secret), _base(settings)
    if choices is not None and payload is not None:
        raise ValueError("callback_url got a payload and choices: give one of them.")
    _check_texts(name=(name, MAX_NAME_LENGTH), link_id=(link_id, _LONGEST_LINK_ID))
    if question is not None:
        _check_texts(question=(question, LONGEST_URL))
    if not isinstance(expires, timedelta) or not timedelta(0) < expires <= _LONGEST_LIFE:
        raise ValueError(f"expires is {expires!r}: give a time from now of up to ten years, as timedelta(days=2).")
    link = Link(
        saga_id=parse_saga_id(saga_id),
        wait=name,
        choices=_plain({DEFAULT_LABEL: payload} if choices is None else choices),
        question=question,
        link_id=link_id,
        expires_at=int(time.time() + expires.total_seconds()),
    )
    url = f"{base}/{links.token(link)}"
    if len(url) > LONGEST_URL:
        raise ValueError(
            f"the link would have {len(url)} characters, and more than {LONGEST_URL} may be cut off on the way: "
            "shorten the payloads and the question."
        )
    return url


def _base(settings: Settings) -> str:
    if settings.callback_url is None:
        raise ConfigurationError(
            "callback links need an address, and SAGAS_CALLBACK_URL is not set: set it to the public URL where "
            "`sagas.callbacks.app` is mounted, as https://shop.example/callbacks."
        )
    return settings.callback_url.rstrip("/")


def _check_texts(**texts: tuple[object, int]) -> None:
    for argument, (text, longest) in texts.items():
        if not isinstance(text, str) or not 0 < len(text) <= longest:
            raise ValueError(f"{argument} is {text!r:.60}: give text of 1 to {longest} characters.")
        require_storable(**{argument: text})


def _plain(choices: Mapping[str, object]) -> dict[str, Any]:
    """Return the choices as data that JSON can hold."""
    if not isinstance(choices, Mapping) or not 0 < len(choices) <= _MOST_CHOICES:
        raise ValueError(f"choices are {choices!r:.100}: give 1 to {_MOST_CHOICES} payloads by their labels.")
    for label in choices:
        _check_texts(label=(label, _LONGEST_LABEL))
    try:
        plain: dict[str, Any] = to_jsonable_python(choices, inf_nan_mode="constants")
        json.dumps(plain, allow_nan=False)
    except (PydanticSerializationError, ValueError) as error:
        raise ValueError(
            f"a payload cannot be written as JSON ({error}): give data that the wait's type takes."
        ) from error
    return plain


def _signer(secrets: Sequence[str]) -> Signer:
    try:
        from itsdangerous import Signer
    except ImportError as error:
        raise ConfigurationError(
            "callback links need itsdangerous, which is not installed: run `pip install 'celery-sagas[callbacks]'`."
        ) from error
    # It signs with the last one, and compares signatures in constant time.
    return Signer(list(reversed(secrets)), salt=_SALT, key_derivation="hmac", digest_method=hashlib.sha256)

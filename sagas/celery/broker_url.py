"""Turn a broker's URL, as its provider prints it, into the settings that Celery understands."""

from __future__ import annotations

import ssl
from dataclasses import dataclass, replace
from typing import Any, Final
from urllib.parse import parse_qsl, urlencode

from sagas.errors import ConfigurationError

#: Valkey speaks Redis's protocol, and Celery knows only the name "redis".
_SCHEMES: Final = {"valkey": "redis", "valkeys": "rediss"}
#: The options as kombu, redis-py and hosting providers write them, in upper or lower case.
_CERTIFICATES: Final = {
    "none": ssl.CERT_NONE,
    "optional": ssl.CERT_OPTIONAL,
    "required": ssl.CERT_REQUIRED,
}
_REDIS: Final = frozenset({"redis", "rediss", "sentinel"})
#: The options that kombu accepts after the ? of a broker's URL. kombu fails on any other option.
_OPTIONS: Final = frozenset({"heartbeat", "login_method", "virtual_host", "credential_provider"})


@dataclass(frozen=True)
class BrokerUrl:
    """The server that one setting names.

    Attributes:
        url: Celery's URL; several URLs have `;` between them.
        tls: how the certificate of Redis is checked, in the form of the settings `broker_use_ssl` and
            `redis_backend_use_ssl`; None without TLS.
        master: Sentinel's name for the server; None without Sentinel.
    """

    url: str
    tls: dict[str, Any] | None = None
    master: str | None = None

    @property
    def is_redis(self) -> bool:
        """Whether the URL names a server that speaks Redis's protocol."""
        return self.url.partition("://")[0].partition("+")[0] in _REDIS

    @property
    def first(self) -> BrokerUrl:
        """The first server's URL, for settings that accept one server only; Sentinels count as one server."""
        return self if self.master else replace(self, url=self.url.partition(";")[0])

    def check_options(self, *, setting: str) -> None:
        """Refuse an option after the `?` that no broker's URL may have.

        Raises:
            ConfigurationError: the URL has such an option; the message quotes no part of the URL.
        """
        for each in self.url.split(";"):
            names = {name for name, _ in parse_qsl(each.partition("?")[2], keep_blank_values=True)} - _OPTIONS
            if not all(name.startswith("ssl_") and each.startswith("amqps://") for name in names):
                raise ConfigurationError(
                    f"{setting} has an option after its ? that Celery does not accept: leave it out. Accepted options "
                    "are ssl_cert_reqs and the like for rediss://, master_name for sentinel://, and heartbeat "
                    "for amqp://."
                )

    @classmethod
    def parse(cls, text: str, *, setting: str) -> BrokerUrl:
        """Read a URL, or several with `;` between them.

        A certificate is checked unless the URL says otherwise; Celery alone would check none.

        Args:
            text: the URL.
            setting: the setting that holds the URL, for messages.

        Raises:
            ConfigurationError: the URL has an option that does not exist; the message quotes no part of the URL.
        """
        urls: list[str] = []
        tls: dict[str, Any] = {}
        master: str | None = None
        for each in text.split(";"):
            scheme, _, rest = each.partition("://")
            scheme = _SCHEMES.get(scheme, scheme)
            address, _, query = rest.partition("?")
            if scheme in _REDIS:
                options = dict(parse_qsl(query, keep_blank_values=True))
                if scheme == "rediss":
                    tls |= _tls(options, setting)
                master = options.pop("master_name", master)
                query = urlencode(options)
            urls.append(f"{scheme}://{address}{'?' if query else ''}{query}")
        if urls[0].startswith("sentinel://") and not master:
            raise ConfigurationError(
                f"{setting} names a Sentinel, and not the master that is asked for: write it as "
                "sentinel://host:26379/0?master_name=mymaster, further Sentinels with a ; between them."
            )
        return cls(";".join(urls), tls or None, master)


def _tls(options: dict[str, str], setting: str) -> dict[str, Any]:
    """Remove the TLS options from the URL's options, and return them."""
    found: dict[str, Any] = {name: options.pop(name) for name in list(options) if name.startswith("ssl_")}
    check = str(found.get("ssl_cert_reqs", "required")).lower().removeprefix("cert_")
    if check not in _CERTIFICATES:
        raise ConfigurationError(
            f"{setting}: its ssl_cert_reqs is no way to check a certificate: write required, optional or none, or "
            "leave it out, which is required."
        )
    found["ssl_cert_reqs"] = _CERTIFICATES[check]
    if "ssl_check_hostname" in found:
        found["ssl_check_hostname"] = found["ssl_check_hostname"].lower() not in ("false", "0", "no")
    return found

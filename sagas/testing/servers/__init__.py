"""Real PostgreSQL and Redis-protocol servers from wheels, for tests, the demo and fault injection.

Both run as children of this process on Linux and macOS, listen on 127.0.0.1 only, keep their port until
they are closed, and keep every file below the directory they are given. On Linux they end with this process
even if it is killed; on macOS only if it exits in order.
"""

from sagas.testing.servers.broker import BrokerServer
from sagas.testing.servers.postgres import PostgresServer
from sagas.testing.servers.process import ServerError, StopMode

__all__ = ["BrokerServer", "PostgresServer", "ServerError", "StopMode"]

"""Brokers from Debian packages, for which there is no wheel: redis-server (with or without TLS), Sentinel, RabbitMQ."""

from __future__ import annotations

import os
import shutil
import socket
from pathlib import Path
from signal import SIGKILL, SIGTERM

import pytest
import redis
from kombu import Connection

from sagas.testing.servers import HOST, BrokerServer, Server


def require(program: str) -> None:
    """Skip the test if this program is not installed."""
    if _which(program) is None:
        pytest.skip(f"{program} is not installed; `make test-brokers` installs it on Debian")


def empty_rabbit(url: str) -> None:
    """Delete the queues that tests use."""
    with Connection(url) as connection:
        for queue in ("sagas.scan", "sagas.run", "sagas.recover", "celery", "shop", "mail"):
            connection.default_channel.queue_delete(queue)


def _which(program: str) -> str | None:
    return shutil.which(program, path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/usr/lib/rabbitmq/bin")


class InstalledServer(Server):
    """A server whose program is installed on this machine."""

    def _find(self) -> Path:
        found = _which(self._program)
        assert found is not None, f"{self._program} is not installed"
        return Path(found)

    def __enter__(self):
        self.start(timeout_seconds=150)  # long enough for RabbitMQ on a busy machine
        return self


class RedisServer(InstalledServer):
    """Debian's redis-server.

    Args:
        directory: for its files.
        options: further options of its command line, by name.
        tls: the files of its certificate, its key and its authority's certificate; the server then listens with TLS
            only.
    """

    _label = "Redis"
    _program = "redis-server"
    _signals = {"fast": SIGTERM, "immediate": SIGKILL}

    def __init__(self, directory: Path, *, tls: tuple[Path, Path, Path] | None = None, **options: str) -> None:
        super().__init__(directory)
        self._tls = tls
        self._options = options

    @property
    def url(self) -> str:
        """The URL of the server's first database, without a password."""
        return f"{'rediss' if self._tls else 'redis'}://{HOST}:{self.port}/0"

    def _command(self, executable: Path, port: int) -> list[str]:
        options = {"bind": HOST, "save": "", "appendonly": "no", "port": str(port), **self._options}
        if self._tls:
            certificate, key, authority = map(str, self._tls)
            options |= {"port": "0", "tls-port": str(port), "tls-auth-clients": "no"}
            options |= {"tls-cert-file": certificate, "tls-key-file": key, "tls-ca-cert-file": authority}
        return [str(executable), *(part for name, value in options.items() for part in (f"--{name}", value))]

    def _ping(self) -> None:
        if self._tls:
            socket.create_connection((HOST, self.port), timeout=1).close()
        else:
            with redis.Redis(HOST, self.port, password=self._options.get("requirepass")) as client:
                client.ping()


class SentinelServer(InstalledServer):
    """Debian's redis-sentinel with one master, whose name is `shop`.

    Args:
        directory: for its files.
        master: the server that is the first master.
    """

    _label = "Sentinel"
    _program = "redis-sentinel"
    _signals = {"fast": SIGTERM, "immediate": SIGKILL}

    def __init__(self, directory: Path, master: RedisServer) -> None:
        super().__init__(directory)
        self._master = master

    def _command(self, executable: Path, port: int) -> list[str]:
        file = self._home / "sentinel.conf"
        file.write_text(
            f"bind {HOST}\nport {port}\ndir {self._home}\nsentinel monitor shop {HOST} {self._master.port} 1\n"
            "sentinel down-after-milliseconds shop 1000\nsentinel failover-timeout shop 5000\n"
        )
        file.chmod(0o666)  # the server's user rewrites this file
        return [str(executable), str(file)]

    def _ping(self) -> None:
        with redis.Redis(HOST, self.port) as client:
            client.ping()


class RabbitServer(InstalledServer):
    """Debian's RabbitMQ: a node with its own directory, port and epmd, on the loopback interface."""

    _label = "RabbitMQ"
    _program = "rabbitmq-server"
    _signals = {"fast": SIGTERM, "immediate": SIGTERM}

    @property
    def url(self) -> str:
        """The URL of the node's virtual host."""
        return f"amqp://guest:guest@{HOST}:{self.port}//"

    def _find(self) -> Path:
        return Path("/usr/lib/rabbitmq/bin/rabbitmq-server")  # only the user rabbitmq may run the program on the PATH

    def _command(self, executable: Path, port: int) -> list[str]:
        epmd, distribution = (_free_port() for _ in range(2))
        variables = {
            "HOME": self._home,
            "RABBITMQ_NODENAME": f"sagas{port}@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": HOST,
            "RABBITMQ_NODE_PORT": port,
            "RABBITMQ_DIST_PORT": distribution,
            "RABBITMQ_MNESIA_BASE": self._home / "data",
            "RABBITMQ_LOG_BASE": self._home / "log",
            "RABBITMQ_LOGS": "-",
            "RABBITMQ_PID_FILE": self._home / "pid",
            "RABBITMQ_ENABLED_PLUGINS_FILE": self._home / "plugins",
            "RABBITMQ_CONF_ENV_FILE": "/dev/null",
            "RABBITMQ_CONFIG_FILE": self._home / "rabbitmq",
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}",
            "ERL_EPMD_ADDRESS": HOST,
            "ERL_EPMD_PORT": epmd,
        }
        script = (
            f"epmd -port {epmd} -address {HOST} & epmd=$!\n{executable} & node=$!\n"
            'trap "kill -9 $node $epmd" TERM\nwait $node\nkill -9 $epmd\n'
        )
        return ["/usr/bin/env", *(f"{name}={value}" for name, value in variables.items()), "sh", "-c", script]

    def _ping(self) -> None:
        with Connection(self.url, connect_timeout=2) as connection:
            connection.connect()


#: The broker of the suite by the value of SAGAS_TEST_BROKER, which `make test-brokers` sets.
KINDS = {"valkey": BrokerServer, "redis": RedisServer, "rabbitmq": RabbitServer}


def broker(directory: Path) -> Server:
    """Return a server of the kind that this run of the suite tests."""
    return KINDS[os.environ.get("SAGAS_TEST_BROKER", "valkey")](directory)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])

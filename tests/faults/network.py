"""Links between a worker and PostgreSQL that can be cut silently: no packet arrives and no connection is refused.

In a network namespace of its own, the kernel drops the packets. If no namespace can be made (not on Linux, or not
allowed), a forwarder stops forwarding instead. The forwarder is silent, too, but it has acknowledged the data that it
got before.
"""

from __future__ import annotations

import os
import selectors
import shutil
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from typing import Protocol

_MARK = "SAGAS_FAULTS_NETWORK"
#: nftables' numbers of the address family, the verdict and the policy.
_IPV4, _DROP, _ACCEPT = 2, 0, 1


def enter_own_network() -> None:
    """Run this process again in a network namespace of its own, if it is in none and one can be made."""
    if own_network():
        _raise_loopback()
    elif shutil.which("unshare"):
        for own in (["--net"], ["--user", "--map-current-user", "--keep-caps", "--net"]):
            if subprocess.run(["unshare", *own, "true"], capture_output=True, check=False).returncode == 0:
                os.execvpe("unshare", ["unshare", *own, "--", *sys.orig_argv], os.environ | {_MARK: "own"})


def _raise_loopback() -> None:
    from pyroute2 import IPRoute

    with IPRoute() as network:
        network.link("set", index=network.link_lookup(ifname="lo")[0], state="up")


def own_network() -> bool:
    """Whether this process has its own network, in which packets may be dropped."""
    return os.environ.get(_MARK) == "own"


def addresses(count: int) -> list[str]:
    """Return one loopback address for each link; a server whose links drop packets must listen on them."""
    return [f"127.0.1.{number}" for number in range(1, count + 1)] if own_network() else []


class Link(Protocol):
    """A worker's way to a server.

    Attributes:
        host, port: the server's address for the worker.
    """

    host: str
    port: int

    def cut(self) -> None:
        """Stop all data in both directions; connections stay open and silent."""

    def heal(self) -> None:
        """Let all data through again."""

    def close(self) -> None:
        """Accept no more connections."""


def link_to(port: int, number: int) -> Link:
    """Return link `number` (from 1) to the server at `port`, of the kind that this process can make."""
    return Dropping(port, number) if own_network() else Forwarding(port)


class Dropping:
    """A loopback address; the kernel drops all of its packets on request."""

    def __init__(self, port: int, number: int) -> None:
        self.host = addresses(number)[-1]
        self.port = port
        self._table = f"link-{number}"

    def cut(self) -> None:
        from pyroute2.nftables.expressions import ipv4addr, verdict
        from pyroute2.nftables.main import NFTables

        with NFTables(nfgen_family=_IPV4) as tables:
            tables.table("add", name=self._table)
            # Drop incoming packets: if an outgoing packet is dropped, its sender gets an error.
            tables.chain("add", table=self._table, name="in", hook="input", type="filter", policy=_ACCEPT)
            for address in (ipv4addr(dst=self.host), ipv4addr(src=self.host)):
                tables.rule("add", table=self._table, chain="in", expressions=(address, verdict(_DROP)))

    def heal(self) -> None:
        from pyroute2.nftables.main import NFTables

        with NFTables(nfgen_family=_IPV4) as tables:
            tables.table("del", name=self._table)

    def close(self) -> None:
        return


class Forwarding:
    """A TCP forwarder on loopback whose traffic can be stopped and resumed; held data is then sent first.

    Args:
        port: the server's port.
        delay_seconds: delay of all data in each direction.
    """

    host = "127.0.0.1"

    def __init__(self, port: int, *, delay_seconds: float = 0.0) -> None:
        self._target = port
        self._delay_seconds = delay_seconds
        self._open = threading.Event()
        self._open.set()
        self._listener = socket.create_server((self.host, 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        self._open.clear()

    def heal(self) -> None:
        self._open.set()

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._forward, args=(client,), daemon=True).start()

    def _forward(self, client: socket.socket) -> None:
        self._open.wait()
        with (
            client,
            suppress(OSError),
            socket.create_connection((self.host, self._target)) as server,
            selectors.DefaultSelector() as ready,
        ):
            ready.register(client, selectors.EVENT_READ, server)
            ready.register(server, selectors.EVENT_READ, client)
            while True:
                for key, _ in ready.select():
                    data = key.fileobj.recv(65536)  # type: ignore[union-attr]
                    if not data:
                        return
                    time.sleep(self._delay_seconds)
                    self._open.wait()
                    key.data.sendall(data)

"""A link between one worker and PostgreSQL that can be cut silently: nothing is refused, nothing arrives."""

from __future__ import annotations

import selectors
import socket
import threading
from contextlib import suppress


class Link:
    """A TCP forwarder on loopback whose traffic can be stopped and let on.

    Args:
        port: of the server on 127.0.0.1 that it leads to.
    """

    def __init__(self, port: int) -> None:
        self._target = port
        self._open = threading.Event()
        self._open.set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """Let nothing through any more, in either direction; connections stay open and silent."""
        self._open.clear()

    def heal(self) -> None:
        """Let everything through again, what was sent meanwhile first."""
        self._open.set()

    def close(self) -> None:
        """Take no more connections."""
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
            socket.create_connection(("127.0.0.1", self._target)) as server,
            selectors.DefaultSelector() as ready,
        ):
            ready.register(client, selectors.EVENT_READ, server)
            ready.register(server, selectors.EVENT_READ, client)
            while True:
                for key, _ in ready.select():
                    data = key.fileobj.recv(65536)  # type: ignore[union-attr]
                    if not data:
                        return
                    self._open.wait()  # what was received while the link is cut goes on when it is healed
                    key.data.sendall(data)

"""A forwarder to the database that counts round trips."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import sqlalchemy as sa


class RoundTrips:
    """The number of times that a client sent something after an answer, on all connections."""

    def __init__(self) -> None:
        self.count = 0
        self.url = ""

    @contextmanager
    def counting_to(self, url: str) -> Iterator[RoundTrips]:
        """Forward connections while the block runs; `url` is that of the forwarder."""
        target = sa.make_url(url)
        with socket.create_server(("127.0.0.1", 0)) as server:
            self.url = target.set(host="127.0.0.1", port=server.getsockname()[1]).render_as_string(hide_password=False)
            threading.Thread(target=self._accept, args=(server, target), daemon=True).start()
            yield self

    def _accept(self, server: socket.socket, target: sa.URL) -> None:
        while True:
            try:
                client, _ = server.accept()
            except OSError:
                return
            upstream = socket.create_connection((target.host or "localhost", target.port or 5432))
            for each in (client, upstream):
                each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            waiting = threading.Event()  # the client waits for an answer
            for source, sink, is_client in ((client, upstream, True), (upstream, client, False)):
                threading.Thread(target=self._forward, args=(source, sink, waiting, is_client), daemon=True).start()

    def _forward(self, source: socket.socket, sink: socket.socket, waiting: threading.Event, is_client: bool) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                if not is_client:
                    waiting.clear()
                elif not waiting.is_set():
                    waiting.set()
                    self.count += 1
                sink.sendall(data)
        with suppress(OSError):
            sink.shutdown(socket.SHUT_WR)

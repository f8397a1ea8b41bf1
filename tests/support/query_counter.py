"""A proxy in front of PostgreSQL that counts round trips."""

import contextlib
import socket
import threading
from collections.abc import Iterator

_HEAD = 5
"""Bytes of the type and length of a message."""
_ASKS = (b"Q", b"S")
"""Message types after which a client waits: a simple query, and the Sync of an extended query."""


class QueryCounter:
    """Running proxy. `trips` is the number of round trips; the simple queries are recorded too."""

    def __init__(self, target: tuple[str, int]) -> None:
        self._target = target
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self.trips = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(self._target)
                for end in (client, server):
                    end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                for work in (self._ask, self._answer):
                    threading.Thread(target=work, args=[client, server], daemon=True).start()

    def _ask(self, client: socket.socket, server: socket.socket) -> None:
        with client, server, contextlib.suppress(OSError):
            data = b""
            started = False
            while piece := client.recv(1 << 16):
                server.sendall(piece)
                data += piece
                while message := _message(data, started=started):
                    # The startup message has no type. A TLS request precedes the startup message.
                    if not started:
                        started = message[4:8] == b"\0\3\0\0"
                    elif message[:1] in _ASKS:
                        with self._lock:
                            self.trips += 1
                    data = data[len(message) :]

    @staticmethod
    def _answer(client: socket.socket, server: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while piece := server.recv(1 << 16):
                client.sendall(piece)


def _message(data: bytes, *, started: bool) -> bytes:
    """Return the first complete message, or empty bytes if there is none yet."""
    kind = 1 if started else 0
    length = kind + int.from_bytes(data[kind : kind + 4])
    return data[:length] if len(data) >= max(length, _HEAD) else b""


@contextlib.contextmanager
def count_queries(port: int) -> Iterator[QueryCounter]:
    """Run a proxy in front of the PostgreSQL server at `port`."""
    proxy = QueryCounter(("127.0.0.1", port))
    try:
        yield proxy
    finally:
        proxy.close()

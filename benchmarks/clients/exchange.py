"""HTTP exchanges on many connections from one thread.

A client is a generator: it yields requests and receives their responses. All clients run in one
loop over epoll, so that the load generator needs little CPU time.
"""

import selectors
import socket
import time
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass, field

Piece = bytes | memoryview
PIECE = 1 << 20
"""Bytes that are received at once."""
LOOK_S = 1.0


class ExchangeError(Exception):
    """A response that the client cannot use, or a connection that ended."""


@dataclass(frozen=True, slots=True)
class Request:
    """A request head, and the pieces of its body."""

    method: str
    target: str
    headers: dict[str, str] = field(default_factory=dict)
    body: Iterable[Piece] = ()


@dataclass(frozen=True, slots=True)
class Response:
    """A response. `body` is empty unless the status is an error; `length` is its size."""

    status: int
    headers: dict[str, str]
    body: bytes
    length: int

    def expect(self, status: int) -> "Response":
        if self.status != status:
            raise ExchangeError(f"{self.status} instead of {status}: {self.body[:500]!r}")
        return self


Client = Generator[Request, Response, None]


class _Connection:
    """A connection with the client that uses it."""

    def __init__(self, port: int, client: Client) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=30)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setblocking(False)
        self._client = client
        self._port = port
        self._unsent: Iterator[Piece] = iter(())
        self._piece = memoryview(b"")
        self._method = ""
        self._head = b""
        self._response: Response | None = None
        self._body = bytearray()
        self._missing = 0
        self.is_over = False
        self._take(next(client, None))

    def _take(self, request: Request | None) -> None:
        """Start to send the next request of the client."""
        if request is None:
            self.is_over = True
            return
        lines = [f"{request.method} {request.target} HTTP/1.1", f"Host: 127.0.0.1:{self._port}"]
        lines += [f"{name}: {value}" for name, value in request.headers.items()]
        head = "\r\n".join([*lines, "", ""]).encode()
        self._method = request.method
        self._unsent = iter(request.body)
        self._piece = memoryview(head)

    @property
    def wants_to_send(self) -> bool:
        return bool(self._piece)

    def send(self) -> None:
        """Send as much of the request as the socket accepts."""
        while self._piece:
            try:
                sent = self.socket.send(self._piece)
            except BlockingIOError:
                return
            self._piece = self._piece[sent:]
            if not self._piece:
                self._piece = memoryview(next(self._unsent, b""))

    def receive(self, buffer: memoryview) -> None:
        """Receive what the socket has. Passes a complete response to the client."""
        try:
            count = self.socket.recv_into(buffer)
        except BlockingIOError:
            return
        if not count:
            raise ExchangeError("the server closed the connection")
        if self._response is None:
            self._parse(bytes(buffer[:count]))
        else:
            self._add(buffer[:count])
        if self._response is not None and self._missing == 0:
            self._finish()

    def _parse(self, received: bytes) -> None:
        self._head += received
        head, end, rest = self._head.partition(b"\r\n\r\n")
        if not end:
            return
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = {
            name.lower(): value.strip()
            for name, _, value in (line.partition(":") for line in lines)
        }
        if "transfer-encoding" in headers:
            raise ExchangeError("the benchmark does not read chunked responses")
        length = int(headers.get("content-length", "0"))
        self._response = Response(int(first.split()[1]), headers, b"", length)
        self._missing = 0 if self._method == "HEAD" else length
        self._add(memoryview(rest))

    def _add(self, received: memoryview) -> None:
        assert self._response is not None
        if len(received) > self._missing:
            raise ExchangeError("the response is longer than its Content-Length")
        self._missing -= len(received)
        if self._response.status >= 400:
            self._body += received

    def _finish(self) -> None:
        found = self._response
        assert found is not None
        response = Response(found.status, found.headers, bytes(self._body), found.length)
        self._response, self._head, self._body = None, b"", bytearray()
        if self.wants_to_send:
            raise ExchangeError(f"{response.status} before the request was sent: {response.body!r}")
        try:
            self._take(self._client.send(response))
        except StopIteration:
            self.is_over = True


def run(port: int, clients: Iterable[Client], limit_s: float = 300.0) -> float:
    """Run all clients at once, each on a connection of its own, and return the seconds it took.

    Connecting is not part of the time. Raises ExchangeError if a client fails or time runs out.
    """
    buffer = memoryview(bytearray(PIECE))
    connections: list[_Connection] = []
    with selectors.EpollSelector() as selector:
        try:
            connections.extend(_Connection(port, client) for client in clients)
            begun = time.perf_counter()
            left = len(connections)
            for each in connections:
                if each.is_over:
                    left -= 1
                else:
                    selector.register(each.socket, selectors.EVENT_READ, each)
                    _send(selector, each)
            while left:
                if time.perf_counter() - begun > limit_s:
                    raise ExchangeError(f"{left} clients are not done after {limit_s:.0f} s")
                for key, events in selector.select(LOOK_S):
                    left -= _advance(selector, key, events, buffer)
            return time.perf_counter() - begun
        finally:
            for each in connections:
                each.socket.close()


def _advance(
    selector: selectors.EpollSelector,
    key: selectors.SelectorKey,
    events: int,
    buffer: memoryview,
) -> bool:
    """Receive and send on a connection that is ready. Returns whether its client is done."""
    connection: _Connection = key.data
    if events & selectors.EVENT_READ:
        connection.receive(buffer)
    if connection.is_over:
        selector.unregister(connection.socket)
    elif connection.wants_to_send:
        _send(selector, connection)
    elif key.events != selectors.EVENT_READ:
        selector.modify(connection.socket, selectors.EVENT_READ, connection)
    return connection.is_over


def _send(selector: selectors.EpollSelector, connection: _Connection) -> None:
    connection.send()
    events = selectors.EVENT_READ
    if connection.wants_to_send:
        events |= selectors.EVENT_WRITE
    if selector.get_key(connection.socket).events != events:
        selector.modify(connection.socket, events, connection)

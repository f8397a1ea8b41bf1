"""A proxy between a registry and its object store that injects network faults into requests."""

import contextlib
import re
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from urllib.parse import urlsplit

PIECE = 1 << 16


@dataclass(frozen=True)
class Fault:
    """Fault that the proxy injects into one request.

    - `answer`: send this response and do not forward the request.
    - `after`: forward the request, and cut the response after this number of bytes.
    - `stall`: never respond, or send nothing after the first `after` bytes.
    - `taken`: close the connection after this number of bytes of the body.
    - `pace`: forward the request, and read its body at this number of bytes per second.
    """

    answer: bytes | None = None
    after: int | None = None
    stall: bool = False
    taken: int | None = None
    pace: int | None = None


def status(code: int, reason: str, body: bytes = b"") -> Fault:
    head = f"HTTP/1.1 {code} {reason}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    return Fault(answer=head.encode() + body)


def error_body(code: str) -> bytes:
    return f"<Error><Code>{code}</Code><Message>words of the store</Message></Error>".encode()


UNAVAILABLE = status(503, "Slow Down", error_body("SlowDown"))
LATE_ERROR = status(200, "OK", error_body("InternalError"))
"""Error in a 200 response, as Amazon S3 may send it for CompleteMultipartUpload."""
CUT = Fault(after=0)
STALL = Fault(stall=True)

Judge = Callable[[str, str], Fault | None]
"""Function from method and target of a request to its fault; None forwards the request."""


@dataclass
class Flaky:
    """Running proxy.

    `judge` returns the fault of each request. It runs on the thread of the connection and may
    block. `seen` holds method and target of all requests, `heads` their complete heads.
    """

    upstream: tuple[str, int]
    judge: Judge = lambda _method, _target: None
    seen: list[tuple[str, str]] = field(default_factory=list)
    heads: list[bytes] = field(default_factory=list)
    port: int = 0
    _listener: socket.socket | None = None
    _open: set[socket.socket] = field(default_factory=set)
    _threads: list[threading.Thread] = field(default_factory=list)
    _ending: threading.Event = field(default_factory=threading.Event)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def listen(self) -> None:
        """Accept connections. After `refuse`, the port stays the same."""
        listener = socket.create_server(("127.0.0.1", self.port))
        self.port = listener.getsockname()[1]
        self._listener = listener
        self._run(self._accept, listener)

    def _run(self, work: Callable[[socket.socket], None], peer: socket.socket) -> None:
        thread = threading.Thread(target=work, args=[peer], daemon=True)
        self._threads.append(thread)
        thread.start()

    def refuse(self) -> None:
        """Refuse new connections and cut the open ones."""
        if self._listener is not None:
            # Closing the socket alone would not wake the thread that waits in `accept`.
            self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
            self._listener = None
        for client in list(self._open):
            with contextlib.suppress(OSError):
                client.shutdown(socket.SHUT_RDWR)

    def end(self) -> None:
        self._ending.set()
        self.refuse()
        for thread in self._threads:
            thread.join(10)  # otherwise its connections would end during another test

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            self._run(self._serve, client)

    def _serve(self, client: socket.socket) -> None:
        self._open.add(client)
        with client, contextlib.suppress(OSError, EOFError):
            while self._pass_on(client):
                pass
        self._open.discard(client)

    def _pass_on(self, client: socket.socket) -> bool:
        """Serve one request, and return whether another may follow on the connection."""
        head, rest = _read_head(client)
        method, target, _ = head.split(b"\r\n", 1)[0].decode().split(" ", 2)
        self.seen.append((method, target))
        self.heads.append(head)
        fault = self.judge(method, target)
        length = _length(head)
        if fault is not None and fault.pace is not None:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, PIECE)  # before it has grown
        if b"100-continue" in head.lower():
            client.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        if fault is not None and fault.stall and fault.after is None:
            self._ending.wait(60)
            return False
        if fault is not None and fault.taken is not None:
            while len(rest) < fault.taken:
                rest += _receive(client)
            return False
        if fault is not None and fault.answer is not None:
            while len(rest) < length:
                rest += _receive(client)
            client.sendall(fault.answer)
            return False
        with socket.create_connection(self.upstream) as server:
            server.sendall(_closing(head))
            server.sendall(rest)
            self._pass_body(client, server, length - len(rest), fault.pace if fault else None)
            more = _relay(server, client, None if fault is None else fault.after, method)
            if fault is not None and fault.stall:
                self._ending.wait(60)
            return more

    def _pass_body(
        self, client: socket.socket, server: socket.socket, left: int, pace: int | None
    ) -> None:
        while left:
            piece = _receive(client, left)
            server.sendall(piece)
            left -= len(piece)
            if pace is not None:
                self._ending.wait(len(piece) / pace)


def _relay(server: socket.socket, client: socket.socket, after: int | None, method: str) -> bool:
    """Forward the response, or its first `after` bytes."""
    head, rest = _read_head(server)
    if after == 0:
        return False
    left = (
        0 if method == "HEAD" or b" 304 " in head[:20] or b" 204 " in head[:20] else _length(head)
    )
    client.sendall(re.sub(rb"(?i)\r\nconnection: close", b"", head))
    left -= len(rest)
    client.sendall(rest[:after])
    sent = len(rest)
    while left and (after is None or sent < after):
        piece = _receive(server, left)
        left -= len(piece)
        client.sendall(piece[: None if after is None else after - sent])
        sent += len(piece)
    return left == 0 and after is None


def _read_head(peer: socket.socket) -> tuple[bytes, bytes]:
    data = b""
    while b"\r\n\r\n" not in data:
        data += _receive(peer)
    head, _, rest = data.partition(b"\r\n\r\n")
    return head + b"\r\n\r\n", rest


def _receive(peer: socket.socket, most: int = PIECE) -> bytes:
    data = peer.recv(min(PIECE, most))
    if not data:
        raise EOFError
    return data


def _length(head: bytes) -> int:
    match = re.search(rb"(?i)\r\ncontent-length: *([0-9]+)", head)
    return int(match[1]) if match else 0


def _closing(head: bytes) -> bytes:
    """Rewrite a head for the server: one request per connection, and no `100-continue`."""
    head = re.sub(rb"(?i)\r\n(expect|connection):[^\r]*", b"", head)
    return head.removesuffix(b"\r\n") + b"Connection: close\r\n\r\n"


@contextlib.contextmanager
def flaky(endpoint: str) -> Iterator[Flaky]:
    """Run a proxy in front of the server at `endpoint`."""
    place = urlsplit(endpoint)
    proxy = Flaky((str(place.hostname), int(place.port or 0)))
    proxy.listen()
    try:
        yield proxy
    finally:
        proxy.end()

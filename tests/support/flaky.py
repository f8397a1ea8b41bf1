"""A proxy between a registry and its object store that does to requests what networks do."""

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
    """What happens to one request instead of being passed on.

    `answer`: this is sent back. `after`: it is passed on, and the answer cut after so many bytes.
    `stall`: nothing is ever answered, or nothing beyond `after`. `taken`: the connection ends after
    so many bytes of the body. `pace`: it is passed on, and the body read with so many bytes a
    second.
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
"""What Amazon's server may answer to a Complete that it had begun to say yes to."""
CUT = Fault(after=0)
STALL = Fault(stall=True)

Judge = Callable[[str, str], Fault | None]
"""From method and target to what happens to the request."""


@dataclass
class Flaky:
    """A running proxy. `judge` is asked about each request, on a thread of the connection, and may
    take its time; `seen` is what came, `heads` in full.
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
        """Take connections, at the same port again after `refuse`."""
        listener = socket.create_server(("127.0.0.1", self.port))
        self.port = listener.getsockname()[1]
        self._listener = listener
        self._run(self._accept, listener)

    def _run(self, work: Callable[[socket.socket], None], peer: socket.socket) -> None:
        thread = threading.Thread(target=work, args=[peer], daemon=True)
        self._threads.append(thread)
        thread.start()

    def refuse(self) -> None:
        """Take no connections, and cut those there are."""
        if self._listener is not None:
            # To close it would not wake the thread that waits in `accept`.
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
            thread.join(10)  # or its connections would end in the middle of another test

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
        """Serve one request; whether another may follow on the connection."""
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
    """Send the answer on, as much of it as is wanted."""
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
    """The head as the server gets it: one request a connection, the body follows at once."""
    head = re.sub(rb"(?i)\r\n(expect|connection):[^\r]*", b"", head)
    return head.removesuffix(b"\r\n") + b"Connection: close\r\n\r\n"


@contextlib.contextmanager
def flaky(endpoint: str) -> Iterator[Flaky]:
    """A proxy before the server at `endpoint`."""
    place = urlsplit(endpoint)
    proxy = Flaky((str(place.hostname), int(place.port or 0)))
    proxy.listen()
    try:
        yield proxy
    finally:
        proxy.end()

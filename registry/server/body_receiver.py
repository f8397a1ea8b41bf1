"""Request bodies that arrive fast, received on threads and without the event loop."""

import asyncio
import os
import select
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from registry.server.body_framing import ChunkedBody, FixedBody
from registry.server.framing_error import FramingError

THREADS = 4
"""The number of bodies that threads receive at the same time. They never block, so few suffice."""

BURST = 512 << 10
"""The bytes of a body to receive in one call."""

READ = 256 << 10
"""The bytes to read at once."""

LONGEST = 0.05
"""The time that a call may take, in seconds: a client that drips does not keep a thread."""

PATIENCE_MS = 5
"""The time to wait for more in a call, in milliseconds: a fast client sends on within it."""


@dataclass(frozen=True, slots=True)
class Burst:
    """Bytes of a body, the bytes after its end, and the error that ended the call."""

    data: bytes
    rest: bytes = b""
    error: FramingError | None = None


class BodyReceiver:
    """Threads that receive bodies for all connections of a process.

    A call does not wait for a slow client: the transport does, with the deadlines of the event
    loop. The descriptor of the socket is duplicated for the call, because the transport may close
    its own meanwhile.
    """

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(THREADS, "receive")
        self._free = THREADS

    def start(self, descriptor: int, body: FixedBody | ChunkedBody) -> asyncio.Future[Burst] | None:
        """Receive the next bytes of a body, while the transport does not read.

        Returns None if no thread is free or the body is not worth one.
        """
        if not self._free or not body.is_bulk:
            return None
        try:
            duplicate = os.dup(descriptor)
        except OSError:
            return None
        self._free -= 1
        loop = asyncio.get_running_loop()
        burst = loop.run_in_executor(self._threads, _receive, duplicate, body)
        burst.add_done_callback(self._release)
        return burst

    def _release(self, _: asyncio.Future[Burst]) -> None:
        self._free += 1

    def close(self) -> None:
        """End the threads, which are idle or end within a moment."""
        self._threads.shutdown()


def _receive(descriptor: int, body: FixedBody | ChunkedBody) -> Burst:
    pieces: list[bytes] = []
    size, rest = 0, b""
    until = time.monotonic() + LONGEST
    with socket.socket(fileno=descriptor) as connection:
        try:
            while size < BURST and body.is_bulk and time.monotonic() < until:
                data = _read(connection, min(READ, body.read_size))
                if not data:  # nothing yet, the end or an error: the transport meets it again
                    break
                piece, rest = body.feed(data)
                pieces.append(piece)
                size += len(piece)
        except FramingError as error:
            return Burst(b"", error=error)
    return Burst(pieces[0] if len(pieces) == 1 else b"".join(pieces), rest)


def _read(connection: socket.socket, size: int) -> bytes:
    """Return the next bytes; nothing if there are none within a moment."""
    try:
        return connection.recv(size)
    except BlockingIOError:
        readable = select.poll()
        readable.register(connection, select.POLLIN)
        if not readable.poll(PATIENCE_MS):
            return b""
    except OSError:
        return b""
    try:
        return connection.recv(size)
    except OSError:
        return b""

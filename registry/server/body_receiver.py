"""Request bodies that arrive fast, received on threads and without the event loop."""

import asyncio
import os
import select
import socket
import threading
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor

from msgspec import Struct

from registry.server.body_framing import READ_BULK, ChunkedBody, FixedBody
from registry.server.framing_error import FramingError
from storage.driver import Sink

THREADS = 4
"""The number of bodies that threads receive at the same time.

They never wait for a client, and two cores are busy with two of them.
"""

BURST = 512 << 10
"""The bytes of a body to receive in one call, if they are kept in memory."""

TRANSFER = 8 << 20
"""The bytes of a body to receive in one call, if a sink takes them."""

LONGEST = 0.05
"""The time that a call may take, in seconds: a client that drips does not keep a thread."""

PATIENCE_MS = 5
"""The time to wait for more in a call, in milliseconds: a fast client sends on within it.

A call does not wait while other bodies wait for a thread.
"""

_local = threading.local()


class Burst(Struct, frozen=True):
    """The bytes of a body that a call has received.

    `size` is their number. They are in `data` unless a sink took them. `rest` are the bytes after
    the end of the body. `error` is an error of the framing, and `failure` is one of the sink.
    """

    size: int
    data: bytes = b""
    rest: bytes = b""
    error: FramingError | None = None
    failure: Exception | None = None


class _Taken:
    """The bytes for a sink. After an error of it, more are dropped, but the framing continues."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self.size = 0
        self.failure: Exception | None = None

    def add(self, pieces: list[memoryview]) -> None:
        if pieces and self.failure is None:
            try:
                self._sink(pieces)
            except Exception as error:  # noqa: BLE001 - the receiver of the body raises it
                self.failure = error
            else:
                self.size += sum(map(len, pieces))


class BodyReceiver:
    """Threads that receive bodies for all connections of a process.

    A call does not wait for a slow client: the transport does, with the deadlines of the event
    loop. The descriptor of the socket is duplicated for the call, because the transport may close
    its own meanwhile.
    """

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(THREADS, "receive")
        self._free = THREADS
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def reserve(self) -> None:
        """Reserve a thread for one call, in the order in which bodies ask for it."""
        if self._free:
            self._free -= 1
            return
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.release()
            raise

    def release(self) -> None:
        """Give a reserved thread to the next body that waits."""
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self._free += 1

    def start(self, descriptor: int, body: FixedBody | ChunkedBody) -> asyncio.Future[Burst] | None:
        """Receive the next bytes of a body, while the transport does not read.

        Returns None if no thread is free or the body is not worth one.
        """
        if not self._free or not body.is_bulk:
            return None
        self._free -= 1
        return self.start_reserved(descriptor, body)

    def start_reserved(
        self,
        descriptor: int,
        body: FixedBody | ChunkedBody,
        sink: Sink | None = None,
        most: int = BURST,
    ) -> asyncio.Future[Burst] | None:
        """Do as `start` on a reserved thread, which passes at most `most` bytes to `sink`.

        Returns None if no descriptor is free.
        """
        try:
            duplicate = os.dup(descriptor)
        except OSError:
            self.release()
            return None
        loop = asyncio.get_running_loop()
        burst = loop.run_in_executor(self._threads, self._receive, duplicate, body, sink, most)
        burst.add_done_callback(lambda _: self.release())
        return burst

    def close(self) -> None:
        """End the threads, which are idle or end within a moment."""
        self._threads.shutdown()

    def _receive(
        self, descriptor: int, body: FixedBody | ChunkedBody, sink: Sink | None, most: int
    ) -> Burst:
        kept: list[bytes] = []
        taken = _Taken(sink or (lambda pieces: kept.append(b"".join(pieces))))
        at, end = 0, 0
        buffer = _find_buffer()
        until = time.monotonic() + LONGEST
        with socket.socket(fileno=descriptor) as connection:
            try:
                while taken.size < most and body.is_bulk and time.monotonic() < until:
                    space = memoryview(buffer)[: min(most - taken.size, body.bulk_read_size)]
                    at, end = 0, self._read(connection, space)
                    if not end:  # nothing yet, the end or an error: the transport meets it again
                        break
                    while at < end and not body.complete:
                        pieces, at = body.split(buffer, at, end)
                        taken.add(pieces)
                    if taken.failure is not None:
                        break
            except FramingError as error:
                return Burst(taken.size, error=error, failure=taken.failure)
        data = kept[0] if len(kept) == 1 else b"".join(kept)
        return Burst(taken.size, data, bytes(buffer[at:end]), failure=taken.failure)

    def _read(self, connection: socket.socket, space: memoryview) -> int:
        """Return the number of bytes read; 0 if there are none within a moment."""
        try:
            return connection.recv_into(space)
        except BlockingIOError:
            if self._waiting:
                return 0
            readable = select.poll()
            readable.register(connection, select.POLLIN)
            if not readable.poll(PATIENCE_MS):
                return 0
        except OSError:
            return 0
        try:
            return connection.recv_into(space)
        except OSError:
            return 0


def _find_buffer() -> bytearray:
    """Return the buffer of this thread."""
    try:
        buffer: bytearray = _local.buffer
    except AttributeError:
        buffer = _local.buffer = bytearray(READ_BULK)
    return buffer

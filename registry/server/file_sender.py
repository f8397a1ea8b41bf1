"""Sending of files with sendfile(2), so that their bytes never pass through Python."""

import asyncio
import os
import select
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Protocol

from registry.server.buffer_sizes import WRITE_BUFFER
from storage.shield import run_to_completion

THREADS = 16
"""The number of threads, because reading from a disk blocks."""

PIECE = 32 << 10
"""The bytes to pass to the transport when the socket accepts no more at once."""

PATIENCE_MS = 5
"""The time to wait for a client in a call, in milliseconds: a fast one reads on within it."""


class Socket(Protocol):
    """The socket of a transport."""

    def fileno(self) -> int: ...


class FileSender:
    """Threads that call sendfile(2) for all connections of a process.

    A call does not wait for a slow client: it sends what the kernel accepts. The descriptor of the
    socket is duplicated for the call, because the transport may close its own meanwhile, and
    another connection could get the same number. There are at most `THREADS` duplicates.
    """

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(THREADS, "sendfile")
        self._free = asyncio.Semaphore(THREADS)

    async def send_after(
        self,
        transport: asyncio.Transport,
        drain: Callable[[], Awaitable[None]],
        file: int,
        offset: int,
        count: int,
    ) -> tuple[int, bytes]:
        """Send bytes of a file as `send`, after everything that was written to the transport.

        `drain` waits until the transport has sent nearly all of that. Raises ConnectionError if the
        client has disconnected.
        """
        transport.set_write_buffer_limits(high=0)
        await drain()
        transport.set_write_buffer_limits(high=WRITE_BUFFER)
        if transport.is_closing():
            raise ConnectionAbortedError
        return await self.send(transport.get_extra_info("socket"), file, offset, count)

    async def send(self, socket: Socket, file: int, offset: int, count: int) -> tuple[int, bytes]:
        """Send up to `count` bytes from `offset` of a file.

        Returns the number of bytes sent, and the following bytes of the file if the socket accepts
        no more. An error of the socket or of sendfile(2) counts as that: the transport meets it
        again. Both are empty at the end of the file. Raises OSError if the file cannot be read.
        """
        async with self._free:
            loop = asyncio.get_running_loop()
            with _duplicate(socket) as duplicate:
                return await run_to_completion(
                    loop.run_in_executor(self._threads, _send, duplicate, file, offset, count)
                )

    def close(self) -> None:
        """End the threads, which are idle."""
        self._threads.shutdown()


@contextmanager
def _duplicate(socket: Socket) -> Iterator[int]:
    """Provide a duplicate of the descriptor; -1 if the socket is closed or none is free."""
    try:
        duplicate = os.dup(socket.fileno())
    except OSError:
        yield -1
        return
    try:
        yield duplicate
    finally:
        os.close(duplicate)


def _send(socket: int, file: int, offset: int, count: int) -> tuple[int, bytes]:
    sent = 0
    while sent < count:
        try:
            size = os.sendfile(socket, file, offset + sent, count - sent)
        except OSError as error:
            if isinstance(error, BlockingIOError) and _wait(socket):
                continue
            return sent, os.pread(file, min(PIECE, count - sent), offset + sent)
        if not size:
            break
        sent += size
    return sent, b""


def _wait(socket: int) -> bool:
    """Wait a moment; return whether the socket accepts more."""
    writable = select.poll()
    writable.register(socket, select.POLLOUT)
    return bool(writable.poll(PATIENCE_MS))

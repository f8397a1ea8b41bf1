"""The progress of a client that reads what was sent to it."""

import asyncio
import fcntl
import struct
import termios

from registry.server.limits import ServerLimits


class WriteProgress:
    """The bytes that the client's kernel has acknowledged, compared with the minimum rate.

    Bytes that the socket has accepted do not count: if a client empties its buffer slowly, the
    socket becomes writable only rarely.
    """

    def __init__(self, transport: asyncio.Transport, limits: ServerLimits) -> None:
        self.written = 0
        """The bytes passed to the transport."""
        self._transport = transport
        self._limits = limits
        self._last: tuple[float, int] | None = None

    def is_too_slow(self, now: float) -> bool:
        """Return whether the client has read less than the minimum within a window."""
        waiting = self._transport.get_write_buffer_size()
        if not waiting:
            self._last = None
            return False
        written: int = self._transport.get_extra_info("bytes_written", self.written)  # with TLS
        acknowledged = written - waiting - self._count_unacknowledged()
        if self._last is None:
            self._last = now, acknowledged
        since, before = self._last
        if now - since < self._limits.write_window:
            return False
        self._last = now, acknowledged
        return acknowledged - before < self._limits.write_minimum

    def _count_unacknowledged(self) -> int:
        """Return the number of bytes in the kernel's send buffer (tcp(7), SIOCOUTQ)."""
        descriptor = self._transport.get_extra_info("socket").fileno()
        if descriptor < 0:
            return 0
        queued: int = struct.unpack("i", fcntl.ioctl(descriptor, termios.TIOCOUTQ, bytes(4)))[0]
        return queued

"""TLS between a connection and the transport of its socket.

asyncio's own class allocates 256 KiB for each connection and up to 512 KiB for a slow reader. It
does not count what its inner transport has not sent, and drops that a fixed time after a close. It
loses track of a connection whose client leaves while reading is paused.
"""

import asyncio
import enum
import ssl
from typing import Any

from registry.server.connection import Connection

RECORD = 16 << 10
"""The bytes to encrypt or decrypt at once.

OpenSSL keeps its buffers at the largest size ever needed.
"""

READ = 256 << 10
"""The maximum number of bytes to read from the socket at once.

The limit is lower if the connection itself would read less.
"""

MAX_UNREAD = 1 << 20
"""The maximum number of bytes that may wait for a client to read them.

A response has fewer, but the number of answers to key updates is unlimited.
"""

# Shared by all transports: the loop fills it and hands it over in the same call.
_ciphertext = memoryview(bytearray(READ))
_NOTHING = _ciphertext[:0]


class _State(enum.Enum):
    HANDSHAKE = enum.auto()
    OPEN = enum.auto()
    CLOSED = enum.auto()


class TlsTransport(asyncio.Transport, asyncio.BufferedProtocol):
    """The transport of a connection, and the protocol of its socket's transport.

    Encrypted bytes are passed to the socket's transport at once, so its buffer is the only one.
    Flow control, the size of the write buffer and the flush before a close are the same as for
    plain connections.
    """

    def __init__(self, context: ssl.SSLContext, connection: Connection) -> None:
        super().__init__()
        self.opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done when the handshake has ended, with an OSError if it failed."""
        self.opened.add_done_callback(_note)
        self._context = context
        self._connection = connection
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._state = _State.HANDSHAKE
        self._made = False
        self._socket: asyncio.Transport
        self._written = 0
        self._paused = False

    # Protocol methods, called by the socket's transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - asyncio's own types
        self._socket = transport

    def connection_lost(self, exc: Exception | None) -> None:
        if self._made:
            self._connection.connection_lost(exc)
        elif not self.opened.done():
            self.opened.set_exception(exc or ConnectionAbortedError("the connection was closed"))
        self._state = _State.CLOSED
        # This object is part of a reference cycle. Free what is large before the garbage collector
        # runs.
        del self._tls, self._incoming, self._outgoing

    def get_buffer(self, sizehint: int) -> memoryview:
        return _ciphertext[: len(self._connection.get_buffer(sizehint))]

    def buffer_updated(self, nbytes: int) -> None:
        data = _ciphertext[:nbytes]
        if self._state is _State.HANDSHAKE:
            self._incoming.write(data)
            self._shake_hands()
        else:
            self._read(data)

    def eof_received(self) -> bool:
        if self._state is _State.HANDSHAKE:
            self._fail(ConnectionResetError("the client closed the connection"))
        else:
            self._read(_NOTHING)
            self._end()
        return True  # it is closed, or its buffer is still being sent

    def pause_writing(self) -> None:
        self._connection.pause_writing()

    def resume_writing(self) -> None:
        self._connection.resume_writing()

    # Transport methods, called by the connection

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Return a value of the socket's transport, `sslcontext`, or `bytes_written` to it."""
        if name == "sslcontext":
            return self._context
        if name == "bytes_written":
            return self._written
        return self._socket.get_extra_info(name, default)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self._state is not _State.OPEN:
            return
        view = memoryview(data)
        records: list[bytes] = []
        try:
            while view:
                view = view[self._tls.write(view[:RECORD]) :]
                records.append(self._outgoing.read())
        except ssl.SSLError:  # the client violated the protocol before
            self.abort()
            return
        self._send(b"".join(records))

    def can_write_eof(self) -> bool:
        return False

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._socket.set_write_buffer_limits(high, low)

    def get_write_buffer_size(self) -> int:
        return self._socket.get_write_buffer_size()

    def pause_reading(self) -> None:
        self._paused = True
        self._socket.pause_reading()

    def resume_reading(self) -> None:
        if self._paused:
            self._paused = False
            self._socket.resume_reading()
            asyncio.get_running_loop().call_soon(self._read, _NOTHING)

    def is_reading(self) -> bool:
        return not self._paused and self._state is _State.OPEN

    def is_closing(self) -> bool:
        return self._state is _State.CLOSED

    def close(self) -> None:
        """Close after the client has read what was written, including the close_notify alert.

        This does not wait for the client's close_notify (RFC 8446 section 6.1).
        """
        if self._state is _State.OPEN:
            self._state = _State.CLOSED
            try:
                self._tls.unwrap()
            except ssl.SSLError:  # close_notify of the client is pending, or a violation
                self._send(self._outgoing.read())
        self._socket.close()

    def abort(self) -> None:
        self._state = _State.CLOSED
        self._socket.abort()

    # Records

    def _shake_hands(self) -> None:
        if self.opened.done():  # the task that waited for it has been cancelled
            return
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            self._send(self._outgoing.read())
            return
        except OSError as error:  # including ssl.SSLError
            self._send(self._outgoing.read())  # the alert with the reason
            self._fail(error)
            return
        self._send(self._outgoing.read())
        self._state = _State.OPEN
        self._made = True
        self._connection.connection_made(self)
        self.opened.set_result(None)
        self._read(_NOTHING)

    def _fail(self, error: OSError) -> None:
        self._state = _State.CLOSED
        if not self.opened.done():
            self.opened.set_exception(error)
        self._socket.close()

    def _read(self, data: memoryview) -> None:
        """Decrypt `data`, after any earlier bytes, while the connection reads."""
        taken = 0
        while self._state is _State.OPEN and not self._paused:
            buffer = self._connection.get_buffer(-1)
            try:
                filled, taken, ended = self._fill(buffer, data, taken)
            except ssl.SSLError:
                self.abort()
                return
            if filled:
                self._connection.buffer_updated(filled)
            if ended:
                self._end()
                break
            if filled < len(buffer):
                break
        if self._state is _State.OPEN:
            self._incoming.write(data[taken:])
            self._send(self._outgoing.read())
            if self.get_write_buffer_size() > MAX_UNREAD:
                self.abort()

    def _fill(self, buffer: memoryview, data: memoryview, taken: int) -> tuple[int, int, bool]:
        """Decrypt into `buffer`.

        Returns the number of bytes written to it, the position in `data` up to which bytes were
        used, and whether the client has ended TLS.
        """
        filled = 0
        while filled < len(buffer):
            try:
                # With a buffer, it returns a number of bytes.
                count: int = self._tls.read(len(buffer) - filled, buffer[filled:])  # type: ignore[assignment]
            except ssl.SSLWantReadError:
                if taken == len(data):
                    break
                taken += self._incoming.write(data[taken : taken + RECORD])
                continue
            if not count:
                return filled, taken, True
            filled += count
        return filled, taken, False

    def _end(self) -> None:
        """Handle the end of the client's side; the client may still read (RFC 8446 section 6.1)."""
        if self._state is _State.OPEN and not self._connection.eof_received():
            self.close()

    def _send(self, data: bytes) -> None:
        if data:
            self._written += len(data)
            self._socket.write(data)


def _note(opened: asyncio.Future[None]) -> None:
    """Keep asyncio from logging a failure that nobody waited for: its connection was evicted."""
    if not opened.cancelled():
        opened.exception()

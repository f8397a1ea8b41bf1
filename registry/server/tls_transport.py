"""TLS between a connection and the transport of its socket.

asyncio's own class allocates 256 KiB for each connection and up to 512 KiB for a slow reader, does
not count what its inner transport has not sent, drops that a fixed time after a close, and forgets
a connection whose client leaves while reading is paused.
"""

import asyncio
import enum
import ssl
from typing import Any

from registry.server.connection import Connection

RECORD = 16 << 10
"""Bytes encrypted or decrypted at once: OpenSSL keeps buffers of the largest size ever needed."""

READ = 256 << 10
"""Bytes of the socket read at once, at most as many as the connection would read by itself."""

MAX_UNREAD = 1 << 20
"""Bytes that may wait for a client: a response has fewer, answers to key updates have no bound."""

# Read by one transport at a time: the loop fills it and hands it over in the same call.
_ciphertext = memoryview(bytearray(READ))
_NOTHING = _ciphertext[:0]


class _State(enum.Enum):
    HANDSHAKE = enum.auto()
    OPEN = enum.auto()
    CLOSED = enum.auto()


class TlsTransport(asyncio.Transport, asyncio.BufferedProtocol):
    """The transport of a connection, and the protocol of the transport of its socket.

    Encrypted bytes are handed to the socket's transport at once, so its buffer is the only one:
    flow control, the size of the write buffer and the flush before a close are those of plain
    connections.
    """

    def __init__(self, context: ssl.SSLContext, connection: Connection) -> None:
        super().__init__()
        self.opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done when the handshake has ended; OSError if it failed."""
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

    # The protocol of the socket's transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - asyncio's own types
        self._socket = transport

    def connection_lost(self, exc: Exception | None) -> None:
        if self._made:
            self._connection.connection_lost(exc)
        elif not self.opened.done():
            self.opened.set_exception(exc or ConnectionAbortedError("the connection was closed"))
        self._state = _State.CLOSED
        # This is part of a cycle of references; what is large does not wait for the collector.
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
        return True  # it has been closed, or its buffer is still being sent

    def pause_writing(self) -> None:
        self._connection.pause_writing()

    def resume_writing(self) -> None:
        self._connection.resume_writing()

    # The transport of the connection

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Return what the socket's transport knows, `sslcontext`, or `bytes_written` to it."""
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
        except ssl.SSLError:  # the client broke the protocol before
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
        """Close when the client has read what was written, the end of TLS included.

        The client's own end is not awaited (RFC 8446 section 6.1).
        """
        if self._state is _State.OPEN:
            self._state = _State.CLOSED
            try:
                self._tls.unwrap()
            except ssl.SSLError:  # that it waits for the client's end, or the protocol was broken
                self._send(self._outgoing.read())
        self._socket.close()

    def abort(self) -> None:
        self._state = _State.CLOSED
        self._socket.abort()

    # Records

    def _shake_hands(self) -> None:
        if self.opened.done():  # who waited for it has been cancelled
            return
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            self._send(self._outgoing.read())
            return
        except OSError as error:  # ssl.SSLError is one
            self._send(self._outgoing.read())  # the alert that says why
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
        """Decrypt `data` after what arrived before, for as long as the connection reads."""
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
        """Decrypt into `buffer`; the bytes of it that are filled, those of `data` that were needed,
        and whether the client has ended TLS.
        """
        filled = 0
        while filled < len(buffer):
            try:
                # With a buffer, it returns a number.
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
        """The client has ended its side; it may still read (RFC 8446 section 6.1)."""
        if self._state is _State.OPEN and not self._connection.eof_received():
            self.close()

    def _send(self, data: bytes) -> None:
        if data:
            self._written += len(data)
            self._socket.write(data)


def _note(opened: asyncio.Future[None]) -> None:
    """Keep asyncio from logging a failure that nobody waited for: its connection gave way."""
    if not opened.cancelled():
        opened.exception()

"""Framing of request bodies: RFC 9112 sections 6.2 and 7.1."""

import re

from registry.server.framing_error import FramingError

MAX_CHUNK_LINE = 256
"""The maximum size of the line before a chunk, including its extensions, in bytes."""

MAX_FRAMING = 16 << 10
"""The maximum size of chunk framing, including extensions, in bytes. This is Go's limit.

Twice the size of the data, and `FREE_FRAMING` for each chunk, do not count. So any number of
one-byte chunks is accepted, but not with long extensions.
"""

FREE_FRAMING = 16
"""The framing of each chunk that does not count, in bytes."""

SMALL_CHUNK = 64
"""The size of a chunk, in bytes, below which parsing costs more than the data.

A megabyte of one-byte chunks takes 0.4 s.
"""

READ_SMALL_CHUNKS = 4 << 10
"""The bytes to read at once after a small chunk.

With this, no iteration of the event loop takes over 2 ms.
"""

READ_FRAMED = 16 << 10
"""The bytes of heads, and of lines between chunks, to read at once.

Other connections run before more is parsed, and no more than that of the next request is buffered.
"""

READ_CHUNKS = 64 << 10
"""The bytes to read at once after a chunk of at least `READ_FRAMED` bytes.

The chunks of Docker have 32 KiB. Reading them one by one would cost 10% more.
"""

READ_BULK = 512 << 10
"""The bytes to read at once on a thread: a power of two that fits into the cache of a core."""

MAX_REST = 64 << 10
"""The maximum size of what follows a chunked body to keep, in bytes.

The end of such a body is known only after it was read.
"""

MAX_PIECES = 256
"""The chunks to parse at once, which takes less than 1 ms."""

MAX_TRAILER = 8 << 10
"""The maximum size of the trailer section, which is ignored, in bytes."""

_CHUNK_LINE = re.compile(rb"([0-9A-Fa-f]{1,16})[ \t]*(;[^\x00-\x08\x0a-\x1f\x7f]*)?")
_TRAILER_LINE = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+:[^\x00-\x08\x0a-\x1f\x7f]*")


class FixedBody:
    """A body of `length` bytes."""

    def __init__(self, length: int) -> None:
        self._left = length

    @property
    def complete(self) -> bool:
        """Whether the body has been read completely."""
        return self._left == 0

    @property
    def read_size(self) -> int:
        """The bytes to read at once: the rest of the body, and some of the next request."""
        return self._left + READ_FRAMED

    bulk_read_size = read_size
    """The bytes to read at once on a thread."""

    @property
    def is_bulk(self) -> bool:
        """Whether much of the body is left, so that a thread may receive it."""
        return self._left >= READ_CHUNKS

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        """Return the part of the body in `data`, and the bytes after its end."""
        taken = data[: self._left]
        self._left -= len(taken)
        return taken, data[len(taken) :]

    def split(self, data: bytes | bytearray, at: int, end: int) -> tuple[list[memoryview], int]:
        """Return the part of the body in `data[at:end]` as views, and the position after it."""
        stop = min(end, at + self._left)
        self._left -= stop - at
        return [memoryview(data)[at:stop]], stop


class ChunkedBody:
    """A body in the chunked transfer coding. Its trailer section is read and dropped.

    A trailer field must never become a header field. A proxy in front may check only headers, so a
    trailer field could forge an address or an identity.
    """

    def __init__(self) -> None:
        self.complete = False
        self._line = b""
        self._left = 0
        self._after_chunk = False
        self._in_trailer = False
        self._size = 0  # of the most recent chunk
        self._framing = 0  # bytes that count toward MAX_FRAMING
        self._trailer = 0

    @property
    def read_size(self) -> int:
        """The bytes to read at once, so that one iteration of the loop parses few chunks."""
        if self._size < SMALL_CHUNK:
            return self._left + READ_SMALL_CHUNKS
        return self._left + (READ_CHUNKS if self._size >= READ_FRAMED else READ_FRAMED)

    @property
    def bulk_read_size(self) -> int:
        """The bytes to read at once on a thread, after a large chunk."""
        return self._left + READ_BULK

    @property
    def is_bulk(self) -> bool:
        """Whether the chunks are large, so that a thread may receive them."""
        return not self.complete and self._size >= READ_FRAMED

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        """Return the part of the body in `data`, and the bytes after its end.

        Raises FramingError.
        """
        pieces: list[memoryview] = []
        at = 0
        while at < len(data) and not self.complete:
            more, at = self.split(data, at, len(data))
            pieces += more
        return b"".join(pieces), data[at:]

    def split(self, data: bytes | bytearray, at: int, end: int) -> tuple[list[memoryview], int]:
        """Return parts of the body in `data[at:end]` as views, and the position after them.

        Stops after `MAX_PIECES` parts. Raises FramingError.
        """
        view = memoryview(data)
        pieces: list[memoryview] = []
        while at < end and not self.complete and len(pieces) < MAX_PIECES:
            if self._left:
                piece = view[at : min(end, at + self._left)]
                at += len(piece)
                self._left -= len(piece)
                self._after_chunk = self._left == 0
                pieces.append(piece)
            elif self._after_chunk and not self._line and data.startswith(b"\r\n", at, end):
                self._after_chunk = False  # the same as `_take_line`, but faster
                at += 2
            else:
                at = self._take_line(data, at, end)
        return pieces, at

    def _take_line(self, data: bytes | bytearray, at: int, end: int) -> int:
        """Consume bytes up to the end of a line; return the end position.

        A complete line is processed.
        """
        found = data.find(b"\n", at, end)
        stop = end if found < 0 else found + 1
        self._line += data[at:stop]
        if len(self._line) > (MAX_TRAILER if self._in_trailer else MAX_CHUNK_LINE):
            raise FramingError("a line of the chunked body is too long")
        if found < 0:
            return stop
        line, self._line = self._line, b""
        if not line.endswith(b"\r\n"):
            raise FramingError("a line of the chunked body ends without CR")
        self._on_line(line[:-2])
        return stop

    def _on_line(self, line: bytes) -> None:
        if self._after_chunk:
            if line:
                raise FramingError("a chunk is longer than announced")
            self._after_chunk = False
        elif self._in_trailer:
            self._on_trailer(line)
        else:
            match = _CHUNK_LINE.fullmatch(line)
            if match is None:
                raise FramingError("the size of a chunk is not a hexadecimal number")
            size = int(match[1], 16)
            framing = len(line) + 4  # plus two CRLF
            self._framing = max(0, self._framing + framing - FREE_FRAMING - 2 * size)
            if self._framing > MAX_FRAMING:
                raise FramingError("the extensions of the chunks of the body are too long")
            self._left = self._size = size
            self._in_trailer = self._left == 0

    def _on_trailer(self, line: bytes) -> None:
        if not line:
            self.complete = True
            return
        self._trailer += len(line)
        if self._trailer > MAX_TRAILER:
            raise FramingError(f"the trailer section exceeds {MAX_TRAILER} bytes", 431)
        if not _TRAILER_LINE.fullmatch(line):
            raise FramingError("a trailer field is not NAME: VALUE on one line")

"""Several parts of a blob in one body: `multipart/byteranges`.

Source: RFC 9110 sections 14.6 and 15.3.7.2, RFC 2046 section 5.1. podman counts the parts, so there
is one for each range, in the requested order, and ranges are never merged.
"""

import secrets
from collections.abc import AsyncIterator, Sequence

from msgspec import Struct, field

from registry.http.ranges import Part
from storage.driver import Reader

BOUNDARY_BYTES = 16
"""The number of random bytes in a boundary, so that nobody can make a blob that contains it."""

GAP = 64 * 1024
"""The gap between two parts, in bytes, up to which both are read at once and the gap dropped.

Another request to a bucket, or another job on a thread, takes longer.
"""

FLUSH = 64 * 1024
"""The number of bytes of small parts that are sent together."""


class Multipart(Struct, frozen=True):
    """A body with `parts` of a blob of `size` bytes."""

    parts: Sequence[Part]
    size: int
    boundary: str = field(default_factory=lambda: secrets.token_hex(BOUNDARY_BYTES))

    @property
    def media_type(self) -> str:
        return f"multipart/byteranges; boundary={self.boundary}"

    @property
    def length(self) -> int:
        """The length of the whole body, in bytes."""
        heads = sum(len(self._head(number)) for number in range(len(self.parts)))
        return heads + sum(length for _, length in self.parts) + len(self._tail)

    @property
    def first_span(self) -> Part:
        """The first byte and the length of the first read."""
        return _span(self.parts, 0)[0]

    async def iter_body(self, reader: Reader) -> AsyncIterator[bytes]:
        """Yield the body in pieces; raise ObjectCorruptError.

        Memory use does not grow with the blob.
        """
        waiting = bytearray()
        number = 0
        while number < len(self.parts):
            span, beyond = _span(self.parts, number)
            at = span[0]
            async for piece in reader.read(*span):
                end = at + len(piece)
                while number < beyond and self.parts[number][0] < end:
                    start, length = self.parts[number]
                    if start >= at:
                        waiting += self._head(number)
                    waiting += piece[max(start, at) - at : min(start + length, end) - at]
                    if start + length > end:
                        break  # the rest of the part is in the next piece
                    number += 1
                at = end
                if len(waiting) >= FLUSH:
                    yield bytes(waiting)
                    waiting.clear()
        yield bytes(waiting) + self._tail

    def _head(self, number: int) -> bytes:
        start, length = self.parts[number]
        before = "\r\n" if number else ""
        return (
            f"{before}--{self.boundary}\r\n"
            "Content-Type: application/octet-stream\r\n"
            f"Content-Range: bytes {start}-{start + length - 1}/{self.size}\r\n\r\n"
        ).encode()

    @property
    def _tail(self) -> bytes:
        return f"\r\n--{self.boundary}--\r\n".encode()


def _span(parts: Sequence[Part], number: int) -> tuple[Part, int]:
    """Return the range of one read from the part `number`, and the number of the part after it."""
    start, length = parts[number]
    end = start + length
    number += 1
    while number < len(parts) and end <= parts[number][0] <= end + GAP:
        end = sum(parts[number])
        number += 1
    return (start, end - start), number

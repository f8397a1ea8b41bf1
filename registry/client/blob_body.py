"""The body of a blob, or of a part of it."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Self

from registry.client.response import Response
from registry.errors import UpstreamProtocolError

_PARTIAL = 206
_CONTENT_RANGE = re.compile(r"bytes ([0-9]{1,19})-([0-9]{1,19})/([0-9]{1,19}|\*)")


@dataclass(frozen=True, slots=True)
class BlobRange:
    """The bytes from `start` to before `stop` (None: to the end) of a blob of `size` bytes."""

    start: int = 0
    stop: int | None = None
    size: int | None = None

    @property
    def headers(self) -> Mapping[str, str]:
        """The Range header of a request, if one is needed."""
        if self.start == 0 and self.stop is None:
            return {}
        last = "" if self.stop is None else self.stop - 1
        return {"Range": f"bytes={self.start}-{last}"}


class BlobBody:
    """The bytes of a blob that were asked for, as an asynchronous iterator.

    If the server ignores the range, the bytes before it are read and dropped. Raises
    UpstreamProtocolError if the body is longer or shorter than the headers and the known size say.
    """

    def __init__(
        self, response: Response, asked: BlobRange, on_bytes: Callable[[int], None] = lambda _: None
    ) -> None:
        self._response = response
        self._on_bytes = on_bytes
        self._where = response.where
        self._position = 0
        stated = read_length(response)
        stop = stated
        if response.status == _PARTIAL:
            self._position, stop, stated = self._read_content_range()
        if stated is not None and asked.size not in {None, stated}:
            raise UpstreamProtocolError(
                f"{self._where} returned a blob of {stated} bytes instead of {asked.size}"
            )
        size = asked.size if stated is None else stated
        if size is None:
            raise UpstreamProtocolError(f"{self._where} does not state the size of the blob")
        self.size = size
        """Size of the whole blob, in bytes."""
        self.start = asked.start
        """Position of the first byte in the blob."""
        self.stop = size if asked.stop is None else min(asked.stop, size)
        """Position after the last byte in the blob."""
        self._end = size if stop is None else stop
        if response.status == _PARTIAL and (self._position, stop) != (self.start, self.stop):
            raise UpstreamProtocolError(f"{self._where} returned another range than requested")

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        while not self._is_complete:
            piece = await self._response.read_piece()
            self._on_bytes(len(piece))
            begin, self._position = self._position, self._position + len(piece)
            if not piece and self._position < self._end:
                raise UpstreamProtocolError(f"{self._where} returned a body that is too short")
            if self._position > self._end:
                raise UpstreamProtocolError(f"{self._where} returned a body that is too long")
            if not piece:
                break
            if wanted := piece[max(0, self.start - begin) : max(0, self.stop - begin)]:
                return wanted
        raise StopAsyncIteration

    @property
    def _is_complete(self) -> bool:
        """Whether all requested bytes were read. The body may have more."""
        return self._end > self.stop <= self._position

    def _read_content_range(self) -> tuple[int, int, int | None]:
        match = _CONTENT_RANGE.fullmatch(self._response.headers.get("Content-Range"))
        if match is None:
            raise UpstreamProtocolError(f"{self._where} returned an invalid partial response")
        return int(match[1]), int(match[2]) + 1, None if match[3] == "*" else int(match[3])


def read_length(response: Response) -> int | None:
    """Return the Content-Length of a response, or None if it is unknown."""
    text = response.headers.get("Content-Length")
    return int(text[:19]) if text.isascii() and text.isdigit() else None

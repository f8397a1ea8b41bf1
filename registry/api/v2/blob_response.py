"""The response with the bytes of a blob."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Self

from msgspec import Struct
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from registry.errors import UpstreamError
from registry.http.etags import format_date
from registry.http.multipart import Multipart
from registry.http.ranges import Part
from registry.http.sendfile import SENDFILE
from registry.services.content.blobs import BlobRow
from storage.digest import Digest
from storage.driver import Reader
from storage.errors import ObjectCorruptError

WATCHED = 64 << 10
"""The size of a body, in bytes, up to which it is sent in a few pieces.

A client that disconnects meanwhile is not noticed, which costs less than to watch for it.
"""

FIRST_STEP = 1 << 20
"""The number of bytes of a file to send in the first message. The sizes double from there.

The bytes sent are counted by message, and a client that disconnects is noticed between messages.
"""

MAX_STEP = 8 << 20
"""The maximum number of bytes of a file to send in one message."""


class BlobContent(Struct, frozen=True):
    """The blob of a response. `modified_at` is in microseconds; None if it is not stored yet."""

    digest: Digest
    size: int
    modified_at: int | None = None

    @classmethod
    def of_row(cls, row: BlobRow) -> Self:
        return cls(row.digest, row.size, row.linked_at)

    def list_headers(self, length: int, caching: Mapping[str, str]) -> dict[str, str]:
        """Return the headers of a response with a body of `length` bytes."""
        headers = {
            **caching,
            "Docker-Content-Digest": str(self.digest),
            "Content-Length": str(length),
            "Content-Type": "application/octet-stream",
            "Accept-Ranges": "bytes",
            "ETag": f'"{self.digest}"',
        }
        if self.modified_at is not None:
            headers["Last-Modified"] = format_date(self.modified_at)
        return headers


class BlobResponse(Response):
    """Streams an open blob. The blob is checked and opened before the first header is sent."""

    def __init__(
        self,
        content: BlobContent,
        reader: Reader,
        part: Part | Multipart | None,
        caching: Mapping[str, str],
        on_damage: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        """Create the response. `on_damage` is called if the bytes are not those of the blob."""
        size = content.size
        self._part = part if isinstance(part, Multipart) else part or (0, size)
        if isinstance(self._part, Multipart):
            self._length = self._part.length
            headers = content.list_headers(self._length, caching)
            headers["Content-Type"] = self._part.media_type
        else:
            start, self._length = self._part
            headers = content.list_headers(self._length, caching)
            if part is not None:
                headers["Content-Range"] = f"bytes {start}-{start + self._length - 1}/{size}"
        super().__init__(None, 206 if part else 200, headers)
        self._on_damage = on_damage
        self._reader = reader

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        watching = self._length > WATCHED
        gone = asyncio.create_task(_wait_until_gone(receive)) if watching else None
        try:
            await send(
                {
                    "type": "http.response.start",
                    "status": self.status_code,
                    "headers": self.raw_headers,
                }
            )
            async for message in self._iter_body(sendfile=SENDFILE in scope.get("extensions", {})):
                await send(message)
                if gone is not None and gone.done():
                    return  # servers drop data for a closed connection, so stop reading
        except (ObjectCorruptError, UpstreamError, EOFError):
            # Without a last message, the server aborts the connection, and the client sees that the
            # length is wrong. A padded or cleanly ended body could pass for the blob.
            if self._on_damage is not None:
                await self._on_damage()
        finally:
            if gone is not None:
                gone.cancel()
            await self._reader.close()

    async def _iter_body(self, *, sendfile: bool) -> AsyncIterator[Message]:
        """Yield the messages of the body; raise ObjectCorruptError.

        With `sendfile`, the server sends the file itself. It raises EOFError where a reader raises
        ObjectCorruptError.
        """
        left = self._length
        if isinstance(self._part, Multipart):
            pieces = self._part.iter_body(self._reader)
        elif sendfile and self._reader.file is not None:
            start, end = self._part[0], sum(self._part)
            at = start
            while at < end:
                size = min(max(FIRST_STEP, at - start), MAX_STEP, end - at)
                file = {"file": self._reader.file, "offset": at, "count": size}
                at += size
                yield {"type": SENDFILE, **file, "more_body": at < end}
            return
        else:
            pieces = self._reader.read(*self._part)
        async for piece in pieces:
            left -= len(piece)
            if piece:
                yield {"type": "http.response.body", "body": piece, "more_body": left > 0}
        if not self._length:
            yield {"type": "http.response.body", "body": b"", "more_body": False}


async def _wait_until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass

"""Blob endpoints (OCI distribution-spec: end-2 and end-10)."""

import asyncio
import math
from collections.abc import AsyncIterator

from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from registry.auth.caller import Validity
from registry.errors import RangeInvalidError
from registry.http.caching import FOREVER, cache_headers
from registry.http.etags import format_date, has_current
from registry.http.memory import SMALL_BODY
from registry.http.multipart import Multipart
from registry.http.ranges import Part, parse_ranges
from registry.http.request_context import RequestContext
from registry.http.sendfile import SENDFILE
from registry.services.content.blobs import SEEN_S, BlobRow, Blobs
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


def _headers(row: BlobRow, length: int, caching: dict[str, str]) -> dict[str, str]:
    return {
        **caching,
        "Docker-Content-Digest": str(row.digest),
        "Content-Length": str(length),
        "Content-Type": "application/octet-stream",
        "Accept-Ranges": "bytes",
        "ETag": f'"{row.digest}"',
        "Last-Modified": format_date(row.linked_at),
    }


class BlobResponse(Response):
    """Streams an open blob. The blob is checked and opened before the first header is sent."""

    def __init__(
        self,
        blobs: Blobs,
        row: BlobRow,
        reader: Reader,
        part: Part | Multipart | None,
        caching: dict[str, str],
    ) -> None:
        self._part = part if isinstance(part, Multipart) else part or (0, row.size)
        if isinstance(self._part, Multipart):
            self._length = self._part.length
            headers = _headers(row, self._length, caching)
            headers["Content-Type"] = self._part.media_type
        else:
            start, self._length = self._part
            headers = _headers(row, self._length, caching)
            if part is not None:
                headers["Content-Range"] = f"bytes {start}-{start + self._length - 1}/{row.size}"
        super().__init__(None, 206 if part else 200, headers)
        self._blobs = blobs
        self._row = row
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
        except (ObjectCorruptError, EOFError):
            # Without a last message, the server aborts the connection, and the client sees that the
            # length is wrong. A padded or cleanly ended body could pass for the blob.
            await self._blobs.note_damage(self._row)
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


def _elsewhere(digest: Digest, link: str) -> Response:
    """Redirect the client to the object, where it requests its range itself."""
    return Response(
        None,
        307,
        {
            "Location": link,
            "Docker-Content-Digest": str(digest),
            "Cache-Control": "no-store",  # the URL is a credential and expires soon
        },
    )


def _find_validity(context: RequestContext, promised_until: float = math.inf) -> Validity:
    """Return how long a response about the bytes holds if nobody has looked at them since."""
    return Validity(promised_until, context.received_at + SEEN_S)


async def get_blob(context: RequestContext) -> Response:
    digest = Digest.parse(context.param("digest"))
    headers = context.request.headers
    caching = cache_headers(context, FOREVER)
    conditional = "if-none-match" in headers or "if-modified-since" in headers
    if context.request.method == "HEAD" or conditional:
        found = await context.registry.blobs.stat(context.name, digest)
        row = found.row
        is_current = has_current(headers, str(digest), row.linked_at)
        if context.request.method == "HEAD" or is_current:
            context.allow_reuse(validity=_find_validity(context, found.until))
        if is_current:
            dated = {"ETag": f'"{digest}"', "Last-Modified": format_date(row.linked_at)}
            return Response(None, 304, {**dated, **caching})
        if context.request.method == "HEAD":
            return Response(None, 200, _headers(row, row.size, caching))
    row = await context.registry.blobs.get(context.name, digest)
    asked = headers.get("range")
    if headers.get("if-range") not in {None, f'"{digest}"', format_date(row.linked_at)}:
        asked = None
    try:
        parts = parse_ranges(asked, row.size)
    except RangeInvalidError:
        await context.registry.blobs.stat(context.name, digest)  # a missing blob gets 404, not 416
        raise
    if len(parts) > 1:
        # A bucket answers several ranges with the whole object, so the registry serves them itself.
        several = Multipart(parts, row.size)
        reader = await context.registry.blobs.open(row, several.first_span)
        return BlobResponse(context.registry.blobs, row, reader, several, caching)
    link = await context.registry.blobs.presigned_url(row)
    if link is not None:
        return _elsewhere(digest, link)
    part = parts[0] if parts else None
    reader = await context.registry.blobs.open(row, part)
    if part is None and row.size <= SMALL_BODY:
        context.allow_reuse(validity=_find_validity(context))
    return BlobResponse(context.registry.blobs, row, reader, part, caching)


async def delete_blob(context: RequestContext) -> Response:
    digest = Digest.parse(context.param("digest"))
    await context.registry.blobs.unlink(context.name, digest, context.principal)
    return Response(None, 202)
